//go:build linux

package proxy

// A slab keeps the pairs of a loop. They lie in chunks that stay where they
// are and are used again and again, so that a connection allocates nothing.
// It has as many chunks as the most connections at once have needed.
type slab struct {
	chunks [][]pair
	free   *pair // linked by pair.free
}

const chunk = 64 // pairs

// A handle names a pair for as long as it serves one connection.
type handle struct{ index, generation int32 }

func (s *slab) get(l *loop) *pair {
	if s.free == nil {
		begin := int32(len(s.chunks) * chunk)
		c := make([]pair, chunk)
		for i := range c {
			p := &c[i]
			p.loop, p.id.index = l, begin+int32(i)
			p.clear()
			p.free, s.free = s.free, p
		}
		s.chunks = append(s.chunks, c)
	}
	p := s.free
	s.free, p.free = p.free, nil
	p.stage = begun
	return p
}

func (s *slab) put(p *pair) {
	p.clear()
	p.id.generation++
	p.free, s.free = s.free, p
}

// find returns the pair of h, nil if its connection has ended.
func (s *slab) find(h handle) *pair {
	p := &s.chunks[h.index/chunk][h.index%chunk]
	if p.id != h || p.stage == unused {
		return nil
	}
	return p
}

// each calls do for every pair that serves a connection; do may end it.
func (s *slab) each(do func(*pair)) {
	for _, c := range s.chunks {
		for i := range c {
			if c[i].stage != unused {
				do(&c[i])
			}
		}
	}
}
