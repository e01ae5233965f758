package proxy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

// site is a service on anyPort that greets with its name and takes what m
// matches.
func site(t *testing.T, name string, m pool.Match) *pool.Service {
	s := web(backendServer(t, greeter(name)))
	s.Name, s.Match = name, m
	return s
}

// sites are two services that share a listener; with rest there is a third
// that takes all others.
func sites(t *testing.T, rest bool) []*pool.Pool {
	pools := []*pool.Pool{
		up(site(t, "a", pool.Match{SNI: []string{"a.example"}, Host: []string{"a.example"}})),
		up(site(t, "b", pool.Match{SNI: []string{"*.b.example"}, Host: []string{"*.b.example"}, ALPN: []string{"h2"}})),
	}
	if rest {
		pools = append(pools, up(site(t, "rest", pool.Match{})))
	}
	return pools
}

// shared is where the listener of all sites listens.
func (f *fixture) shared() netip.AddrPort {
	f.t.Helper()
	all := f.server.Listeners()
	if len(all) != 1 || all[0].Err != nil {
		f.t.Fatalf("listeners %+v", all)
	}
	return all[0].Address
}

const (
	requestA    = "GET / HTTP/1.1\r\nHost: a.example:80\r\n\r\n"
	requestB    = "GET / HTTP/1.1\r\nHost: x.b.example\r\n\r\n"
	requestElse = "GET / HTTP/1.1\r\nHost: c.example\r\n\r\n"
	requestBad  = "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n"
	requestNone = "GET / HTTP/1.0\r\n\r\n"
)

func TestRouting(t *testing.T) {
	helloA := string(helloOf(t, &tls.Config{ServerName: "a.example"}))
	helloB := string(helloOf(t, &tls.Config{ServerName: "X.B.Example.", NextProtos: []string{"http/1.1", "h2"}}))
	helloElse := string(helloOf(t, &tls.Config{ServerName: "b.example"}))
	helloNone := string(helloOf(t, &tls.Config{InsecureSkipVerify: true}))
	const (
		unrecognized = "\x15\x03\x03\x00\x02\x02\x70"
		missing      = "\x15\x03\x03\x00\x02\x02\x6d"
		misdirected  = "HTTP/1.1 421 Misdirected Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
		badRequest   = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
	)
	for _, c := range []struct {
		name    string
		sent    string
		service string   // that it leads to; empty: the default or nobody
		why     mismatch // where it leads to no service by its match
		told    string   // before the end, where nobody is there
		sni     string   // what the log says
		host    string
	}{
		{name: "server name", sent: helloA, service: "a", sni: "a.example"},
		{name: "wildcard and protocol", sent: helloB, service: "b", sni: "X.B.Example"}, // crypto/tls takes the dot away
		{name: "in small records", sent: string(inRecords([]byte(helloA), 100)), service: "a", sni: "a.example"},
		{name: "host", sent: requestA, service: "a", host: "a.example"},
		{name: "host below a wildcard", sent: requestB, service: "b", host: "x.b.example"},
		{name: "unknown server name", sent: helloElse, why: unknownName, told: unrecognized, sni: "b.example"},
		{name: "unknown host", sent: requestElse, why: unknownName, told: misdirected, host: "c.example"},
		{name: "no server name", sent: helloNone, why: noName, told: missing},
		{name: "no host", sent: requestNone, why: noName, told: badRequest},
		{name: "malformed request", sent: requestBad, why: badHello, told: badRequest},
		{name: "malformed hello", sent: "\x16\x03\x01\x00\x04\x02\x00\x00\x00", why: badHello},
		{name: "another protocol", sent: "EHLO client.example\r\n", why: noProtocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, rest := range []bool{true, false} {
				t.Run(fmt.Sprintf("default %t", rest), func(t *testing.T) {
					onEachEngine(t, func(t *testing.T, f *fixture) {
						f.serve(sites(t, rest)...)
						client := f.connectTo(f.shared())
						io.WriteString(client, c.sent)
						want := logLine{Service: c.service, Reason: "client-closed", SNI: c.sni, Host: c.host}
						switch {
						case c.service != "" || rest:
							if c.service == "" {
								want.Service = "rest"
							}
							expect(t, client, want.Service+c.sent) // all that was read is there, unchanged
							client.CloseWrite()
							expectEnd(t, client)
						case c.told != "":
							want.Reason = "no-match"
							expect(t, client, c.told)
							expectEnd(t, client)
							client.Close()
						default:
							want.Reason = "no-match"
							expectReset(t, client)
						}
						got := f.awaitReason(want.Reason)
						if got.Service != want.Service || got.SNI != want.SNI || got.Host != want.Host {
							t.Errorf("logged %+v, want %+v", got, want)
						}
						f.expectUnmatched(c.why, rest)
					})
				})
			}
		})
	}
}

// expectUnmatched wants one connection counted for why, none for another.
func (f *fixture) expectUnmatched(why mismatch, defaulted bool) {
	f.t.Helper()
	for m := matched + 1; m < mismatches; m++ {
		for _, to := range []string{"default", "refused"} {
			want := 0.0
			if m == why && defaulted == (to == "default") {
				want = 1
			}
			if got := f.metric("elbow_proxy_unmatched_total", anyPort.String(), m.String(), to); got != want {
				f.t.Errorf("%.0f %s are counted as %s, want %.0f", got, to, m, want)
			}
		}
	}
}

// A hello may come in as many segments as it has bytes.
func TestRoutingByteByByte(t *testing.T) {
	for name, sent := range map[string]string{
		"TLS":  string(helloOf(t, &tls.Config{ServerName: "a.example", CurvePreferences: []tls.CurveID{tls.X25519}})),
		"HTTP": requestA,
	} {
		t.Run(name, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, f *fixture) {
				f.serve(sites(t, false)...)
				client := f.connectTo(f.shared())
				for i := range len(sent) {
					io.WriteString(client, sent[i:i+1])
				}
				expect(t, client, "a"+sent)
				exchange(t, client, "and on")
			})
		})
	}
}

// The header is consumed, the hello behind it is not.
func TestRoutingBehindAHeader(t *testing.T) {
	const header = "PROXY TCP4 192.0.2.1 198.51.100.2 12345 80\r\n"
	trusting := func(t *testing.T) []*pool.Pool {
		pools := sites(t, false)
		for _, p := range pools {
			p.ProxyProtocol.Accept = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
			p.Allow = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}
		return pools
	}
	for name, pieces := range map[string][]string{
		"in one piece":         {header + requestA},
		"each by itself":       {header, requestA},
		"cut in the header":    {header[:9], header[9:] + requestA},
		"cut in the hello":     {header + requestA[:9], requestA[9:]},
		"the header's last LF": {header[:len(header)-1], "\n" + requestA},
	} {
		t.Run(name, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, f *fixture) {
				f.serve(trusting(t)...)
				client := f.connectTo(f.shared())
				for i, piece := range pieces {
					if i > 0 {
						f.await("the connection", func() bool { return f.server.core.sessions.Load() == 1 })
					}
					io.WriteString(client, piece)
				}
				expect(t, client, "a"+requestA)
				client.CloseWrite()
				expectEnd(t, client)
				if got := f.awaitReason("client-closed"); got.Client != "192.0.2.1:12345" || got.BytesIn != int64(len(requestA)) {
					t.Errorf("logged %+v", got)
				}
			})
		})
	}
	t.Run("none", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			f.serve(trusting(t)...)
			client := f.connectTo(f.shared())
			io.WriteString(client, requestA)
			expectReset(t, client)
			if got := f.awaitReason("proxy-header"); got.Service != "" {
				t.Errorf("logged %+v", got)
			}
			f.expectUnmatched(badHeader, false)
		})
	})
	t.Run("of a client that the chosen service does not allow", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			f.serve(trusting(t)...)
			client := f.connectTo(f.shared())
			io.WriteString(client, strings.Replace(header, "192.0.2.1", "192.0.3.1", 1)+requestA)
			expectReset(t, client)
			if got := f.awaitReason("not-allowed"); got.Service != "a" || got.Host != "a.example" {
				t.Errorf("logged %+v", got)
			}
			if got := f.metric("elbow_proxy_refused_total", "a", "not-allowed"); got != 1 {
				t.Errorf("counted %.0f", got)
			}
		})
	})
}

// A client that has closed before its hello was complete waits for nobody.
func TestRoutingOfAStreamThatEnds(t *testing.T) {
	for name, sent := range map[string]string{"nothing": "", "a part": "GET / HT", "a part of TLS": "\x16\x03\x01"} {
		t.Run(name, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, f *fixture) {
				f.serve(sites(t, true)...)
				client := f.connectTo(f.shared())
				begin := time.Now()
				io.WriteString(client, sent)
				client.CloseWrite()
				expect(t, client, "rest"+sent)
				expectEnd(t, client)
				f.awaitReason("client-closed")
				f.expectUnmatched(helloCut, true)
				if took := time.Since(begin); took > helloTimeout/2 {
					t.Errorf("it took %s", took)
				}
			})
			onEachEngine(t, func(t *testing.T, f *fixture) {
				f.serve(sites(t, false)...)
				client := f.connectTo(f.shared())
				io.WriteString(client, sent)
				client.CloseWrite()
				expectReset(t, client)
				f.awaitReason("no-match")
				f.expectUnmatched(helloCut, false)
			})
		})
	}
}

// The time for the hello is not waited for here: what follows is the session's
// alone.
func TestHelloTimeout(t *testing.T) {
	for _, rest := range []bool{true, false} {
		f := newFixture(t, newNetEngine)
		f.publish(sites(t, rest)...)
		now := time.Now()
		var s session
		next := s.accepted(f.server.core, &listener{address: anyPort}, nil, source4, destination4, now)
		if next.do != doHello || !next.until.Equal(now.Add(helloTimeout)) {
			t.Fatalf("after accept: %+v", next)
		}
		if _, next = s.received([]byte("GET /"), now.Add(time.Second)); next.do != doHello || !next.until.Equal(now.Add(helloTimeout)) {
			t.Fatalf("after a part: %+v", next)
		}
		next = s.expired(next.until)
		if rest && (next.do != doDial || s.service.name != "rest" || s.listener.unmatched.defaulted[helloLate].Load() != 1) {
			t.Errorf("with a default: %+v", next)
		}
		if !rest && (next.do != doReset || next.reason != noMatch || s.listener.unmatched.refused[helloLate].Load() != 1) {
			t.Errorf("without: %+v", next)
		}
	}
}

// Limits are those of the service that was chosen, and each counts its own.
func TestRoutingCountsForTheChosenService(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		pools := sites(t, false)
		pools[0].MaxConnections = 1
		f.serve(pools...)
		first := f.connectTo(f.shared())
		io.WriteString(first, requestA)
		expect(t, first, "a"+requestA)
		other := f.connectTo(f.shared())
		io.WriteString(other, requestB)
		expect(t, other, "b"+requestB)
		second := f.connectTo(f.shared())
		io.WriteString(second, requestA)
		expectReset(t, second)
		if got := f.awaitReason("limit"); got.Service != "a" {
			t.Errorf("logged %+v", got)
		}
		for _, service := range []string{"a", "b"} {
			if got := f.metric("elbow_proxy_connections_active", service); got != 1 {
				t.Errorf("%.0f connections of %s", got, service)
			}
		}
		if status := f.server.Listeners()[0]; status.Service != "a, b" || status.Connections != 2 {
			t.Errorf("status %+v", status)
		}
	})
}

// Services come to a listener that is open, and leave it.
func TestRoutingFollowsTheTable(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		pools := sites(t, true)
		f.serve(pools[2])
		address := f.shared()
		before := f.connectTo(address)
		expect(t, before, "rest") // at once: nobody else is there
		if _, there := f.findMetric("elbow_proxy_unmatched_total"); there {
			t.Error("counted for a listener of one service")
		}
		f.publish(pools...)
		f.await("the listener to be shared", func() bool { return f.server.Listeners()[0].Service == "a, b, rest" })
		if f.shared() != address {
			t.Error("the listener was opened anew")
		}
		client := f.connectTo(address)
		waiting := f.connectTo(address)
		io.WriteString(client, requestA)
		expect(t, client, "a"+requestA)
		exchange(t, before, "goes on")
		f.publish(pools[1:]...)
		io.WriteString(waiting, requestA) // it was accepted before, and is told by the Table of now
		expect(t, waiting, "rest"+requestA)
	})
}

// Whoever says nothing does not hold up the end, nor does one that was told.
func TestRoutingEndsWithTheProxy(t *testing.T) {
	for name, sent := range map[string]string{"silent": "", "begun": "GET /", "told": requestElse} {
		t.Run(name, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, f *fixture) {
				f.serve(sites(t, false)...)
				client := f.connectTo(f.shared())
				io.WriteString(client, sent)
				f.await("the connection", func() bool { return f.server.core.sessions.Load() == 1 })
				begin := time.Now()
				f.stop()
				if took := time.Since(begin); took > helloTimeout/2 {
					t.Errorf("the end took %s", took)
				}
				f.awaitLines(1)
			})
		})
	}
}

// One that was told and does not close is reset after a while, as is one that
// goes on sending.
func TestFarewellIsBounded(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		f.serve(sites(t, false)...)
		patient := f.connectTo(f.shared())
		io.WriteString(patient, requestElse)
		begin := time.Now()
		f.awaitReason("no-match")
		if took := time.Since(begin); took < farewellTimeout/2 || took > 5*farewellTimeout {
			t.Errorf("it took %s", took)
		}
		loud := f.connectTo(f.shared())
		_, err := io.Copy(loud, io.MultiReader(strings.NewReader(requestElse), neverEnding('x')))
		if err == nil || !isReset(err) {
			t.Errorf("writing without end ended with %v", err)
		}
		f.awaitLines(2)
	})
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

func isReset(err error) bool {
	for _, e := range []syscall.Errno{syscall.ECONNRESET, syscall.EPIPE} {
		if strings.Contains(err.Error(), e.Error()) {
			return true
		}
	}
	return false
}

// Names are logged as they came, escaped and not longer than a name can be.
func TestRoutingLogsHostileNames(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		f.serve(sites(t, false)...)
		name := "\"}\n\x00\\\xff<" + strings.Repeat("\x01", 2*maxAsked)
		client := f.connectTo(f.shared())
		client.Write(record(serverNames(entry(0, name))))
		client.CloseWrite()
		io.Copy(io.Discard, client)
		got := f.awaitReason("no-match")
		if want := "\"}\n\x00\\\ufffd<" + strings.Repeat("\x01", maxAsked-7); got.SNI != want {
			t.Errorf("logged %q, want %q", got.SNI, want)
		}
		if strings.Count(f.lines.String(), "\n") != 1 {
			t.Error("it takes more than a line")
		}
	})
}

// Two sites with TLS of their own behind one listener, and real clients.
func TestRoutingOfRealClients(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		var pools []*pool.Pool
		for _, name := range []string{"one.example", "two.example"} {
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(w, "%s for %s", name, r.TLS.ServerName)
			}))
			t.Cleanup(server.Close)
			s := web(server.Listener.Addr().(*net.TCPAddr).AddrPort())
			s.Name, s.Match = name, pool.Match{SNI: []string{name}}
			pools = append(pools, up(s))
		}
		f.serve(pools...)
		address := f.shared().String()
		get := func(name string) (string, error) {
			client := http.Client{Timeout: patience, Transport: &http.Transport{
				DisableKeepAlives: true,
				TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: name},
			}}
			answer, err := client.Get("https://" + address)
			if err != nil {
				return "", err
			}
			defer answer.Body.Close()
			body, err := io.ReadAll(answer.Body)
			return string(body), err
		}
		for _, name := range []string{"one.example", "two.example"} {
			if got, err := get(name); got != name+" for "+name {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		if _, err := get("three.example"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("an unknown name: %v", err)
		}
	})
}

// What the session does between accept and dial allocates nothing, name and
// log included.
func TestRoutingAllocatesNothing(t *testing.T) {
	f := newFixture(t, newNetEngine)
	f.publish(sites(t, false)...)
	l := &listener{address: anyPort}
	hello := []byte(strings.Replace(requestB, "x.b", "some.name.b", 1))
	now := time.Now()
	var s session
	space := make([]byte, len(hello))
	run := func() {
		s = session{}
		s.accepted(f.server.core, l, nil, source4, destination4, now)
		if _, next := s.received(space[:copy(space, hello)], now); next.do != doDial {
			t.Fatalf("%+v", next)
		}
		s.service.active.Add(-1)
		s.backend.Swap(nil).leave()
		s.core.names.Put(s.asked)
	}
	run()
	if n := testing.AllocsPerRun(100, run); n > 0 {
		t.Errorf("%.0f allocations", n)
	}
	if !bytes.Equal(space, hello) {
		t.Error("the request was changed")
	}
}
