package elasticip

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A model is what a host knows, with a clock of its own that goes wrong in its
// start and a little in its rate, a lock, and EC2. Nothing in it waits: a
// step is an event, and the events come in any order that could be.
type model struct {
	r     *rand.Rand
	now   time.Duration // by the clock of the world
	hosts [3]modelHost

	// The lock: who has it, and until when by the clock of whoever observes it.
	holder  int // -1: nobody
	renewed time.Duration

	// EC2: where the address is, and since when it may no longer be told that it
	// is where it was before.
	at, before int
	moved      time.Duration

	calls []modelCall // that are on their way
}

// A modelCall moves the address to its host, some time before it is given up.
type modelCall struct {
	host int
	ends time.Duration
}

type modelHost struct {
	memory
	offset time.Duration // of its clock
	rate   float64       // of its clock, near 1
	until  time.Time     // of its lock, by its clock
	asks   []modelAsk
}

// A modelAsk is a question to EC2 that was sent.
type modelAsk struct {
	asked    time.Time     // by the clock of the host
	sent     time.Duration // by that of the world
	answered bool
	here     bool
}

const (
	modelLease = 8 * time.Second
	modelSkew  = modelLease / 32
	modelDrift = 0.01                   // of a clock, in either direction
	seeds      = 3000                   // orders of events that are tried
	modelStale = 900 * time.Millisecond // how late EC2 may tell of a move
)

func (m *model) clock(i int) time.Time {
	h := &m.hosts[i]
	return time.Unix(1_000_000_000, 0).Add(h.offset + time.Duration(float64(m.now)*h.rate))
}

// step lets something happen.
func (m *model) step() {
	i := m.r.IntN(len(m.hosts))
	h := &m.hosts[i]
	switch m.r.IntN(12) {
	case 0, 1: // time passes, mostly a little
		d := time.Duration(m.r.Int64N(int64(300 * time.Millisecond)))
		if m.r.IntN(20) == 0 {
			d *= 40 // everybody was suspended, or cut off
		}
		m.now += d
	case 2: // the lock: taken, renewed
		expired := float64(m.now-m.renewed)*m.hosts[i].rate >= float64(modelLease)
		if m.holder == i || m.holder < 0 || expired {
			if !m.clock(i).Before(h.until) {
				h.take(m.clock(i))
			}
			m.holder, m.renewed = i, m.now
			h.until = m.clock(i).Add(modelLease - modelSkew)
		}
	case 3: // given back
		if m.holder == i && m.r.IntN(4) == 0 {
			h.until = time.Time{}
			m.holder = -1
		}
	case 4, 8: // asks
		if len(h.asks) < 4 {
			h.asks = append(h.asks, modelAsk{asked: m.clock(i), sent: m.now})
		}
	case 5, 9: // EC2 makes up an answer, which is then on its way for any time
		for j := range h.asks {
			if a := &h.asks[j]; !a.answered && m.r.IntN(2) == 0 {
				a.answered, a.here = true, m.at == i
				if m.before == i && m.now-m.moved < modelStale && m.r.IntN(2) == 0 {
					a.here = true
				}
			}
		}
	case 6, 10: // an answer arrives, not in the order of the questions; or it is lost
		for j, a := range h.asks {
			if !a.answered {
				continue
			}
			if m.r.IntN(5) > 0 {
				h.hear(answer{asked: a.asked, heard: m.clock(i), here: a.here}, h.until)
			}
			h.asks = append(h.asks[:j], h.asks[j+1:]...)
			break
		}
	case 7: // who has the lock and knows that the address is elsewhere, moves it
		if h.known && !h.newest.here && h.until.Sub(m.clock(i)) >= moveTimeout {
			m.calls = append(m.calls, modelCall{i, m.now + time.Duration(float64(moveTimeout)/h.rate)})
		}
	case 11:
		if len(m.calls) > 0 {
			if c := m.calls[0]; m.now < c.ends {
				m.move(c.host)
			}
			m.calls = m.calls[1:]
		}
	}
}

func (m *model) move(to int) {
	if m.at != to {
		m.at, m.before, m.moved = to, m.at, m.now
	}
}

func (m *model) owners() (owners []int) {
	for i := range m.hosts {
		if mine, _ := m.hosts[i].mine(m.clock(i), m.hosts[i].until); mine {
			owners = append(owners, i)
		}
	}
	return owners
}

// Whatever comes in whatever order, at most one host believes that it owns the
// address; and what is meant to happen happens often enough that this says
// something.
func TestNeverTwoOwners(t *testing.T) {
	var owned, unlocked, changes int
	for seed := range uint64(seeds) {
		m := newModel(seed)
		last := -1
		for step := range 3000 {
			m.step()
			owners := m.owners()
			switch {
			case len(owners) > 1:
				t.Fatalf("seed %d, step %d: the hosts %v all believe that they own the address", seed, step, owners)
			case len(owners) == 1:
				owned++
				h := &m.hosts[owners[0]]
				if !m.clock(owners[0]).Before(h.until) {
					unlocked++
				}
				if owners[0] != last {
					changes++
					last = owners[0]
				}
			}
		}
	}
	t.Logf("owned in %d steps, %d of them without the lock; %d changes", owned, unlocked, changes)
	if owned < 100_000 || unlocked < 1000 || changes < 1000 {
		t.Error("the model does not get around")
	}
}

// The two times that the argument rests on: without either of them two hosts
// come to believe. So the test above can fail.
func TestTheModelFindsWhatIsWrong(t *testing.T) {
	for name, break_ := range map[string]func(m *model){
		"no settling": func(m *model) {
			for i := range m.hosts {
				m.hosts[i].began = time.Time{}
			}
		},
		"a lock that is believed for longer than it is kept": func(m *model) {
			for i := range m.hosts {
				if !m.hosts[i].until.IsZero() && m.holder == i {
					m.hosts[i].until = m.hosts[i].until.Add(2 * time.Second)
				}
			}
		},
	} {
		found := false
		for seed := uint64(0); seed < seeds && !found; seed++ {
			m := newModel(seed)
			for range 3000 {
				m.step()
				break_(m)
				if len(m.owners()) > 1 {
					found = true
					break
				}
			}
		}
		if !found {
			t.Errorf("%s: nothing is found", name)
		}
	}
}

func newModel(seed uint64) *model {
	m := &model{r: rand.New(rand.NewPCG(seed, 18)), holder: -1, at: 0, before: -1}
	for i := range m.hosts {
		m.hosts[i].offset = time.Duration(m.r.Int64N(int64(time.Hour)))
		m.hosts[i].rate = 1 - modelDrift + 2*modelDrift*m.r.Float64()
	}
	return m
}

// The pause up to a moment may be as short as one likes.
func TestJitter(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 4, time.Second} {
		for range 100 {
			if got := jitter(d); got < d-d/10 || got > d+d/10+1 {
				t.Errorf("jitter(%d) is %d", d, got)
			}
		}
	}
}
