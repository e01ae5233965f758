package dnsserver

// A heavy counts the keys that occur most, in memory for a fixed number of them
// (the Space-Saving algorithm of Metwally, Agrawal and El Abbadi): where there
// is no place left, a new key takes the one with the least count, and that
// count with it. A key that makes up more than one in len(places) of all is
// always among them, and what a count may be too high by is known.
type heavy struct {
	most   int
	at     map[string]int // in places
	places []place        // a heap, the least count first
}

type place struct {
	key   string
	count uint64
	over  uint64 // the count is too high by at most this
}

func newHeavy(most int) *heavy { return &heavy{most: most, at: make(map[string]int)} }

// add counts key n times more.
func (h *heavy) add(key []byte, n uint64) {
	i, known := h.at[string(key)]
	switch {
	case known:
		h.places[i].count += n
		h.down(i)
		return
	case len(h.places) < h.most:
		i = len(h.places)
		h.places = append(h.places, place{key: string(key), count: n})
		h.at[h.places[i].key] = i
		h.up(i)
		return
	}
	least := &h.places[0]
	delete(h.at, least.key)
	*least = place{key: string(key), count: least.count + n, over: least.count}
	h.at[least.key] = 0
	h.down(0)
}

func (h *heavy) up(i int) {
	for i > 0 && h.places[i].count < h.places[(i-1)/2].count {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (h *heavy) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h.places); child++ {
			if h.places[child].count < h.places[least].count {
				least = child
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}

func (h *heavy) swap(i, j int) {
	h.places[i], h.places[j] = h.places[j], h.places[i]
	h.at[h.places[i].key], h.at[h.places[j].key] = i, j
}
