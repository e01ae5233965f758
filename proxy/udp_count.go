package proxy

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// udpCounts is what a service counts of UDP alone. Its flows count as
// connections besides.
type udpCounts struct {
	used    atomic.Bool   // the service has, or had, a UDP listener
	active  atomic.Int64  // flows
	flows   atomic.Uint64 // that were begun
	packets [2]tally
	bytes   [2]tally
	dropped [drops]atomic.Uint64
}

// localPorts returns the range of ports that the system gives to sockets that
// ask for none, and the widest one where it does not tell.
func localPorts() (first, last uint16) {
	first, last = 1024, 1<<16-1
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(text), &first, &last) // what it does not say stays wide
	}
	return first, last
}

// mostFlows returns how many flows there may be at once: half of the
// connections that the descriptors are enough for, so that a flood of forged
// senders leaves the other half to TCP, and three quarters of the local ports,
// so that probes find one. A port is not shared between flows, even if they
// lead to different backends.
func mostFlows(connections int64, first, last uint16) int {
	most := max(1, (int(last)-int(first)+1)*3/4)
	if connections > 0 {
		most = min(most, max(1, int(connections/2)))
	}
	return most
}

// flowFault notes that this host is short of something that a flow needs.
func (c *core) flowFault(err error, now time.Time) {
	if c.lastFlowFault.Swap(max(1, c.moment(now))) == 0 {
		c.log.Error("this host is out of resources; UDP datagrams of new clients are dropped until that is over", "err", err)
	}
}

// flowWorks notes that a flow was begun.
func (c *core) flowWorks(now time.Time) {
	last := c.lastFlowFault.Load()
	if last == 0 || c.moment(now)-last < int64(faultForgiven) {
		return
	}
	if c.lastFlowFault.CompareAndSwap(last, 0) {
		c.log.Info("this host has resources again; UDP datagrams of new clients are forwarded")
	}
}

// appendLine appends the line of a flow that has ended to the connection log.
// The format is described with the package.
func (f *flow) appendLine(dst []byte, why reason, now time.Time) []byte {
	dst = append(dst, `{"time":"`...)
	dst = f.begun.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	dst = append(dst, `","protocol":"udp","client":"`...)
	dst = f.client.AppendTo(dst)
	dst = append(dst, `","listener":"`...)
	dst = append(dst, f.listener.text...)
	dst = append(dst, `","service":`...)
	dst = append(dst, f.service.json...)
	dst = append(dst, `,"backend":"`...)
	dst = append(dst, f.backend.text...)
	dst = append(dst, `","duration_ms":`...)
	dst = appendMilliseconds(dst, now.Sub(f.begun))
	for d, name := range [...]string{in: "in", out: "out"} {
		dst = append(dst, `,"packets_`...)
		dst = append(dst, name...)
		dst = append(dst, `":`...)
		dst = strconv.AppendUint(dst, f.packets[d], 10)
		dst = append(dst, `,"bytes_`...)
		dst = append(dst, name...)
		dst = append(dst, `":`...)
		dst = strconv.AppendUint(dst, f.bytes[d], 10)
	}
	dst = append(dst, `,"reason":"`...)
	dst = append(dst, why.String()...)
	dst = append(dst, `","generation":`...)
	dst = strconv.AppendUint(dst, f.generation, 10)
	dst = append(dst, `,"fail_open":`...)
	dst = strconv.AppendBool(dst, f.failOpen)
	return append(dst, '}', '\n')
}
