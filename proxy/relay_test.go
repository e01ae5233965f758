package proxy

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

func TestEcho(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		backend := backendServer(t, echo)
		f.serve(up(web(backend)))
		client := f.connect()
		for i := range 10 {
			exchange(t, client, fmt.Sprintf("message %d", i))
		}
		client.CloseWrite()
		expectEnd(t, client)
		line := f.awaitReason("client-closed")
		if line.BytesIn != 90 || line.BytesOut != 90 {
			t.Errorf("logged %d bytes in and %d out, want 90 and 90", line.BytesIn, line.BytesOut)
		}
	})
}

// A stream much longer than all buffers arrives whole in both directions at
// once, whether it is copied or spliced, and every byte is counted once.
func TestBulk(t *testing.T) {
	const size = 24 << 20
	onEachEngine(t, func(t *testing.T, f *fixture) {
		backend := backendServer(t, echo)
		f.serve(up(web(backend)))
		client := f.connect()
		sent := sha256.New()
		go func() {
			random := rand.NewChaCha8([32]byte{1})
			io.CopyN(io.MultiWriter(client, sent), random, size)
			client.CloseWrite()
		}()
		received := sha256.New()
		n, err := io.Copy(received, client)
		if n != size || err != nil {
			t.Fatalf("received %d bytes, %v; want %d", n, err, size)
		}
		if string(received.Sum(nil)) != string(sent.Sum(nil)) {
			t.Error("the bytes that came back are not the bytes that were sent")
		}
		line := f.awaitReason("client-closed")
		if line.BytesIn != size || line.BytesOut != size {
			t.Errorf("logged %d bytes in and %d out, want %d", line.BytesIn, line.BytesOut, size)
		}
		if got := f.metric("elbow_proxy_bytes_total", "web", "in"); got != size {
			t.Errorf("counted %.0f bytes in", got)
		}
	})
}

func TestHalfClose(t *testing.T) {
	t.Run("client first, then late data of the backend", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			late := make(chan string)
			backend := backendServer(t, func(conn *net.TCPConn) {
				request, _ := io.ReadAll(conn)
				io.WriteString(conn, string(request)+<-late)
			})
			f.serve(up(web(backend)))
			client := f.connect()
			io.WriteString(client, "request ")
			client.CloseWrite()
			late <- "answer"
			expect(t, client, "request answer")
			expectEnd(t, client)
			f.awaitReason("client-closed")
		})
	})
	t.Run("backend first, then late data of the client", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			got := make(chan string, 1)
			backend := backendServer(t, func(conn *net.TCPConn) {
				io.WriteString(conn, "greeting")
				conn.CloseWrite()
				late, _ := io.ReadAll(conn)
				got <- string(late)
			})
			f.serve(up(web(backend)))
			client := f.connect()
			expect(t, client, "greeting")
			expectEnd(t, client)
			io.WriteString(client, "late data")
			client.CloseWrite()
			if late := <-got; late != "late data" {
				t.Errorf("the backend got %q after it had closed", late)
			}
			f.awaitReason("backend-closed")
		})
	})
}

func TestReset(t *testing.T) {
	t.Run("of the client reaches the backend", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			end := make(chan error, 1)
			backend := backendServer(t, func(conn *net.TCPConn) {
				io.WriteString(conn, "hello")
				_, err := io.Copy(io.Discard, conn)
				end <- err
			})
			f.serve(up(web(backend)))
			client := f.connect()
			expect(t, client, "hello")
			client.SetLinger(0)
			client.Close()
			if err := <-end; err == nil {
				t.Error("the backend saw a clean end")
			}
			f.awaitReason("client-reset")
			if got := f.metric("elbow_proxy_resets_total", "web", "client"); got != 1 {
				t.Errorf("counted %.0f resets by the client", got)
			}
		})
	})
	t.Run("of the backend reaches the client, and its observer where it came before the first byte", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			backend := backendServer(t, func(conn *net.TCPConn) {
				conn.Read(make([]byte, 1))
				conn.SetLinger(0)
			})
			f.serve(up(web(backend)))
			client := f.connect()
			io.WriteString(client, "x")
			expectReset(t, client)
			f.awaitReason("backend-reset")
			f.await("the observer to hear", func() bool { return len(f.heard.resets()) == 1 })
			if got, want := f.heard.resets()[0], "web "+backend.String(); got != want {
				t.Errorf("heard %q, want %q", got, want)
			}
			if got := f.metric("elbow_proxy_resets_total", "web", "backend"); got != 1 {
				t.Errorf("counted %.0f resets by the backend", got)
			}
		})
	})
	t.Run("of the backend after its answer", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			proceed := make(chan bool)
			backend := backendServer(t, func(conn *net.TCPConn) {
				io.WriteString(conn, "answer")
				<-proceed
				conn.SetLinger(0)
			})
			f.serve(up(web(backend)))
			client := f.connect()
			expect(t, client, "answer")
			close(proceed)
			expectReset(t, client)
			f.awaitReason("backend-reset")
			if got := f.heard.resets(); len(got) != 0 {
				t.Errorf("the observer heard %q", got)
			}
		})
	})
}

// A backend that refuses a long request answers and closes without reading the
// rest, which resets the connection. The client gets the answer all the same.
func TestAnswerBeforeReset(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		full := make(chan bool)
		backend := backendServer(t, func(conn *net.TCPConn) {
			<-full
			io.WriteString(conn, "too large")
		})
		f.serve(up(web(backend)))
		client := f.connect()
		broken := make(chan bool)
		go func() {
			defer close(broken)
			once := false
			for {
				client.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
				_, err := client.Write(make([]byte, 64<<10))
				if errors.Is(err, os.ErrDeadlineExceeded) && !once {
					close(full) // every buffer on the way is full
					once = true
				} else if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					return
				}
			}
		}()
		expect(t, client, "too large")
		<-broken
		f.awaitReason("backend-reset")
	})
}

func TestIdleTimeout(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		backend := backendServer(t, echo)
		service := web(backend)
		service.IdleTimeout = 400 * time.Millisecond
		f.serve(up(service))
		client := f.connect()
		begin := time.Now()
		last := begin
		for last.Sub(begin) < 2*service.IdleTimeout { // bytes keep it alive
			last = time.Now()
			exchange(t, client, "x")
		}
		expectReset(t, client)
		if took := time.Since(last); took < service.IdleTimeout*9/10 {
			t.Errorf("reset after %s without a byte, want %s", took, service.IdleTimeout)
		}
		f.awaitReason("idle-timeout")
	})
}

// A receiver that is slow is not idle: bytes move all the time.
func TestSlowReceiverIsNotIdle(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		const size = 8 << 20
		backend := backendServer(t, func(conn *net.TCPConn) { io.CopyN(conn, rand.NewChaCha8([32]byte{}), size) })
		service := web(backend)
		service.IdleTimeout = 300 * time.Millisecond
		f.serve(up(service))
		client := f.connect()
		client.SetReadBuffer(64 << 10)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		buffer := make([]byte, 64<<10)
		total := 0
		for {
			<-tick.C
			n, err := client.Read(buffer)
			total += n
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("after %d bytes: %v", total, err)
			}
		}
		if total != size {
			t.Errorf("received %d bytes, want %d", total, size)
		}
	})
}

func TestHalfCloseTimeout(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		forgotten := make(chan bool)
		defer close(forgotten)
		backend := backendServer(t, func(conn *net.TCPConn) {
			io.ReadAll(conn) // the client's end; then the backend forgets to close
			<-forgotten
		})
		service := web(backend)
		service.IdleTimeout = 0
		service.HalfCloseTimeout = 100 * time.Millisecond
		f.serve(up(service))
		client := f.connect()
		client.CloseWrite()
		expectReset(t, client)
		f.awaitReason("half-close-timeout")
	})
}

func TestDownBackendKeepsItsConnections(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		service := web(backendServer(t, echo))
		service.WhenAllDown = pool.Refuse
		f.serve(up(service))
		client := f.connect()
		exchange(t, client, "before")
		f.publish(up(service, func(b []pool.Backend) { b[0].State = pool.Down }))
		exchange(t, client, "after")
		f.expectRefused()
		if lines := f.awaitLines(1); lines[0].Reason != "no-backend" || lines[0].Generation != 0 {
			t.Errorf("refused with %+v", lines[0])
		}
		exchange(t, client, "still")
	})
}
