// Package e2e tests elbow, the program, in a cluster: with a real
// kube-apiserver, a real etcd, the real controller of EndpointSlices and the
// real kubectl, all of them compiled from the Kubernetes modules into the test
// program. There is no kubelet: the tests write what it would write, the status
// of nodes and pods, and a pod is an HTTP server.
//
// Everything lives in a network namespace of its own, in which the addresses of
// the original cluster are local: the master has 172.31.15.86 and the Elastic IP
// 54.93.167.95, nodes are in 172.31.8.0/24 and pods in 10.244.0.0/16.
//
// It is a module of its own, so that nothing of this is a dependency of elbow.
// The first build takes minutes:
//
//	go -C e2e test ./...
package e2e
