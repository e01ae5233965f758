package dnsserver

import (
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/pool"
)

// TestCookieVectors are those of RFC 9018 appendix A, which other servers have
// passed: with the same secret they take each other's cookies.
func TestCookieVectors(t *testing.T) {
	const first, second, third = "e5e973e5a6b2a43f48e7dc849e37bfcf", "dd3bdf9344b678b185a6f5cb60fca715", "445536bcd2513298075a5d379663c962"
	for _, c := range []struct {
		name, sent, want string
		secrets          []string
		client           string
		now              int64
		proven           bool
	}{
		{"a new one", "2464c4abcf10c957", "2464c4abcf10c957010000005cf79f111f8130c3eee29480", []string{first}, "198.51.100.100", 1559731985, false},
		{"the same, soon", "2464c4abcf10c957010000005cf79f111f8130c3eee29480", "2464c4abcf10c957010000005cf79f111f8130c3eee29480", []string{first}, "198.51.100.100", 1559731985 + 1800, true},
		{"renewed", "2464c4abcf10c957010000005cf79f111f8130c3eee29480", "2464c4abcf10c957010000005cf7a871d4a564a1442aca77", []string{first}, "198.51.100.100", 1559734385, true},
		{"reserved bits", "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e", []string{first}, "203.0.113.203", 1559734700, false},
		{"IPv6, the secret before", "22681ab97d52c298010000005cf7c57926556bd0934c72f8", "22681ab97d52c298010000005cf7c609a6bb79d16625507a", []string{third, second}, "2001:db8:220:1:59de:d0f4:8769:82b8", 1559741961, true},
		{"another client", "2464c4abcf10c957010000005cf79f111f8130c3eee29480", "", []string{first}, "198.51.100.101", 1559731985, false},
		{"another secret", "2464c4abcf10c957010000005cf79f111f8130c3eee29480", "", []string{second}, "198.51.100.100", 1559731985, false},
		{"an hour old", "2464c4abcf10c957010000005cf79f111f8130c3eee29480", "", []string{first}, "198.51.100.100", 1559731985 + 3601, false},
		{"from the future", "2464c4abcf10c957010000005cf79f111f8130c3eee29480", "", []string{first}, "198.51.100.100", 1559731985 - 301, false},
		{"from the near future", "2464c4abcf10c957010000005cf79f111f8130c3eee29480", "2464c4abcf10c957010000005cf79f111f8130c3eee29480", []string{first}, "198.51.100.100", 1559731985 - 300, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var secrets []pool.CookieSecret
			for _, s := range c.secrets {
				secrets = append(secrets, pool.CookieSecret(unhex(t, s)))
			}
			q := query{cookie: unhex(t, c.sent)}
			newCookieJar(secrets).serve(&q, netip.MustParseAddr(c.client), time.Unix(c.now, 0))
			if got := hex.EncodeToString(q.newCookie[:]); c.want != "" && got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if q.proven != c.proven {
				t.Errorf("proven is %v", q.proven)
			}
		})
	}
}

// withCookie asks with a cookie and returns the answer and the cookie in it.
func withCookie(t *testing.T, h *house, m *dns.Msg, cookie string) (*dns.Msg, string) {
	t.Helper()
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: cookie}}
	a := h.exchange(t, m)
	if a == nil {
		return nil, ""
	}
	for _, o := range a.IsEdns0().Option {
		if c, ok := o.(*dns.EDNS0_COOKIE); ok {
			return a, c.Cookie
		}
	}
	return a, ""
}

func TestCookies(t *testing.T) {
	f := example(t)
	store := new(memory)
	h := newHouse(t, store)
	h.publish(f)
	ask := func() *dns.Msg { return question(t, "www.example.com A") }
	a, cookie := withCookie(t, h, ask(), "0102030405060708")
	if len(a.Answer) != 2 || len(cookie) != 48 {
		t.Fatalf("got %v", a)
	}
	if _, again := withCookie(t, h, ask(), cookie); again != cookie {
		t.Errorf("a good cookie was replaced: %s, %s", cookie, again)
	}
	for _, malformed := range []string{"", "01", "01020304050607", "010203040506070809", "0102030405060708090a0b0c0d0e0f", cookie + "0102030405060708090a0b0c0d0e0f1011"} {
		if a, got := withCookie(t, h, ask(), malformed); a.Rcode != dns.RcodeFormatError || got != "" {
			t.Errorf("%q: got %v", malformed, a)
		}
	}

	// Without a question, RFC 7873 section 5.4.
	for sent, want := range map[string]int{"0102030405060708": dns.RcodeSuccess, cookie: dns.RcodeSuccess, "ff" + cookie[2:]: dns.RcodeBadCookie} {
		a, got := withCookie(t, h, &dns.Msg{MsgHdr: dns.MsgHdr{Id: 7}}, sent)
		if a.Rcode != want || len(got) != 48 || len(a.Question)+len(a.Answer)+len(a.Ns) > 0 {
			t.Errorf("%s: got %v", sent, a)
		}
	}

	// A restart keeps the secret, time replaces it and takes the former one on.
	h = newHouse(t, store)
	h.publish(f)
	if _, again := withCookie(t, h, ask(), cookie); again != cookie {
		t.Errorf("after a restart a cookie was replaced: %s, %s", cookie, again)
	}
	h.builder.secrets.own.Made = h.builder.secrets.own.Made.Add(-ownSecretLife - time.Second)
	h.publish(f)
	a, again := withCookie(t, h, ask(), cookie)
	if again == cookie || len(a.Answer) != 2 || len(h.snapshot.Load().cookies) != 2 {
		t.Errorf("the secret was not replaced: %s, %s", cookie, again)
	}

	// What the Table brings is used instead.
	f.dns.Cookies = []pool.CookieSecret{{1}, {2}}
	h.publish(f)
	if got := h.snapshot.Load().cookies; len(got) != 2 || got[0] != (cookieKey{1, 0}) {
		t.Errorf("the jar is %v", got)
	}
}

// TestCookieExempts: who has shown to be there is not limited, and who can show
// it is asked to.
func TestCookieExempts(t *testing.T) {
	f := example(t)
	f.dns.RateLimit = pool.RateLimit{PerSecond: 1, Slip: 1}
	h := newHouse(t, nil)
	h.publish(f)
	_, cookie := withCookie(t, h, question(t, "www.example.com A"), "0102030405060708")
	for range 50 {
		if a, _ := withCookie(t, h, question(t, "www.example.com A"), cookie); a == nil || a.Truncated || len(a.Answer) != 2 {
			t.Fatalf("a known client was limited: %v", a)
		}
	}
	bad := 0
	for range 10 {
		a, fresh := withCookie(t, h, question(t, "www.example.com A"), "0807060504030201")
		if a.Rcode == dns.RcodeBadCookie {
			bad++
			if len(a.Answer) > 0 || a.Truncated || len(fresh) != 48 {
				t.Errorf("got %v", a)
			}
		}
	}
	if bad < 8 {
		t.Errorf("%d of 10 answers over the limit ask for the cookie", bad)
	}
	if a := h.exchange(t, question(t, "www.example.com A")); !a.Truncated {
		t.Errorf("got %v", a)
	}
}
