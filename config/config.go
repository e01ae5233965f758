// Package config is the file format: it reads a configuration strictly, fills
// in the defaults, and finds every mistake in one go, each with its place.
//
// The file is YAML. Each section of it is a list of keys with a rule for each,
// in file.go, dns.go and service.go; what must hold between keys is in
// check.go. reference.yaml documents every key.
package config

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"

	"haslohas.com/elbow/dnssec"
	"haslohas.com/elbow/pool"
)

// A Config is what a configuration file says, complete with the defaults and
// free of contradictions.
type Config struct {
	Host     pool.Host
	StateDir string // empty: nothing outlives a restart
	Admin    Admin
	Log      Log
	DNS      pool.DNS
	Services []Service // in the order of the file; names are unique

	Kubernetes Kubernetes
	AWS        AWS

	file        string   // the configuration itself
	secretFiles []string // of dns.keys and dns.cookies
}

// Admin says where the daemon can be looked at and steered.
type Admin struct {
	Listen netip.AddrPort // read-only HTTP; the zero value: off
	Socket string         // path of the control socket; empty: off
}

// Log says what is logged and where.
type Log struct {
	Level       slog.Level
	Format      string // text or json
	Connections string // the connection log: stdout, stderr, off, or the absolute path of a file
}

// A Service is a service and where its endpoints come from. The endpoints of
// the embedded one are there if the source is Static.
type Service struct {
	*pool.Service
	Source Source

	// OwnProbe: the file says what the probes ask for, not only how often.
	OwnProbe bool
}

// A Source says where the endpoints of a service come from: Kind, and the field
// of that name.
type Source struct {
	Kind       SourceKind
	Static     []pool.Endpoint // sorted by Address, which is unique
	File       FileSource
	Kubernetes KubernetesSource
	EC2        EC2Source
}

// SourceKind is a kind of [Source].
type SourceKind uint8

const (
	Static         SourceKind = iota // they stand in the configuration
	File                             // they stand in a file of their own, which is watched
	FromKubernetes                   // they are asked of a cluster
	FromEC2                          // they are instances
)

func (k SourceKind) String() string { return [...]string{"static", "file", "kubernetes", "ec2"}[k] }

// Load reads the configuration file at path and the zone files it names. What
// is wrong with the content is an [Errors].
func Load(path string) (*Config, error) {
	text, err := read(path, maxText)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(path, text)
}

// Parse is Load for a text that was read already. Errors call it name, and
// relative paths in it are taken from the folder of name. The error is always
// an [Errors].
func Parse(name string, text []byte) (*Config, error) {
	d := newDecoder(name)
	root, err := document(text)
	if err != nil {
		d.add(*err)
		return nil, d.failed()
	}
	c := d.config(root)
	if err := d.failed(); err != nil {
		return nil, err
	}
	return c, nil
}

// Files returns the paths of the files that c was made from: the configuration,
// the zone files, keys and the folders of keys, and the secrets. A change of any of them asks for a reload.
func (c *Config) Files() []string {
	files := []string{c.file}
	for _, z := range c.DNS.Zones {
		if z.File != "" {
			files = append(files, z.File)
		}
		if z.DNSSEC.Folder != "" {
			files = append(files, z.DNSSEC.Folder) // a key may be added
		}
		for _, k := range z.DNSSEC.Keys {
			files = append(files, k.Path, dnssec.PublicPath(k.Path))
		}
	}
	return append(files, c.secretFiles...)
}

// read returns the content of the file at path, which must not have more than
// limit bytes.
func read(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s is larger than %d MiB", path, limit>>20)
	}
	return text, nil
}
