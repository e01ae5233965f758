// Package controller does what the Gateways of a cluster ask for: package gateway
// decides it, here it is brought about. The objects are followed, what they ask for
// is handed on behind the services of the configuration, and what became of it is
// written into their status.
//
// Nothing here is in the way of a connection or an answer: while the API server is
// away, what was asked for last stays in force, over a restart too.
package controller
