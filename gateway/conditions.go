package gateway

import (
	"slices"
	"time"
	"unicode/utf8"
)

// A Condition is one aspect of the state of an object.
type Condition struct {
	Type       string    `json:"type"`
	Status     string    `json:"status"` // True, False or Unknown
	Observed   int64     `json:"observedGeneration,omitempty"`
	Transition time.Time `json:"lastTransitionTime"` // when Status last changed
	Reason     string    `json:"reason"`
	Message    string    `json:"message"`
}

// The conditions that are written.
const (
	accepted         = "Accepted"
	programmed       = "Programmed"
	resolvedRefs     = "ResolvedRefs"
	conflicted       = "Conflicted"
	partiallyInvalid = "PartiallyInvalid"
)

// The reasons of the specification that are used. Some bear the name of the
// condition for which they are the good one.
const (
	addressNotAssigned    = "AddressNotAssigned"
	addressNotUsable      = "AddressNotUsable"
	backendNotFound       = "BackendNotFound"
	hostnameConflict      = "HostnameConflict"
	invalid               = "Invalid"
	invalidKind           = "InvalidKind"
	invalidParameters     = "InvalidParameters"
	invalidRouteKinds     = "InvalidRouteKinds"
	listenersNotValid     = "ListenersNotValid"
	noConflicts           = "NoConflicts"
	noMatchingHostname    = "NoMatchingListenerHostname"
	noMatchingParent      = "NoMatchingParent"
	noResources           = "NoResources"
	notAllowedByListeners = "NotAllowedByListeners"
	pending               = "Pending"
	portUnavailable       = "PortUnavailable"
	protocolConflict      = "ProtocolConflict"
	refNotPermitted       = "RefNotPermitted"
	unsupportedAddress    = "UnsupportedAddress"
	unsupportedProtocol   = "UnsupportedProtocol"
	unsupportedValue      = "UnsupportedValue"
)

// conflictedRoute is a reason of our own, as the specification has none for a
// route whose listeners and names all are an older one's.
const conflictedRoute = conflicted

const (
	conditionTrue  = "True"
	conditionFalse = "False"
)

// maxMessage bounds a message, in bytes; the API takes 32768.
const maxMessage = 1024

// A verdict is what a condition says. The zero value says nothing.
type verdict struct {
	reason, message string
}

func (v verdict) said() bool { return v.reason != "" }

// yes and no are a condition that is true or false.
func yes(kind, reason, message string) Condition {
	return Condition{Type: kind, Status: conditionTrue, Reason: reason, Message: message}
}

func no(kind string, why verdict) Condition {
	return Condition{Type: kind, Status: conditionFalse, Reason: why.reason, Message: why.message}
}

// or returns yes for a verdict that says nothing, else no.
func (v verdict) or(kind string, good Condition) Condition {
	if v.said() {
		return no(kind, v)
	}
	return good
}

// settle returns the conditions that are there once those in said hold too, of
// an object of that generation. What is not ours stays as it is; what was said
// of a newer generation stays as well. A condition's time is that of its last
// change between True and False.
func settle(there, said []Condition, generation int64, now time.Time) []Condition {
	out := slices.Clone(there)
	for _, c := range said {
		c.Observed, c.Transition = generation, now.UTC().Truncate(time.Second)
		c.Message = cut(c.Message)
		i := slices.IndexFunc(out, func(o Condition) bool { return o.Type == c.Type })
		switch {
		case i < 0:
			out = append(out, c)
			continue
		case out[i].Observed > generation:
			continue
		case out[i].Status == c.Status:
			c.Transition = out[i].Transition
		}
		out[i] = c
	}
	return out
}

// cut returns no more of a message than is read.
func cut(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	n := maxMessage - len("…")
	for !utf8.RuneStart(message[n]) {
		n--
	}
	return message[:n] + "…"
}

// without returns the conditions that are not of that type.
func without(there []Condition, kind string) []Condition {
	return slices.DeleteFunc(slices.Clone(there), func(c Condition) bool { return c.Type == kind })
}

// sameConditions compares times as times.
func sameConditions(a, b []Condition) bool {
	return slices.EqualFunc(a, b, func(a, b Condition) bool {
		same := a.Transition.Equal(b.Transition)
		a.Transition, b.Transition = time.Time{}, time.Time{}
		return same && a == b
	})
}
