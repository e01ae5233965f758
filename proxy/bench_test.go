package proxy

import (
	"io"
	"net"
	"runtime"
	"testing"
)

// benchmark runs on each engine and, for comparison, without a proxy.
func benchmark(b *testing.B, handle func(*net.TCPConn), run func(b *testing.B, address string)) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				handle(conn)
			}()
		}
	}()
	backend := l.Addr().(*net.TCPAddr).AddrPort()
	b.Run("direct", func(b *testing.B) { run(b, backend.String()) })
	for name, engine := range engines {
		b.Run(name, func(b *testing.B) {
			var o Options
			o.Table = publisher(up(web(backend)))
			server := newServer(o, engine)
			done := make(chan bool)
			go func() {
				defer close(done)
				server.Run(b.Context())
			}()
			b.Cleanup(func() { <-done })
			for server.Serving() != nil {
				runtime.Gosched()
			}
			run(b, server.Listeners()[0].Address.String())
		})
	}
}

// BenchmarkConnection connects, exchanges 64 bytes and closes.
func BenchmarkConnection(b *testing.B) {
	benchmark(b, echo, func(b *testing.B, address string) {
		b.ReportAllocs()
		message := make([]byte, 64)
		for b.Loop() {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				b.Fatal(err)
			}
			conn.Write(message)
			if _, err := io.ReadFull(conn, message); err != nil {
				b.Fatal(err)
			}
			conn.Close()
		}
	})
}

// BenchmarkRoundTrip exchanges 64 bytes on one connection.
func BenchmarkRoundTrip(b *testing.B) {
	benchmark(b, echo, func(b *testing.B, address string) {
		b.ReportAllocs()
		message := make([]byte, 64)
		conn, err := net.Dial("tcp", address)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		for b.Loop() {
			conn.Write(message)
			if _, err := io.ReadFull(conn, message); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkBulk downloads a MiB at a time on one connection.
func BenchmarkBulk(b *testing.B) {
	block := make([]byte, 1<<20)
	benchmark(b, func(conn *net.TCPConn) {
		for {
			if _, err := conn.Write(block); err != nil {
				return
			}
		}
	}, func(b *testing.B, address string) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		b.SetBytes(int64(len(block)))
		received := make([]byte, len(block))
		for b.Loop() {
			if _, err := io.ReadFull(conn, received); err != nil {
				b.Fatal(err)
			}
		}
	})
}
