package main

import (
	"sync"
	"time"

	"haslohas.com/elbow/handover"
	"haslohas.com/elbow/state"
)

// A store is the state directory, behind what the process before has handed
// over. While this process hands over itself, what it saves waits; once the
// other one has taken over it is dropped, so that never two write.
type store struct {
	inherited *handover.Inheritance // nil: nothing was
	disk      *state.Dir

	mu      sync.Mutex
	writing int           // saves that are at the disk
	idle    chan struct{} // closed when writing becomes 0; nil: nobody waits for that
	held    chan struct{} // closed when it is decided who goes on; nil: this process
	left    bool          // the other one does
}

// Load reads what was last saved under name into v.
func (s *store) Load(name string, v any) (bool, error) {
	if ok, err := s.inherited.Load(name, v); ok || err != nil {
		return ok, err
	}
	return s.disk.Load(name, v)
}

// Save keeps v under name.
func (s *store) Save(name string, v any) error {
	s.mu.Lock()
	for s.held != nil {
		decided := s.held
		s.mu.Unlock()
		<-decided
		s.mu.Lock()
	}
	if s.left {
		s.mu.Unlock()
		return nil
	}
	s.writing++
	s.mu.Unlock()

	err := s.disk.Save(name, v)

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writing--; s.writing == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
	return err
}

// hold has every Save wait until decide is called, and waits itself for those
// that are at the disk. A disk that hangs is not waited for: what it
// writes in the end is whole, and the next Save of the other process replaces it.
func (s *store) hold(patience time.Duration) {
	s.mu.Lock()
	s.held = make(chan struct{})
	idle := make(chan struct{})
	if s.writing == 0 {
		close(idle)
	} else {
		s.idle = idle
	}
	s.mu.Unlock()
	select {
	case <-idle:
	case <-time.After(patience):
	}
}

// decide ends hold; left says that the other process goes on.
func (s *store) decide(left bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = left
	close(s.held)
	s.held = nil
}
