// Package chaos tests what elbow does when things break: servers that are
// killed or hang, hosts that go dark, resets, readers that are slow, a host that
// runs out of descriptors or ports, changes under load. It is behind the build
// tag chaos:
//
//	go test -tags chaos -parallel 40 ./chaos
//
// It needs Linux, root and ip (Debian: iproute2). Clients, elbow and backends
// live in network namespaces of their own, which have no name, touch nothing of
// the host's network and go with the processes in them. The tests mostly
// wait, so they all run at the same time, which takes a minute and a half.
//
// Every test accounts for all bytes and all sessions in the end: what one
// side has sent is what the other has received, each session is logged once and
// for the right reason, and elbow holds no more descriptors and goroutines than
// it did before.
package chaos
