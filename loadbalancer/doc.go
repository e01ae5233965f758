// Package loadbalancer fulfils the Services of type LoadBalancer of a cluster: each
// of our class becomes services of this host, one for each port, and is told when
// it can be reached and where.
//
// # The way
//
// A [Controller] follows the Services. What one asks for, [read] makes of it, a
// pure function: the services of this host, and what is wrong with the request.
// They are handed on behind those of the configuration, the older Service before
// the younger, and the catalog settles who has what (package discovery).
//
// Once a listener accepts and the name is answered, the Service's status says so;
// before a Service may go, its listeners are closed. What is to be written,
// [decide] makes of a Service and of what the host does for it, again a pure
// function. Nothing here is in the way of a connection or an answer: while the API
// server is away, what was asked for last stays in force, over a restart too.
package loadbalancer
