// Package gateway decides what the Gateway API asks of elbow, and what is said
// of it: GatewayClasses, Gateways, TCPRoutes and TLSRoutes go in, services to
// offer and status to write come out. It is pure: it reads no cluster, opens no
// port and knows no Kubernetes library.
//
// [Decide] makes a [Wish] of each listener or, for TLS, of each route at a
// listener. Whether a wish comes true others decide, as services of the
// configuration may have the same port. With what became of the wishes
// [Decision.Status] says what is to be written. So a listener is Programmed when
// it accepts connections, not when somebody means that it soon will.
//
// # What is supported
//
//	TCP                    TCPRoute; the port is the listener's alone
//	TLS, mode Passthrough  TLSRoute; told apart by server name
//	all else               the listener is not accepted: nothing here ends TLS or reads HTTP
//
// Where the specification leaves a choice: of two routes that ask for the same
// the older has it, then the first by namespace and name, and the other is not
// accepted (reason Conflicted). Gateways share ports where their TLS listeners
// are told apart by name. The share of a backend that does not exist goes to the
// others of its rule.
package gateway
