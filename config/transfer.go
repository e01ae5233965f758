package config

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"haslohas.com/elbow/pool"
)

const (
	maxTransfers = 64 // entries of one list of a zone
	maxKeys      = 1000
	maxSecret    = 4096 // bytes of the file of a secret

	// minSecret is how many bytes a secret has at least. Fewer can be guessed
	// from one message that was overheard.
	minSecret = 16
)

// transferClient is the rule for who may copy a zone: its network alone, or a
// mapping.
func transferClient(to *pool.TransferClient) rule {
	return briefly(network(&to.Network), section{
		{"network", network(&to.Network)},
		{"key", keyName(&to.Key)},
	})
}

// secondary is the rule for who is told of changes: its address alone, or a
// mapping.
func secondary(to *pool.Secondary) rule {
	return briefly(remote(&to.Address), section{
		{"address", required(remote(&to.Address))},
		{"key", keyName(&to.Key)},
	})
}

// briefly makes a rule for a mapping that may be written as one value.
func briefly(brief rule, long section) rule {
	return rule{decode: func(d *decoder, v value) {
		if v.Kind == yaml.MappingNode {
			long.decode(d, v)
		} else {
			brief.decode(d, v)
		}
	}}
}

// remote makes a rule for the address and port of another name server.
func remote(to *netip.AddrPort) rule {
	return scalar(to, "an address and port", func(s string) (netip.AddrPort, error) {
		a, err := parseAddrPort(s, "10.0.0.5:53")
		if err != nil {
			return a, err
		}
		if _, err := parseAddress(a.Addr().String()); err != nil {
			return a, err
		}
		if a.Port() == 0 {
			return a, fmt.Errorf("%s has port 0; want 1 to 65535", quote(s))
		}
		return a, nil
	})
}

// keyName makes a rule for the name of a key in dns.keys; empty: none.
func keyName(to *string) rule {
	on := hostname(to)
	return rule{
		decode: func(d *decoder, v value) {
			if v.ShortTag() == "!!str" && v.Value == "" {
				*to = ""
				return
			}
			on.decode(d, v)
		},
		about: func() string { return "the name of a key in dns.keys; default \"\"" },
	}
}

// A keyFile is a key, but for its secret, and where that lies.
type keyFile struct {
	name      string
	algorithm pool.KeyAlgorithm
	file      string
}

func key(to *keyFile) rule {
	return section{
		{"name", required(hostname(&to.name))},
		{"algorithm", enum(&to.algorithm, pool.ParseKeyAlgorithm)},
		{"secretFile", required(path(&to.file))},
	}.rule()
}

// checkKeys reads the secrets.
func (d *decoder) checkKeys(c *Config, keys []keyFile) {
	first := make(map[string]int)
	for i, k := range keys {
		at := fmt.Sprintf("dns.keys[%d]", i)
		if j, doubled := first[k.name]; doubled && k.name != "" {
			d.fail(at+".name", "the key %s is already dns.keys[%d]", k.name, j)
			continue
		}
		first[k.name] = i
		if !d.has(at+".secretFile") || d.bad(at+".secretFile") {
			continue
		}
		secret, err := readSecret(k.file)
		if err != nil {
			d.fail(at+".secretFile", "%v", err)
			continue
		}
		c.DNS.Keys = append(c.DNS.Keys, pool.Key{Name: k.name, Algorithm: k.algorithm, Secret: secret})
		c.secretFiles = append(c.secretFiles, k.file)
	}
	slices.SortFunc(c.DNS.Keys, func(a, b pool.Key) int { return strings.Compare(a.Name, b.Name) })
}

// checkTransfers checks what zones say about transfers.
func (d *decoder) checkTransfers(c *Config, keys []keyFile) {
	for i, z := range c.DNS.Zones {
		at := fmt.Sprintf("dns.zones[%d].transfer", i)
		for j, a := range z.Transfer.Allow {
			entry := fmt.Sprintf("%s.allow[%d]", at, j)
			d.checkKeyName(a.Key, entry, keys)
			if a == (pool.TransferClient{}) && !d.bad(entry) && !d.bad(entry+".network") && !d.bad(entry+".key") {
				d.fail(entry, "has neither network nor key: everybody could copy the zone; if that is meant, write 0.0.0.0/0 and ::/0")
			}
		}
		seen := make(map[netip.AddrPort]bool)
		for j, n := range z.Transfer.Notify {
			entry := fmt.Sprintf("%s.notify[%d]", at, j)
			d.checkKeyName(n.Key, entry, keys)
			if seen[n.Address] && n.Address.IsValid() {
				d.fail(entry, "%s stands here twice", n.Address)
			}
			seen[n.Address] = true
		}
	}
}

func (d *decoder) checkKeyName(name, entry string, keys []keyFile) {
	known := slices.ContainsFunc(keys, func(k keyFile) bool { return k.name == name })
	if name != "" && !known && !d.bad("dns.keys") {
		d.fail(entry+".key", "there is no key %s in dns.keys", name)
	}
}

// readSecret reads a secret in base64. No error shows any of it.
func readSecret(file string) (pool.Secret, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("reading the secret: %w", err)
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for a writer
		return "", fmt.Errorf("%s is not a regular file", file)
	}
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("reading the secret: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return "", fmt.Errorf("reading the secret: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("%s is open to everybody (mode %04o), so the secret in it is none any more; put a new one there and run: chmod o= %[1]s", file, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("reading the secret: %w", err)
	case len(text) > maxSecret:
		return "", fmt.Errorf("%s has more than %d bytes", file, maxSecret)
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	switch {
	case err != nil:
		return "", fmt.Errorf("%s is not base64 and nothing else; make one with: openssl rand -base64 32", file)
	case len(secret) < minSecret:
		return "", fmt.Errorf("%s holds %d bytes, fewer than %d can be guessed; make one with: openssl rand -base64 32", file, len(secret), minSecret)
	}
	return pool.Secret(secret), nil
}
