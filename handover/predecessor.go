//go:build linux

package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
)

// A Predecessor is the old process, as the new one sees it. One goroutine at a
// time may use it.
type Predecessor struct {
	link *link
}

// Inherit returns the process that has started this one to be its successor,
// nil if nobody has. Call it once, before anything else is started: what it finds in
// the environment is removed there.
func Inherit() (*Predecessor, error) {
	text, ok := os.LookupEnv(variable)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(variable); err != nil {
		return nil, err
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s=%q is no descriptor: this variable is set by elbow itself", variable, text)
	}
	l, err := newLink(fd)
	if err != nil {
		return nil, fmt.Errorf("%s=%q: %w: this variable is set by elbow itself", variable, text, err)
	}
	return &Predecessor{l}, nil
}

// Receive says that this process is prepared and returns what it is given. From
// here on the old one changes nothing until this one is ready or dead.
func (p *Predecessor) Receive(ctx context.Context) (*Inheritance, error) {
	in := &Inheritance{sockets: make(map[string][]int), documents: make(map[string]json.RawMessage)}
	err := p.receive(ctx, in)
	if err != nil {
		in.Close()
		return nil, fmt.Errorf("taking over from the running process: %w", err)
	}
	return in, nil
}

func (p *Predecessor) receive(ctx context.Context, in *Inheritance) error {
	if err := p.link.send(ctx, prepared, nil); err != nil {
		return err
	}
	count, size := 0, 0
	for {
		k, payload, fds, err := p.link.receive(ctx, true)
		switch {
		case err != nil && isGone(err):
			return errors.New("it has ended")
		case err != nil:
			return err
		case k == allGiven:
			closeAll(fds)
			return nil
		case k == sockets:
			if count += len(fds); count > maxSockets {
				closeAll(fds)
				return fmt.Errorf("more than %d sockets", maxSockets)
			}
			if err := in.addSockets(payload, fds); err != nil {
				closeAll(fds)
				return err
			}
		case k == document:
			closeAll(fds)
			if size += len(payload); size > maxText {
				return fmt.Errorf("more than %d bytes of documents", maxText)
			}
			if err := in.addDocument(payload); err != nil {
				return err
			}
		default:
			closeAll(fds)
			return fmt.Errorf("it said %q where sockets and documents were due", k)
		}
	}
}

func (in *Inheritance) addSockets(payload []byte, fds []int) error {
	var names []string
	if err := json.Unmarshal(payload, &names); err != nil {
		return fmt.Errorf("names of sockets: %w", err)
	}
	if len(names) != len(fds) {
		return fmt.Errorf("%d names for %d sockets", len(names), len(fds))
	}
	for i, name := range names {
		in.sockets[name] = append(in.sockets[name], fds[i])
	}
	return nil
}

func (in *Inheritance) addDocument(payload []byte) error {
	if len(payload) == 0 || len(payload) < 1+int(payload[0]) {
		return errors.New("a document without a name")
	}
	name, text := string(payload[1:1+payload[0]]), payload[1+payload[0]:]
	if _, known := in.documents[name]; !known && len(in.documents) == maxDocuments {
		return fmt.Errorf("more than %d documents", maxDocuments)
	}
	in.documents[name] = append(in.documents[name], text...)
	return nil
}

// Ready says that this process serves, and returns when the old one has taken
// its leave or is gone. Before that everything that was handed over must stay open.
func (p *Predecessor) Ready(ctx context.Context) error {
	if err := p.link.send(ctx, ready, nil); err != nil && !isGone(err) {
		return err
	}
	k, _, _, err := p.link.receive(ctx, false)
	if err != nil && !isGone(err) {
		return fmt.Errorf("waiting for the leave of the old process: %w", err)
	}
	if err == nil && k != leaving {
		return fmt.Errorf("the old process said %q where %q was due", k, leaving)
	}
	return nil
}

// Wait returns when the old process has ended, or ctx. It may be called after
// Ready, by one goroutine.
func (p *Predecessor) Wait(ctx context.Context) error {
	for {
		if _, _, _, err := p.link.receive(ctx, false); isGone(err) {
			return p.link.Close()
		} else if err != nil {
			return err
		}
	}
}

// elderName is what the links to old processes go by in an Estate.
const elderName = "predecessor"

// AddElder adds an old process that may go on for a while, so that also the
// next one can wait for its end.
func (e *Estate) AddElder(p *Predecessor) error {
	raw, err := p.link.conn.SyscallConn()
	if err != nil {
		return err
	}
	var adding error
	err = raw.Control(func(fd uintptr) { adding = e.AddSocket(elderName, int(fd)) })
	if errors.Is(err, net.ErrClosed) {
		return nil // it has just ended
	}
	return errors.Join(err, adding)
}

// TakeElders returns the old processes that AddElder has added, once.
func (in *Inheritance) TakeElders() (elders []*Predecessor) {
	for _, fd := range in.Take(elderName) {
		if l, err := newLink(fd); err == nil { // else it is no link, and nobody ends with it
			elders = append(elders, &Predecessor{l})
		}
	}
	return elders
}

// Fail tells the old process why this one cannot take its place. A nil
// Predecessor is told nothing.
func (p *Predecessor) Fail(reason error) {
	if p == nil {
		return
	}
	text := reason.Error()
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	_ = p.link.send(ctx, givesUp, []byte(text[:min(len(text), maxReason)])) // it sees the end of this process too
	_ = p.link.Close()
}
