package loadbalancer

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// storeName is the name of the Services in the Store.
const storeName = "loadbalancers"

// saved is the form in the Store: the Services as the API server has them, so far
// as they matter, and what was made of each.
type saved struct {
	Services []savedService `json:"services"`
}

type savedService struct {
	Service *corev1.Service `json:"service"`
	Class   string          `json:"class"`
	Names   []string        `json:"names"`
}

// load returns what the last process has left. It is in force until the cluster
// says something else. What cannot be read costs no start.
func (c *Controller) load() map[types.UID]*service {
	out := make(map[types.UID]*service)
	if c.Store == nil {
		return out
	}
	var s saved
	if _, err := c.Store.Load(storeName, &s); err != nil {
		c.Log.Warn("starting without the Services that were fulfilled", "err", err)
		return out
	}
	for _, one := range s.Services {
		if one.Service != nil && one.Service.UID != "" {
			out[one.Service.UID] = &service{object: one.Service, class: one.Class, names: one.Names, told: make(map[problem]bool)}
		}
	}
	return out
}

// save keeps what is in force for the next process.
func (l *loop) save(all []*service) {
	if l.Store == nil {
		return
	}
	s := saved{Services: make([]savedService, 0, len(all))}
	for _, one := range all {
		s.Services = append(s.Services, savedService{one.object, one.class, one.names})
	}
	if err := l.Store.Save(storeName, s); err != nil {
		l.Log.Warn("the Services that are fulfilled will not outlive a restart", "err", err)
	}
}
