package main

import (
	"net"
	"sync"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"
)

// A nameServer is a small DNS server on UDP and TCP that answers every question
// with its name, as TXT.
type nameServer struct {
	address string
	stop    func()
}

func startNameServer(name string) (*nameServer, error) {
	tcp, udp, err := listenBoth("127.0.0.1")
	if err != nil {
		return nil, err
	}
	answer := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg).SetReply(q)
		r.Answer = []dns.RR{&dns.TXT{
			Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET},
			Txt: []string{name},
		}}
		_ = w.WriteMsg(r) // the client asks again
	})
	var serving sync.WaitGroup
	servers := []*dns.Server{{Listener: tcp, Handler: answer}, {PacketConn: udp, Handler: answer}}
	for _, s := range servers {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		serving.Go(func() { _ = s.ActivateAndServe() })
		<-started
	}
	return &nameServer{tcp.Addr().String(), sync.OnceFunc(func() {
		for _, s := range servers {
			_ = s.Shutdown()
		}
		serving.Wait()
	})}, nil
}

// stopNameServer is the command of scripts.
func stopNameServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: stopdns A|B")
	}
	ts.Value(args[0]).(*nameServer).stop()
}

// listenBoth listens on one port of host for TCP and UDP.
func listenBoth(host string) (tcp net.Listener, udp net.PacketConn, err error) {
	for range 20 {
		if tcp, err = net.Listen("tcp", host+":0"); err != nil {
			return nil, nil, err
		}
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			return tcp, udp, nil
		}
		tcp.Close()
	}
	return nil, nil, err
}

// freeAddresses returns n addresses that nobody uses just now, for TCP and UDP. All
// differ, and nobody connects from them.
func freeAddresses(n int) (addresses []string, err error) {
	for range n {
		tcp, udp, err := listenBoth("127.0.0.7")
		if err != nil {
			return nil, err
		}
		defer tcp.Close() // only when all are found: none twice
		defer udp.Close()
		addresses = append(addresses, tcp.Addr().String())
	}
	return addresses, nil
}

// setFreePort sets $HOST and $PORT, a free address.
func setFreePort(env *testscript.Env) error {
	addresses, err := freeAddresses(1)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(addresses[0])
	env.Setenv("HOST", host)
	env.Setenv("PORT", port)
	return err
}
