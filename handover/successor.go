//go:build linux

package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// variable tells a process that it is a successor, and which descriptor its
// end of the link is.
const variable = "ELBOW_HANDOVER"

// lastWords is how long a process that has closed its link may take to end,
// so that its status can be told.
const lastWords = time.Second

// maxReason bounds what is repeated of the reason that a successor gives.
const maxReason = 4 << 10

// A Successor is the new process, as the old one sees it. After any error
// [Successor.Kill] is what is left to do. One goroutine at a time may use it.
type Successor struct {
	cmd    *exec.Cmd
	link   *link
	exited chan struct{} // closed when the process has ended
	status error         // of the process; valid once exited is closed
}

// Start runs the program anew, with the arguments, the environment and the
// standard streams of this process.
func (p *Program) Start() (*Successor, error) {
	ours, theirs, err := newPair()
	if err != nil {
		return nil, err
	}
	s := &Successor{link: ours, exited: make(chan struct{})}
	sibling := hasManager()
	err = s.start(p, theirs, sibling)
	if errors.Is(err, syscall.EINVAL) && sibling { // the first process of a container has no parent to give it to
		err = s.start(p, theirs, false)
	}
	if err = errors.Join(err, theirs.Close()); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	return s, nil
}

// hasManager reports whether a service manager has started this process, which
// it then is a child of (sd_notify(3)).
func hasManager() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// start runs the program with theirs as its end of the link, as a child or as
// a sibling of this process.
//
// It is a sibling where there is a service manager: systemd before version
// 255 gives a main process that is not its own child no time to end. When the
// service is stopped, it sends SIGKILL right behind SIGTERM.
func (s *Successor) start(p *Program, theirs *os.File, sibling bool) error {
	cmd := exec.Command(p.path)
	cmd.Args = p.args
	cmd.Env = append(os.Environ(), variable+"=3") // the first of ExtraFiles
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	pidfd := -1
	if sibling {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_PARENT, PidFD: &pidfd}
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd = cmd
	go func() { // ends with the process
		defer close(s.exited)
		if pidfd >= 0 {
			awaitEnd(pidfd)
			s.status = errUnknownStatus
			return
		}
		s.status = cmd.Wait()
	}()
	return nil
}

// errUnknownStatus stands for the status of a process that is not a child of
// this one.
var errUnknownStatus = errors.New("why, its own messages say")

// awaitEnd waits until the process of pidfd has ended, and closes pidfd.
func awaitEnd(pidfd int) {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, -1)
		if err != unix.EINTR {
			break
		}
	}
	_ = unix.Close(pidfd) // there is nothing to lose in it
}

// PID is the number of the new process.
func (s *Successor) PID() int { return s.cmd.Process.Pid }

// Prepared waits until the new process has read its configuration.
func (s *Successor) Prepared(ctx context.Context) error { return s.await(ctx, prepared) }

// Give hands e over. The sockets of e stay open here.
func (s *Successor) Give(ctx context.Context, e *Estate) error {
	for i := 0; i < len(e.fds); {
		n, size := 0, 2
		for ; i+n < len(e.fds) && n < maxDescriptors; n++ {
			// A byte takes at most six as JSON.
			if size += 6*len(e.names[i+n]) + 3; size > maxPayload {
				break
			}
		}
		names, err := json.Marshal(e.names[i : i+n])
		if err != nil {
			return err
		}
		if err := s.link.send(ctx, sockets, names, e.fds[i:i+n]...); err != nil {
			return s.explain(err)
		}
		i += n
	}
	for name, text := range e.documents {
		head := append([]byte{byte(len(name))}, name...)
		for first := true; first || len(text) > 0; first = false {
			n := min(len(text), maxPayload-len(head))
			if err := s.link.send(ctx, document, append(head, text[:n]...)); err != nil {
				return s.explain(err)
			}
			text = text[n:]
		}
	}
	return s.explain(s.link.send(ctx, allGiven, nil))
}

// Ready waits until the new process serves.
func (s *Successor) Ready(ctx context.Context) error { return s.await(ctx, ready) }

// Leave tells the new process that this one has taken its leave. The new
// process is on its own from here on; by the link, which stays open, it sees
// the end of this one.
func (s *Successor) Leave(ctx context.Context) error { return s.link.send(ctx, leaving, nil) }

// Kill ends the new process and waits until it is gone, with what it held.
func (s *Successor) Kill() {
	_ = s.cmd.Process.Kill() // it may have ended by itself
	<-s.exited
	_ = s.link.Close()
}

func (s *Successor) await(ctx context.Context, want kind) error {
	k, payload, _, err := s.link.receive(ctx, false)
	switch {
	case err != nil:
		return s.explain(err)
	case k == givesUp:
		return fmt.Errorf("the new process gives up: %s", printable(payload))
	case k != want:
		return fmt.Errorf("the new process said %q where %q was due", k, want)
	}
	return nil
}

// explain replaces the end of the link by that of the process.
func (s *Successor) explain(err error) error {
	if err == nil || !isGone(err) {
		return err
	}
	select {
	case <-s.exited:
		if s.status == nil {
			return errors.New("the new process ended: exit status 0")
		}
		return fmt.Errorf("the new process ended: %w", s.status)
	case <-time.After(lastWords):
		return errors.New("the new process has closed its link")
	}
}

// printable keeps what may stand in a log.
func printable(text []byte) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, string(text[:min(len(text), maxReason)]))
}
