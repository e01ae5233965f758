package config

import (
	"fmt"
	"os"
	"strings"

	"haslohas.com/elbow/dnssec"
	"haslohas.com/elbow/pool"
)

const (
	maxNameServers = 32        // of one zone
	maxZoneText    = 256 << 20 // bytes of all zone files together
)

func zone(to **pool.Zone) rule {
	z := defaultZone()
	*to = z
	return section{
		{"name", required(hostname(&z.Name))},
		{"hostmaster", mailbox(&z.Hostmaster)},
		{"nameservers", list(&z.NameServers, maxNameServers, nameServer)},
		{"ttl", section{
			{"normal", ttl(&z.TTL.Normal)},
			{"degraded", ttl(&z.TTL.Degraded)},
			{"negative", ttl(&z.TTL.Negative)},
		}.rule()},
		{"file", path(&z.File)},
		{"dnssec", section{
			{"keys", required(path(&z.DNSSEC.Folder))},
			{"cds", enum(&z.DNSSEC.CDS, pool.ParseCDS)},
		}.rule()},
		{"transfer", section{
			{"allow", list(&z.Transfer.Allow, maxTransfers, transferClient)},
			{"notify", list(&z.Transfer.Notify, maxTransfers, secondary)},
		}.rule()},
	}.rule()
}

func nameServer(n *pool.NameServer) rule {
	return section{
		{"name", required(hostname(&n.Name))},
		{"addresses", list(&n.Addresses, maxAddresses, address)},
	}.rule()
}

// zones are those of a file by their names.
type zones map[string]*pool.Zone

// around returns the zone with the longest name that name is at or below, nil
// if none.
func (zs zones) around(name string) *pool.Zone {
	for {
		if z := zs[name]; z != nil {
			return z
		}
		_, parent, ok := strings.Cut(name, ".")
		if !ok {
			return nil
		}
		name = parent
	}
}

// checkZones checks the zones against each other, completes them, and reads
// their files.
func (d *decoder) checkZones(all []*pool.Zone) zones {
	byName, first := make(zones), make(map[string]int)
	for i, z := range all {
		if z.Name == "" {
			continue
		}
		if j, doubled := first[z.Name]; doubled {
			d.fail(fmt.Sprintf("dns.zones[%d].name", i), "the zone %s is already dns.zones[%d]", z.Name, j)
			continue
		}
		first[z.Name], byName[z.Name] = i, z
	}
	budget := int64(maxZoneText)
	for i, z := range all {
		at := fmt.Sprintf("dns.zones[%d]", i)
		d.checkNameServers(z, at, byName)
		if z.Hostmaster == "" {
			z.Hostmaster = "hostmaster@" + z.Name // RFC 2142 section 7
		}
		d.checkTTL(&z.TTL, at+".ttl")
		if z.File != "" {
			d.readZone(z, at+".file", &budget)
		}
		if d.has(at+".dnssec.keys") && !d.bad(at+".dnssec.keys") {
			d.readKeys(z, at+".dnssec.keys")
		}
	}
	return byName
}

func (d *decoder) checkNameServers(z *pool.Zone, at string, all zones) {
	if len(z.NameServers) == 0 && z.File == "" && !d.bad(at+".nameservers") && !d.bad(at+".file") {
		d.fail(at+".nameservers", "is required, unless a file brings the SOA and NS records of the zone")
	}
	seen := make(map[string]bool)
	for j, n := range z.NameServers {
		at := fmt.Sprintf("%s.nameservers[%d]", at, j)
		if n.Name == "" {
			continue
		}
		if seen[n.Name] {
			d.fail(at+".name", "the nameserver %s stands here twice", n.Name)
		}
		seen[n.Name] = true
		if all.around(n.Name) == z && len(n.Addresses) == 0 && z.File == "" && !d.bad(at+".addresses") {
			d.fail(at+".addresses", "is required: %s lies inside the zone, nobody could find it without (glue)", n.Name)
		}
		unique(d, at+".addresses", n.Addresses)
	}
}

func (d *decoder) checkTTL(ttl *pool.ZoneTTL, at string) {
	switch {
	case !d.has(at + ".degraded"):
		ttl.Degraded = min(ttl.Degraded, ttl.Normal)
	case ttl.Degraded > ttl.Normal && !d.bad(at+".normal"):
		d.fail(at+".degraded", "%s is longer than normal, which is %s", short(ttl.Degraded), short(ttl.Normal))
	}
}

// readZone reads the master file of z, up to what is left of the budget.
func (d *decoder) readZone(z *pool.Zone, at string, budget *int64) {
	info, err := os.Stat(z.File)
	switch {
	case err != nil:
		d.fail(at, "reading the zone file: %v", err)
		return
	case !info.Mode().IsRegular(): // opening a pipe would wait for a writer
		d.fail(at, "%s is not a regular file", z.File)
		return
	case info.Size() > *budget:
		d.fail(at, "the zone files have more than %d MiB together", maxZoneText>>20)
		return
	}
	records, err := read(z.File, *budget)
	if err != nil {
		d.fail(at, "reading the zone file: %v", err)
		return
	}
	*budget -= int64(len(records))
	z.Records = string(records)
}

// readKeys reads the keys that z is signed with. What they say is for the
// server to judge.
func (d *decoder) readKeys(z *pool.Zone, at string) {
	if z.DNSSEC.Folder == "" {
		d.fail(at, "is empty; want the folder with the keys of the zone, or no dnssec at all")
		return
	}
	files, err := dnssec.ReadFolder(z.DNSSEC.Folder, z.Name)
	switch {
	case err != nil:
		for line := range strings.Lines(err.Error()) {
			d.fail(at, "%s", strings.TrimSpace(line))
		}
	case len(files) == 0:
		d.fail(at, "there is no key of %s in %s; make one with: elbow dnssec keygen --zone %[1]s --dir %[2]s", z.Name, z.DNSSEC.Folder)
	}
	for _, f := range files {
		z.DNSSEC.Keys = append(z.DNSSEC.Keys, pool.KeyFile{Path: f.Path, Public: f.Public, Private: pool.Secret(f.Private)})
	}
}
