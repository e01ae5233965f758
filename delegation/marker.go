package delegation

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// The marker is a TXT set in the parent's hosted zone, below the delegated name:
// the public does not see it there, who lists the hosted zone does. It has a record
// for each set that elbow has written, with a digest of what it wrote.
const (
	markerLabel = "_elbow-delegation."
	markerTTL   = 300
	markerSum   = 8 // bytes of the digest
)

// An ownership is what a record of the marker says.
type ownership struct {
	owner string
	sum   string
}

// marker returns the marker of a zone, nil where it would be empty.
func marker(zone string, owned map[key]ownership) *Set {
	if len(owned) == 0 {
		return nil
	}
	s := &Set{Name: markerLabel + zone, Type: "TXT", TTL: markerTTL}
	for k, o := range owned {
		s.Values = append(s.Values, fmt.Sprintf(`"heritage=elbow owner=%s set=%s/%s sum=%s"`, o.owner, relative(k.name, zone), k.typ, o.sum))
	}
	slices.Sort(s.Values)
	return s
}

// readMarker is the inverse of marker. It leaves out what is none of its records,
// and returns them.
func readMarker(zone string, s *Set) (owned map[key]ownership, strange []string) {
	owned = make(map[key]ownership)
	for _, v := range s.Values {
		var k key
		var o ownership
		fields := strings.Fields(strings.Trim(v, `"`))
		heritage := false
		for _, f := range fields {
			name, value, _ := strings.Cut(f, "=")
			switch name {
			case "heritage":
				heritage = value == "elbow"
			case "owner":
				o.owner = value
			case "set":
				if i := strings.LastIndexByte(value, '/'); i > 0 {
					k = key{absolute(value[:i], zone), value[i+1:]}
				}
			case "sum":
				o.sum = value
			}
		}
		if !heritage || k.name == "" || o.owner == "" {
			strange = append(strange, v)
			continue
		}
		owned[k] = o
	}
	return owned, strange
}

// relative returns name, which is at or below zone, as master files write it.
func relative(name, zone string) string {
	if name == zone {
		return "@"
	}
	return strings.TrimSuffix(name, "."+zone)
}

// absolute is the inverse of relative.
func absolute(name, zone string) string {
	if name == "@" {
		return zone
	}
	return name + "." + zone
}

// sum is the digest of a set in its marker.
func (s *Set) sum() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %d %q %q", s.Name, s.Type, s.TTL, s.Special, s.Values)
	return hex.EncodeToString(h.Sum(nil)[:markerSum])
}
