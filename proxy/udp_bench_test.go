package proxy

import (
	"net"
	"runtime"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

// benchmarkUDP runs on each engine and, for comparison, without a proxy.
func benchmarkUDP(b *testing.B, responses int, run func(b *testing.B, to *net.UDPAddr)) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	go func() {
		buffer := make([]byte, 1<<16)
		for {
			n, client, err := conn.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			conn.WriteToUDPAddrPort(buffer[:n], client)
		}
	}()
	backend := conn.LocalAddr().(*net.UDPAddr)
	b.Run("direct", func(b *testing.B) { run(b, backend) })
	for name, engine := range udpEngines {
		b.Run(name, func(b *testing.B) {
			service := names(backend.AddrPort())
			service.UDP = pool.UDP{IdleTimeout: time.Second, Responses: responses}
			server := newServer(Options{Table: publisher(up(service))}, newNetEngine)
			server.newUDP = engine
			done := make(chan bool)
			go func() {
				defer close(done)
				server.Run(b.Context())
			}()
			b.Cleanup(func() { <-done })
			for server.Serving() != nil {
				runtime.Gosched()
			}
			run(b, net.UDPAddrFromAddrPort(server.Listeners()[0].Address))
		})
	}
}

// trip sends data and waits for the answer; a loss is found out after a second.
func trip(b *testing.B, conn *net.UDPConn, data []byte) {
	for {
		conn.Write(data)
		conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := conn.Read(data); err == nil {
			return
		}
	}
}

// BenchmarkDatagram exchanges 64 bytes in one flow.
func BenchmarkDatagram(b *testing.B) {
	benchmarkUDP(b, 0, func(b *testing.B, to *net.UDPAddr) {
		conn, err := net.DialUDP("udp4", nil, to)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		b.ReportAllocs()
		data := make([]byte, 64)
		for b.Loop() {
			trip(b, conn, data)
		}
	})
}

// BenchmarkFlow exchanges 64 bytes, each time in a new flow that ends with the
// answer, as DNS does.
func BenchmarkFlow(b *testing.B) {
	benchmarkUDP(b, 1, func(b *testing.B, to *net.UDPAddr) {
		conn, err := net.DialUDP("udp4", nil, to)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		b.ReportAllocs()
		data := make([]byte, 64)
		for b.Loop() {
			trip(b, conn, data)
		}
	})
}

// BenchmarkBurst sends 32 datagrams of 1200 bytes at a time and reads the
// answers.
func BenchmarkBurst(b *testing.B) {
	const burst = 32
	benchmarkUDP(b, 0, func(b *testing.B, to *net.UDPAddr) {
		conn, err := net.DialUDP("udp4", nil, to)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		data, lost, sent := make([]byte, 1200), 0, 0
		b.SetBytes(burst * int64(len(data)))
		for b.Loop() {
			for range burst {
				conn.Write(data)
			}
			sent += burst
			conn.SetReadDeadline(time.Now().Add(time.Second))
			for n := range burst {
				if _, err := conn.Read(data); err != nil {
					lost += burst - n
					break
				}
			}
		}
		b.ReportMetric(float64(lost)/float64(sent), "lost")
	})
}
