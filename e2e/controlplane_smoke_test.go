package e2e

import (
	"testing"
)

func TestControlPlane(t *testing.T) {
	p := newControlPlane(t)
	p.controlEndpointSlices()
	t.Log(p.kubectl("version"))
	t.Log(p.kubectl("get", "ns,svc"))
}
