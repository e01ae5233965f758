package admin

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// tick is how often a stream says something when the table does not change:
// connections come and go without a new table.
const tick = 2 * time.Second

// serveEvents is a stream of Server-Sent Events: one named "change" with
// {"generation":N} at the start and after each new table, one named "tick" in
// between. It carries no state; who wants that asks for it.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		w.Header().Set("Retry-After", "10")
		writeError(w, http.StatusServiceUnavailable, errors.New("too many streams of events are open"))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	changed, stop := s.opts.Table.Watch()
	defer stop()
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	control := http.NewResponseController(w)
	event := "change"
	for {
		_ = control.SetWriteDeadline(time.Now().Add(writeTimeout)) // as in guard
		_, err := fmt.Fprintf(w, "event: %s\ndata: {\"generation\":%d}\n\n", event, s.opts.Table.Load().Generation)
		if err != nil || control.Flush() != nil {
			return
		}
		select {
		case <-changed:
			event = "change"
		case <-ticks.C:
			event = "tick"
		case <-r.Context().Done():
			return
		}
	}
}
