package proxy

import (
	"io"
	"net"
	"testing"
)

// A wrapper around a socket or a wrong flag would lose splice without any
// other test seeing it.
func TestBulkIsSpliced(t *testing.T) {
	var made *netEngine
	f := newFixture(t, func(c *core) (engine, error) {
		e, err := newNetEngine(c)
		made = e.(*netEngine)
		return e, err
	})
	f.serve(up(web(backendServer(t, func(conn *net.TCPConn) { io.Copy(io.Discard, conn) }))))
	client := f.connect()
	go io.CopyN(client, zeros{}, 16<<20)
	f.await("a pipe", func() bool {
		made.pipes.mu.Lock()
		defer made.pipes.mu.Unlock()
		return made.pipes.pool.lent+len(made.pipes.pool.free) > 0
	})
	f.await("all bytes", func() bool { return f.metric("elbow_proxy_bytes_total", "in") == 16<<20 })
	made.pipes.mu.Lock()
	if made.pipes.pool.lent != 0 {
		t.Errorf("a stream that waits holds a pipe")
	}
	made.pipes.mu.Unlock()
}

// Who gets no pipe copies.
func TestBulkWithoutPipes(t *testing.T) {
	f := newFixture(t, func(c *core) (engine, error) {
		e, err := newNetEngine(c)
		e.(*netEngine).pipes.pool.lent = maxPipes
		return e, err
	})
	f.serve(up(web(backendServer(t, echo))))
	client := f.connect()
	go func() {
		io.CopyN(client, zeros{}, 4<<20)
		client.CloseWrite()
	}()
	if n, err := io.Copy(io.Discard, client); n != 4<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
