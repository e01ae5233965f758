// Package acceptance tests elbow as its users meet it: the binary, real web
// servers, real clients. It takes longer than the other tests and is behind
// the build tag acceptance:
//
//	go test -tags acceptance ./acceptance
//
// It needs nginx and dig; with knotd or nsd it compares answers too, and with
// knotd, nsd and named together it follows the zone as secondaries do.
package acceptance
