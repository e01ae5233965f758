package kubernetes

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A Follower follows all objects of a kind, in all namespaces.
type Follower[T metav1.Object] struct {
	cluster *Cluster
	kind    *kind
}

// Balanced follows the Services. Of those that are not of type LoadBalancer and
// that no load balancer has held, it knows the name alone.
func (c *Cluster) Balanced() *Follower[*corev1.Service] {
	return &Follower[*corev1.Service]{c, kindBalanced}
}

// Run calls changed with all objects each time one of them has changed, and every
// five seconds; err says why they may be out of date. It is not called before the
// objects are known, but with an error. changed must not keep or change the
// objects' insides. Run returns nil when ctx is cancelled, or an error where there
// is no way to the cluster at all.
func (f *Follower[T]) Run(ctx context.Context, changed func(objects []T, err error)) error {
	session := f.cluster.open()
	defer session.close()
	if err := session.failure(); err != nil {
		return err
	}
	woken := make(chan struct{}, 1)
	informers := session.join([]interest{{kind: f.kind}}, woken)
	defer session.leave(informers, woken)
	again := time.NewTimer(untilFresh())
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-woken:
		case <-again.C:
			again.Reset(untilFresh())
		}
		if objects, ok, err := known[T](informers[0]); ok || err != nil {
			if !ok {
				objects = nil
			}
			changed(objects, err)
		}
	}
}
