package config

import (
	"testing"

	"haslohas.com/elbow/pool"
)

func TestWhoLooksOn(t *testing.T) {
	const zone = "host: {name: master}\ndns:\n  zones: [{name: a.test, nameservers: [{name: ns.b.test}]}]\n"
	for _, c := range []struct {
		text   string
		log    pool.QueryLog
		dnstap pool.Dnstap
		top    bool
	}{
		{"", pool.QueryLog{Sample: 1}, pool.Dnstap{Queries: true, Responses: true, Sample: 1}, true},
		{"  queryLog: {file: 'off'}\n  top: false\n", pool.QueryLog{Sample: 1}, pool.Dnstap{Queries: true, Responses: true, Sample: 1}, false},
		{
			"  queryLog: {file: stdout, sample: 100}\n  dnstap: {socket: 'unix:/run/tap.sock', queries: false}\n",
			pool.QueryLog{File: "stdout", Sample: 100},
			pool.Dnstap{Network: "unix", Address: "/run/tap.sock", Identity: "master", Responses: true, Sample: 1}, true,
		},
		{
			"  queryLog: {file: /var/log/elbow/queries.json}\n  dnstap: {version: v, identity: '', sample: 10, socket: 'tcp:[2001:db8::1]:6000'}\n",
			pool.QueryLog{File: "/var/log/elbow/queries.json", Sample: 1},
			pool.Dnstap{Network: "tcp", Address: "[2001:db8::1]:6000", Version: "v", Queries: true, Responses: true, Sample: 10}, true,
		},
	} {
		d := mustParse(t, zone+c.text).DNS
		if d.QueryLog != c.log || d.Dnstap != c.dnstap || d.Top != c.top {
			t.Errorf("%s\ngot %+v, %+v, top %t", c.text, d.QueryLog, d.Dnstap, d.Top)
		}
	}
}
