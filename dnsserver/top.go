package dnsserver

import (
	"cmp"
	"context"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	topWindow  = 5 * time.Minute
	topPeriods = 10  // the window moves by a tenth
	topPlaces  = 256 // of each list in each period
	topShown   = 20  // of each list

	topEvery = time.Second

	// topRate is how many samples a second are enough. From twice as many on
	// only one query in two is looked at, then one in four, and so on, so that
	// what all this costs does not grow with the queries.
	topRate     = 500
	topMaxShift = 20
)

// A top counts what is asked most over the last minutes.
type top struct {
	queue *queue[topSample]

	// One in 1<<shift queries is a sample: those whose random number is not
	// above limit.
	limit atomic.Uint32
	shift atomic.Uint32

	mu      sync.Mutex
	periods []*topPeriod // the newest last; guarded by mu
	tuned   time.Time
}

// A topSample is a query that stands for weight of them.
type topSample struct {
	weight  uint64
	client  netip.Addr
	rcode   uint16
	name    [maxName]byte // in lower case
	nameLen int
}

// A topPeriod is what was asked in a part of the window.
type topPeriod struct {
	begun           time.Time
	queries, absent uint64
	names           *heavy
	clients         *heavy // prefixes
	missing         *heavy // names that do not exist
	below           *heavy // where those would be: their names without the first label
}

func newTop(workers int) *top {
	t := &top{queue: newQueue[topSample](workers)}
	t.limit.Store(math.MaxUint32)
	return t
}

// see is called by the goroutines that answer.
func (t *top) see(random uint32, r *responder, client netip.Addr, worker int) {
	shift := t.shift.Load()
	if random > math.MaxUint32>>shift || r.question == nil {
		return
	}
	s := t.queue.claim(worker)
	if s == nil {
		return
	}
	v := &s.value
	v.weight, v.client, v.rcode = 1<<shift, client, r.outcome.rcode
	v.nameLen = copy(v.name[:], r.name[:r.nameLen])
	t.queue.commit(s)
}

// run counts until ctx ends.
func (t *top) run(ctx context.Context) {
	t.tuned = time.Now()
	reader(ctx, t.queue.wake, topEvery, func() { t.count(time.Now()) })
}

// count counts the samples that wait.
func (t *top) count(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.period(now)
	n := uint64(t.queue.drain(p.add)) + t.queue.takeLost()
	t.tune(n, now)
}

// period returns the newest period and forgets those that are too old.
func (t *top) period(now time.Time) *topPeriod {
	t.periods = slices.DeleteFunc(t.periods, func(p *topPeriod) bool { return now.Sub(p.begun) >= topWindow })
	if n := len(t.periods); n > 0 && now.Sub(t.periods[n-1].begun) < topWindow/topPeriods {
		return t.periods[n-1]
	}
	p := &topPeriod{begun: now, names: newHeavy(topPlaces), clients: newHeavy(topPlaces), missing: newHeavy(topPlaces), below: newHeavy(topPlaces)}
	t.periods = append(t.periods, p)
	return p
}

func (p *topPeriod) add(s *topSample) {
	wire := s.name[:s.nameLen]
	p.queries += s.weight
	p.names.add(wire, s.weight)
	prefix := clientPrefix(s.client)
	address := prefix.Addr().As16()
	p.clients.add(append(address[:], byte(prefix.Bits())), s.weight)
	if s.rcode == rcodeNXDomain {
		p.absent += s.weight
		p.missing.add(wire, s.weight)
		if len(wire) > 1 {
			p.below.add(wire[1+int(wire[0]):], s.weight)
		}
	}
}

// clientPrefix is the prefix of prefixOf: an IPv4 /24 or an IPv6 /56.
func clientPrefix(client netip.Addr) netip.Prefix {
	bits := 56
	if client.Is4() {
		bits = 24
	}
	p, _ := client.Prefix(bits) // fails for no address of a packet
	return p
}

// tune has fewer queries looked at, or more, by how many samples there were
// since the last time.
func (t *top) tune(samples uint64, now time.Time) {
	took := now.Sub(t.tuned)
	shift := t.shift.Load()
	switch rate := float64(samples) / max(took.Seconds(), 1e-3); {
	case samples < ringSize/2 && took < topEvery/2:
		return // too little to tell
	case rate >= 2*topRate:
		shift = min(topMaxShift, shift+uint32(math.Log2(rate/topRate)))
	case rate < topRate/2 && shift > 0:
		shift--
	}
	t.tuned = now
	t.shift.Store(shift)
	t.limit.Store(math.MaxUint32 >> shift)
}

// Top is what was asked most over the last minutes. The counts are estimates
// where there are many queries: only some are looked at. Whatever occurs more
// often than one in 256 is found; what may be there by accident is left out.
type Top struct {
	Window  time.Duration // that the counts are about
	Queries uint64
	Absent  uint64 // of them, for names that do not exist

	Names   []TopEntry // names that were asked for
	Clients []TopEntry // prefixes of clients, IPv4 /24 and IPv6 /56
	Missing []TopEntry // names that do not exist
	// Below says where names that do not exist were looked for: each is such
	// a name without its first label. An attack by random names shows here.
	Below []TopEntry
}

// A TopEntry is one line of a Top.
type TopEntry struct {
	What    string // a name in presentation format, without the final dot, or a prefix
	Queries uint64
}

// Top returns what was asked most, and false where that is not counted.
func (s *Server) Top() (Top, bool) {
	w := s.watch.Load()
	if w == nil || w.top == nil {
		return Top{}, false
	}
	return w.top.report(time.Now()), true
}

func (t *top) report(now time.Time) Top {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out Top
	names, clients := make(map[string]place), make(map[string]place)
	missing, below := make(map[string]place), make(map[string]place)
	for _, p := range t.periods {
		age := now.Sub(p.begun)
		if age >= topWindow {
			continue
		}
		out.Window = max(out.Window, age)
		out.Queries += p.queries
		out.Absent += p.absent
		p.names.addTo(names)
		p.clients.addTo(clients)
		p.missing.addTo(missing)
		p.below.addTo(below)
	}
	out.Names = shown(names, nameText)
	out.Clients = shown(clients, prefixText)
	out.Missing = shown(missing, nameText)
	out.Below = shown(below, nameText)
	return out
}

func (h *heavy) addTo(all map[string]place) {
	for _, p := range h.places {
		sum := all[p.key]
		all[p.key] = place{count: sum.count + p.count, over: sum.over + p.over}
	}
}

// shown returns the entries with the most counts, the largest first. One that
// may owe more than half of its count to others is none.
func shown(all map[string]place, text func(key string) string) []TopEntry {
	var out []TopEntry
	for key, p := range all {
		if 2*p.over <= p.count {
			out = append(out, TopEntry{key, p.count})
		}
	}
	slices.SortFunc(out, func(a, b TopEntry) int {
		return cmp.Or(cmp.Compare(b.Queries, a.Queries), strings.Compare(a.What, b.What))
	})
	out = out[:min(len(out), topShown)]
	for i := range out {
		out[i].What = text(out[i].What)
	}
	return out
}

func nameText(key string) string { return string(appendName(nil, []byte(key), false)) }

func prefixText(key string) string {
	addr := netip.AddrFrom16([16]byte([]byte(key[:16])))
	return netip.PrefixFrom(addr.Unmap(), int(key[16])).String()
}
