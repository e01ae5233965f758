package config

import (
	"net/netip"
	"time"

	"haslohas.com/elbow/pool"
)

// The defaults of everything that a file may leave out. Those that depend on
// other keys are in check.go.

func defaultConfig() *Config {
	return &Config{
		StateDir: "/var/lib/elbow",
		Admin: Admin{
			Listen: netip.MustParseAddrPort("127.0.0.1:9653"),
			Socket: "/run/elbow/elbow.sock",
		},
		Log: Log{Format: "text", Connections: "stdout"},
		AWS: defaultAWS(),
		DNS: pool.DNS{
			RateLimit: pool.RateLimit{
				PerSecond: 200,
				Slip:      2,
				Exempt:    []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
			},
			QueryLog: pool.QueryLog{Sample: 1},
			Dnstap:   pool.Dnstap{Queries: true, Responses: true, Sample: 1},
			Top:      true,
		},
	}
}

// defaultDNSListen is where names are answered if there are zones.
func defaultDNSListen() []netip.AddrPort {
	return []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")}
}

func defaultZone() *pool.Zone {
	return &pool.Zone{TTL: pool.ZoneTTL{
		Normal:   30 * time.Second,
		Degraded: 5 * time.Second,
		Negative: 5 * time.Second,
	}}
}

// DefaultService is a service that leaves out everything.
func DefaultService() pool.Service { return *defaultService() }

func defaultService() *pool.Service {
	return &pool.Service{
		Answer:      pool.Proxied,
		Balance:     pool.LeastConn,
		WhenAllDown: pool.ServeAll,
		Probe: pool.Probe{
			Type:         pool.ProbeTCP,
			Interval:     2 * time.Second,
			Timeout:      time.Second,
			Rise:         2,
			Fall:         3,
			FastInterval: 500 * time.Millisecond,
			DownInterval: 5 * time.Second,
		},
		Connect:          pool.Connect{Timeout: time.Second, Attempts: 3},
		IdleTimeout:      350 * time.Second,
		HalfCloseTimeout: 60 * time.Second,
		DrainTimeout:     300 * time.Second,
		UDP:              pool.UDP{IdleTimeout: 120 * time.Second, MaxFlows: 65536},
		Queue:            pool.Queue{Length: 1024, Timeout: 5 * time.Second},
	}
}

// Of a probe that speaks HTTP.
const defaultProbePath = "/"

func defaultStatus() pool.StatusRanges {
	return pool.StatusRanges{{First: 200, Last: 399}}
}
