package gateway

import (
	"cmp"
	"encoding/json"
	"strings"
	"time"
)

// Group is the API group of all that is here.
const Group = "gateway.networking.k8s.io"

// What of the API is used, in its own words and JSON. Fields that may be left
// out are pointers where the empty value means something else.

// A Name names an object.
type Name struct{ Namespace, Name string }

func (n Name) String() string {
	if n.Namespace == "" {
		return n.Name
	}
	return n.Namespace + "/" + n.Name
}

// Meta is the metadata of an object.
type Meta struct {
	Namespace       string            `json:"namespace,omitempty"`
	Name            string            `json:"name"`
	UID             string            `json:"uid,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Generation      int64             `json:"generation,omitempty"`
	Created         time.Time         `json:"creationTimestamp"`
	Deleted         bool              `json:"-"` // it only waits for its finalizers
	Annotations     map[string]string `json:"annotations,omitempty"`
}

func (m *Meta) name() Name { return Name{m.Namespace, m.Name} }

// older orders objects by precedence: the older first, then by name.
func older(a, b *Meta) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// An Object is one of the API.
type Object[Spec, Status any] struct {
	Meta   `json:"metadata"`
	Spec   Spec   `json:"spec"`
	Status Status `json:"status"`
}

// Class is a GatewayClass.
type Class = Object[ClassSpec, ClassStatus]

// ClassSpec is that of a GatewayClass.
type ClassSpec struct {
	ControllerName string           `json:"controllerName"`
	ParametersRef  *json.RawMessage `json:"parametersRef,omitempty"`
}

// ClassStatus is that of a GatewayClass.
type ClassStatus struct {
	Conditions []Condition `json:"conditions"`
}

// Gateway is a Gateway.
type Gateway = Object[GatewaySpec, GatewayStatus]

// GatewaySpec is that of a Gateway.
type GatewaySpec struct {
	ClassName      string          `json:"gatewayClassName"`
	Listeners      []Listener      `json:"listeners"`
	Addresses      []Address       `json:"addresses,omitempty"`
	Infrastructure *Infrastructure `json:"infrastructure,omitempty"`
}

// Infrastructure is what a Gateway asks for that is not in its listeners.
type Infrastructure struct {
	ParametersRef *json.RawMessage `json:"parametersRef,omitempty"`
}

// A Listener is one of a Gateway.
type Listener struct {
	Name          string         `json:"name"`
	Hostname      string         `json:"hostname,omitempty"`
	Port          int32          `json:"port"`
	Protocol      string         `json:"protocol"`
	TLS           *ListenerTLS   `json:"tls,omitempty"`
	AllowedRoutes *AllowedRoutes `json:"allowedRoutes,omitempty"`
}

// ListenerTLS says who ends TLS.
type ListenerTLS struct {
	Mode string `json:"mode,omitempty"`
}

// AllowedRoutes says which routes may attach to a listener.
type AllowedRoutes struct {
	Namespaces *RouteNamespaces `json:"namespaces,omitempty"`
	Kinds      []GroupKind      `json:"kinds,omitempty"`
}

// RouteNamespaces says in which namespaces they are.
type RouteNamespaces struct {
	From     string    `json:"from,omitempty"`
	Selector *Selector `json:"selector,omitempty"`
}

// A Selector selects objects by labels.
type Selector struct {
	MatchLabels      map[string]string `json:"matchLabels,omitempty"`
	MatchExpressions []struct {
		Key      string   `json:"key"`
		Operator string   `json:"operator"`
		Values   []string `json:"values,omitempty"`
	} `json:"matchExpressions,omitempty"`
}

// A GroupKind is a kind of route.
type GroupKind struct {
	Group *string `json:"group,omitempty"` // nil: Group
	Kind  string  `json:"kind"`
}

// An Address is one at which a Gateway is reached.
type Address struct {
	Type  *string `json:"type,omitempty"` // nil: IPAddress
	Value string  `json:"value,omitempty"`
}

// GatewayStatus is that of a Gateway.
type GatewayStatus struct {
	Addresses  []Address        `json:"addresses"`
	Conditions []Condition      `json:"conditions"`
	Listeners  []ListenerStatus `json:"listeners"`
}

// ListenerStatus is that of a listener.
type ListenerStatus struct {
	Name           string      `json:"name"`
	SupportedKinds []GroupKind `json:"supportedKinds"`
	AttachedRoutes int32       `json:"attachedRoutes"`
	Conditions     []Condition `json:"conditions"`
}

// A Route is a TCPRoute or a TLSRoute.
type Route struct {
	Kind string // TCPRoute or TLSRoute
	Object[RouteSpec, RouteStatus]
}

// The kinds of routes.
const (
	TCPRoute = "TCPRoute"
	TLSRoute = "TLSRoute"
)

// RouteSpec is that of a Route.
type RouteSpec struct {
	ParentRefs []ParentRef `json:"parentRefs,omitempty"`
	Hostnames  []string    `json:"hostnames,omitempty"` // of a TLSRoute
	Rules      []Rule      `json:"rules"`
}

// A ParentRef says what a route wants to attach to.
type ParentRef struct {
	Group       *string `json:"group,omitempty"`     // nil: Group
	Kind        *string `json:"kind,omitempty"`      // nil: Gateway
	Namespace   *string `json:"namespace,omitempty"` // nil: the route's
	Name        string  `json:"name"`
	SectionName *string `json:"sectionName,omitempty"` // a listener; nil: any
	Port        *int32  `json:"port,omitempty"`        // of a listener; nil: any
}

// gateway returns the name of the Gateway that r is about; false: it is about
// something else.
func (r *ParentRef) gateway(of *Route) (Name, bool) {
	if or(r.Group, Group) != Group || or(r.Kind, "Gateway") != "Gateway" {
		return Name{}, false
	}
	return Name{or(r.Namespace, of.Namespace), r.Name}, true
}

// same reports whether r and other are the same reference.
func (r *ParentRef) same(other *ParentRef) bool {
	return equal(r.Group, other.Group) && equal(r.Kind, other.Kind) && equal(r.Namespace, other.Namespace) &&
		r.Name == other.Name && equal(r.SectionName, other.SectionName) && equal(r.Port, other.Port)
}

// A Rule says where connections go.
type Rule struct {
	BackendRefs []BackendRef `json:"backendRefs,omitempty"`
}

// A BackendRef is a Service that serves, and its share.
type BackendRef struct {
	Group     *string `json:"group,omitempty"`     // nil: the core group
	Kind      *string `json:"kind,omitempty"`      // nil: Service
	Namespace *string `json:"namespace,omitempty"` // nil: the route's
	Name      string  `json:"name"`
	Port      *int32  `json:"port,omitempty"`
	Weight    *int32  `json:"weight,omitempty"` // nil: 1
}

// RouteStatus is that of a route.
type RouteStatus struct {
	Parents []ParentStatus `json:"parents"`
}

// ParentStatus is the status of a route at one parent.
type ParentStatus struct {
	ParentRef      ParentRef   `json:"parentRef"`
	ControllerName string      `json:"controllerName"`
	Conditions     []Condition `json:"conditions"`

	raw string // as it was read
}

// UnmarshalJSON keeps the text: what is another controller's is written as it was.
func (p *ParentStatus) UnmarshalJSON(text []byte) error {
	type plain ParentStatus
	var read plain
	if err := json.Unmarshal(text, &read); err != nil {
		return err
	}
	*p = ParentStatus(read)
	p.raw = string(text)
	return nil
}

// MarshalJSON writes it as it was read, if it was.
func (p ParentStatus) MarshalJSON() ([]byte, error) {
	if p.raw != "" {
		return []byte(p.raw), nil
	}
	type plain ParentStatus
	return json.Marshal(plain(p))
}

// Grant is a ReferenceGrant: in its namespace, what is named in To may be
// referred to by what is named in From.
type Grant = Object[GrantSpec, struct{}]

// GrantSpec is that of a ReferenceGrant.
type GrantSpec struct {
	From []struct {
		Group     string `json:"group"`
		Kind      string `json:"kind"`
		Namespace string `json:"namespace"`
	} `json:"from"`
	To []struct {
		Group string  `json:"group"`
		Kind  string  `json:"kind"`
		Name  *string `json:"name,omitempty"` // nil: all of them
	} `json:"to"`
}

// A Service is what must be known of one to refer to it.
type Service struct {
	Name
	Ports []Port
	Alias bool   // for a name elsewhere (type ExternalName): it has no endpoints
	Via   string // podIP or nodePort: how its endpoints are to be reached; else: by its port
}

// A Port is one of a Service.
type Port struct {
	Number   int32
	Protocol string // empty: TCP
	Node     bool   // every node has a port for it
}

func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func equal[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// String returns k as it is called in messages.
func (k GroupKind) String() string {
	if g := or(k.Group, Group); g != Group {
		return strings.TrimPrefix(g+"/"+k.Kind, "/")
	}
	return k.Kind
}
