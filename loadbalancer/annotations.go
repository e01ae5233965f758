package loadbalancer

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"haslohas.com/elbow/pool"
)

// prefix is that of the annotations.
const prefix = "elbow.haslohas.com/"

// options are what annotations say that is no field of a service.
type options struct {
	probed   bool
	balanced bool
	podIP    bool
	nodePort bool
}

// annotations reads what the annotations of the Service say into to. One that
// cannot be read is a problem, and counts as absent.
func (w *wish) annotations(to *pool.Service) options {
	var o options
	readers := map[string]func(string) error{
		"probe":          func(s string) error { o.probed = true; return readProbe(s, &to.Probe) },
		"balance":        func(s string) (err error) { o.balanced = true; to.Balance, err = pool.ParseBalance(s); return err },
		"proxy-protocol": func(s string) (err error) { to.ProxyProtocol.Send, err = pool.ParseProxyVersion(s); return err },
		"answer":         func(s string) (err error) { to.Answer, err = pool.ParseAnswer(s); return err },
		"idle-timeout":   func(s string) error { return readDuration(s, &to.IdleTimeout) },
		"drain-timeout":  func(s string) error { return readDuration(s, &to.DrainTimeout) },
		"via": func(s string) error {
			o.podIP, o.nodePort = s == "podIP", s == "nodePort"
			if !o.podIP && !o.nodePort {
				return fmt.Errorf("unknown value %q, want podIP or nodePort", s)
			}
			return nil
		},
	}
	for _, key := range slices.Sorted(maps.Keys(w.service.Annotations)) {
		name, own := strings.CutPrefix(key, prefix)
		if !own {
			continue
		}
		reader, known := readers[name]
		if !known {
			w.wrong("InvalidAnnotation", "%s is unknown; there are %s", key, strings.Join(slices.Sorted(maps.Keys(readers)), ", "))
			continue
		}
		before, had := *to, o
		if err := reader(strings.TrimSpace(w.service.Annotations[key])); err != nil {
			*to, o = before, had
			w.wrong("InvalidAnnotation", "%s: %v; it is ignored", key, err)
		}
	}
	return o
}

// maxTimeout bounds the times of annotations, as the configuration does.
const maxTimeout = 7 * 24 * time.Hour

func readDuration(s string, to *time.Duration) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxTimeout {
		return fmt.Errorf("%q is no time such as 90s or 10m, at most 168h", s)
	}
	*to = d
	return nil
}

// readProbe reads TYPE, TYPE:PORT or TYPE:PORT/PATH, such as tcp, http/healthz or
// https:8443/healthz.
func readProbe(s string, to *pool.Probe) error {
	scheme, path, hasPath := strings.Cut(s, "/")
	scheme, port, hasPort := strings.Cut(scheme, ":")
	t, err := pool.ParseProbeType(scheme)
	if err != nil || t == pool.ProbeUDP {
		return fmt.Errorf("%q: want tcp, tls, http, https or grpc, with :PORT and, for http and https, /PATH behind it", s)
	}
	to.Type = t
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("%q: the port must be a number, 1 to 65535", s)
		}
		to.Port = uint16(n)
	}
	speaksHTTP := t == pool.ProbeHTTP || t == pool.ProbeHTTPS
	if hasPath && !speaksHTTP {
		return fmt.Errorf("%q: a probe of type %s has no path", s, t)
	}
	if speaksHTTP {
		if _, err := url.ParseRequestURI("/" + path); err != nil || len(path) > 2047 || strings.ContainsAny(path, " #") {
			return fmt.Errorf("%q: the path cannot be asked for", s)
		}
		to.Path, to.Status = "/"+path, pool.StatusRanges{{First: 200, Last: 399}}
	}
	return nil
}
