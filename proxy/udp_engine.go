package proxy

import "syscall"

// transports are one engine for TCP and one for UDP. That for UDP is made for the
// first UDP listener: who has none pays nothing for it. Its methods are called
// by one goroutine.
type transports struct {
	engine // for TCP
	core   *core
	newUDP func(*core) (engine, error)
	udp    engine // nil: there was no UDP listener yet
}

func (e *transports) listen(l *listener, inherited []int) (opened, error) {
	if !l.udp {
		return e.engine.listen(l, inherited)
	}
	if e.udp == nil {
		udp, err := e.newUDP(e.core)
		if err != nil {
			closeAll(inherited)
			return opened{}, err
		}
		e.udp = udp
	}
	return e.udp.listen(l, inherited)
}

func (e *transports) sweep() {
	e.engine.sweep()
	if e.udp != nil {
		e.udp.sweep()
	}
}

func (e *transports) close() {
	e.engine.close()
	if e.udp != nil {
		e.udp.close()
	}
}

// closeAll closes descriptors that nobody can use.
func closeAll(fds []int) {
	for _, fd := range fds {
		_ = syscall.Close(fd) // it is free whatever it says
	}
}
