// Package pool is the domain of elbow: which services there are, which
// backends each of them has, how well those are, and every decision that
// follows from it.
//
// The package is pure. It opens no socket, reads no clock and writes no log;
// what it needs of time or chance is an argument. It imports the standard
// library alone and is imported by every other part.
//
// # The way of the data
//
// A [Set] says what ought to be served: the host's addresses, the zones, and
// the services with every endpoint that was found for them. Package discovery
// makes one whenever something changed. Package health turns it into a
// [Table]: the same services as [Pool] values, each endpoint now a [Backend]
// with a [State]. Every Table carries a generation number, is immutable and is
// handed out by a [Publisher]; the proxy reads it once per connection, the
// DNS server once per snapshot of answers, and so both always act on one
// verdict.
package pool
