// Package health decides which backends are well and publishes that verdict as
// a [pool.Table]. It is the only writer of the Table.
//
// # What speaks for a state
//
// Every (endpoint address, [pool.Probe]) is probed by one goroutine, however
// many services ask for it. Its results run through a state machine that is a
// pure function (verdict.go): `rise` successes in a row bring a backend up,
// `fall` failures in a row take it down, and the very first result after the
// start or the appearance of an endpoint decides alone.
//
// # Why a single failed connect makes a backend suspect
//
// A failed connect of real traffic is better evidence than any probe, but
// there is only one of it: the backend may have restarted, or one segment of
// a path may have lost one packet. Taking the backend down for that would let
// a single client's bad luck remove capacity; waiting for `fall` probes would
// let every client run into a dead server for seconds. So the first failure
// counts as one failed result, a probe is sent at once, and until that probe
// has decided the backend is suspect: it keeps its state but is passed over as
// long as another one is well. A suspicion costs nothing when it was wrong and
// saves every later connection when it was right. Further failures during the
// same suspicion say nothing new and are only counted; otherwise the number of
// clients, and not the state of the server, would decide how fast it falls.
// Services that share a probe share what it found and what their traffic met.
//
// # Which verdict wins
//
// From the strongest: forced down, draining, forced up, the probes' own.
// Forced down is an order that nobody goes there, so it beats everything. A
// drain is a promise that the machine may be switched off at its end, which a
// forced-up of the same backend must not break. What is overruled goes on
// underneath and is back in force as soon as the order ends.
//
// # When everything is down
//
// This package reports what it found and no more: that a service is served
// from backends that are down because none is well (fail-open) follows in
// package pool from [pool.WhenAllDown]. The reason for the default `all`: when
// every single backend of a service fails its probe at once, the probe, its
// network or this host is more often broken than all the servers are, and a
// connection that is tried and fails costs little more than one refused. An
// order of an operator is not overruled by it.
package health
