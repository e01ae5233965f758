package dnsserver

import (
	"context"
	"log/slog"
	"maps"
	"time"
)

// A Store keeps what must outlive a restart. Load reads what was last saved
// under a name into v, a pointer, and reports whether there was anything.
type Store interface {
	Load(name string, v any) (bool, error)
	Save(name string, v any) error
}

const (
	serialStore = "serials" // the name in the Store

	// serialBlock is how many serials are reserved at once. A crash skips what
	// is left of a block and never uses a serial twice.
	serialBlock = 100

	// storePatience is how long a start or an end waits for the disk.
	storePatience = 2 * time.Second
)

// A savedSerial is what is kept of a zone.
type savedSerial struct {
	// Serial is the highest serial that may have been used.
	Serial uint32 `json:"serial"`

	// Content is a hash of the zone as it was when the server ended with exactly
	// this serial. It is empty while the server runs, and so after a crash.
	Content string `json:"content,omitempty"`
}

// serials hands out the serials of zones. It belongs to one goroutine, the
// builder; only the writing to the Store, which may hang, has its own.
type serials struct {
	log      *slog.Logger
	saved    map[string]savedSerial
	current  map[string]uint32
	moved    []string         // zones whose serials are new since they were reserved
	requests chan saveRequest // capacity 1; nil: nothing is kept
	ended    chan struct{}    // closed when nothing is written any more
}

type saveRequest struct {
	serials map[string]savedSerial
	done    chan struct{}
}

// newSerials loads what was kept. It starts a goroutine, which end ends.
func newSerials(store Store, log *slog.Logger) *serials {
	s := &serials{log: log, saved: make(map[string]savedSerial), current: make(map[string]uint32)}
	if store == nil {
		return s
	}
	var saved map[string]savedSerial
	if _, err := store.Load(serialStore, &saved); err != nil {
		log.Error("zone serials are not known from before, they begin with the date", "err", err)
	} else if saved != nil {
		s.saved = saved
	}
	s.requests = make(chan saveRequest, 1)
	s.ended = make(chan struct{})
	go func() {
		defer close(s.ended)
		for r := range s.requests {
			if err := store.Save(serialStore, r.serials); err != nil {
				log.Error("saving zone serials: after a crash they may go back", "err", err)
			}
			close(r.done)
		}
	}()
	return s
}

// known reports whether the zone was served before, by this process or an earlier one.
func (s *serials) known(zone string) bool {
	_, before := s.saved[zone]
	return before
}

// begin returns the serial of a zone that was not served until now. Content
// is what change of the zone is seen by; file is the serial that the master
// file asks for, 0: none.
func (s *serials) begin(zone, content string, file uint32, now time.Time) uint32 {
	if serial, served := s.current[zone]; served { // it was taken out of the configuration and is back
		return s.advance(zone, serial, file)
	}
	before, known := s.saved[zone]
	if known && before.Content == content && content != "" && !serialAfter(file, before.Serial) {
		s.use(zone, before.Serial)
		return before.Serial
	}
	serial := latest(dateSerial(now), file)
	if known {
		serial = latest(serial, nextSerial(before.Serial))
	}
	s.use(zone, serial)
	return serial
}

// advance returns the serial after a change of an answer.
func (s *serials) advance(zone string, serial, file uint32) uint32 {
	serial = latest(nextSerial(serial), file)
	s.use(zone, serial)
	return serial
}

func (s *serials) use(zone string, serial uint32) {
	s.current[zone] = serial
	s.moved = append(s.moved, zone)
}

// reserve makes sure that no serial in use is used again after a crash. With
// wait it does not return before that is on the disk, or the disk is too slow.
func (s *serials) reserve(ctx context.Context, wait bool) {
	changed := false
	for _, zone := range s.moved {
		serial := s.current[zone]
		before, known := s.saved[zone]
		if !known || before.Content != "" || !serialAfter(before.Serial, serial+serialBlock/2) {
			s.saved[zone] = savedSerial{Serial: serial + serialBlock}
			changed = true
		}
	}
	s.moved = s.moved[:0]
	if changed {
		s.save(ctx, wait)
	}
}

// end keeps the exact serials, each with the hash of its zone's content, and
// ends the writing.
func (s *serials) end(contents map[string]string) {
	s.saved = s.exact(contents)
	if s.requests == nil {
		return
	}
	s.save(context.Background(), false)
	close(s.requests)
	select {
	case <-s.ended:
	case <-time.After(storePatience): // a disk that hangs stops no restart
		s.log.Error("saving zone serials takes too long: after the restart they skip some")
	}
}

// exact returns what is saved at an end: the serials that are in use, each
// with the hash of its zone's content.
func (s *serials) exact(contents map[string]string) map[string]savedSerial {
	saved := maps.Clone(s.saved)
	for zone, serial := range s.current {
		if content := contents[zone]; content != "" {
			saved[zone] = savedSerial{Serial: serial, Content: content}
		}
	}
	return saved
}

func (s *serials) save(ctx context.Context, wait bool) {
	if s.requests == nil {
		return
	}
	select { // an older state that still waits to be written is worth nothing
	case <-s.requests:
	default:
	}
	r := saveRequest{maps.Clone(s.saved), make(chan struct{})}
	s.requests <- r // nobody else sends, so there is room
	if !wait {
		return
	}
	patience := time.NewTimer(storePatience)
	defer patience.Stop()
	select {
	case <-r.done:
	case <-ctx.Done():
	case <-patience.C:
		s.log.Error("saving zone serials takes too long: after a crash they may go back")
	}
}

// nextSerial leaves out 0, which some secondaries take for none.
func nextSerial(serial uint32) uint32 { return max(serial+1, 1) }

// serialAfter compares as RFC 1982 section 3.2 does.
func serialAfter(a, b uint32) bool { return int32(a-b) > 0 }

// latest returns the later of two serials; 0 is none.
func latest(a, b uint32) uint32 {
	if a == 0 || b != 0 && serialAfter(b, a) {
		return b
	}
	return a
}

// dateSerial is where the serials of a fresh zone begin: YYYYMMDDnn, nn being
// the hundredth of the day.
func dateSerial(now time.Time) uint32 {
	now = now.UTC()
	hundredth := (now.Hour()*3600 + now.Minute()*60 + now.Second()) * 100 / 86400
	return uint32((now.Year()*10000+int(now.Month())*100+now.Day())*100 + hundredth)
}
