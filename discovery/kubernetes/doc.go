// Package kubernetes finds endpoints in a Kubernetes cluster.
//
// A [Cluster] is one connection to an API server. The sources that are made
// of it share informers: one for each kind of object, namespace and selector,
// started when the first source asks for it and stopped with the last. So a
// cluster is asked for nothing that no source needs, and that is what its
// RBAC rules have to allow (list and watch):
//
//	Pods, via podIP        pods in the namespace
//	Pods, via hostPort     pods in the namespace; nodes
//	Service, via podIP     services, endpointslices in the namespace
//	Service, via nodePort  services, endpointslices in the namespace; nodes
//	Balanced               services in all namespaces
//	Gateways               services, namespaces and the resources of the Gateway API
//
// What an object becomes is a pure function: podEndpoints, serviceEndpoints.
//
// # When the API server is gone
//
// An informer keeps what it knows, and asks again with a growing pause of at
// most five seconds. Its sources say what is wrong and deliver nothing, so
// that the last good sets stay in force; how old they are, the status shows.
// Once it is back, the objects are compared with those that were known and
// the sources deliver what has become of them, in one step.
//
// While all is well, a source delivers its set again every few seconds, whether
// it has changed or not: it is as fresh as the connection, and not as old as
// the last change.
package kubernetes
