package proxy

// A reason says why a connection ended. The texts are described with the
// package.
type reason uint8

const (
	goesOn reason = iota // it has not ended
	clientClosed
	backendClosed
	clientReset
	backendReset
	clientLost
	backendLost
	idleTimeout
	halfCloseTimeout
	drainTimeout
	shutdown
	answered
	moved
	listenerClosed
	connectFailed // from here on: it never reached a backend
	noBackend
	notAllowed
	overLimit
	queueFull
	queueTimeout
	proxyHeader
	noMatch
	localFault
	reasons // how many there are
)

var reasonTexts = [reasons]string{
	clientClosed:     "client-closed",
	backendClosed:    "backend-closed",
	clientReset:      "client-reset",
	backendReset:     "backend-reset",
	clientLost:       "client-lost",
	backendLost:      "backend-lost",
	idleTimeout:      "idle-timeout",
	halfCloseTimeout: "half-close-timeout",
	drainTimeout:     "drain-timeout",
	shutdown:         "shutdown",
	answered:         "answered",
	moved:            "moved",
	listenerClosed:   "listener-closed",
	connectFailed:    "connect-failed",
	noBackend:        "no-backend",
	notAllowed:       "not-allowed",
	overLimit:        "limit",
	queueFull:        "queue-full",
	queueTimeout:     "queue-timeout",
	proxyHeader:      "proxy-header",
	noMatch:          "no-match",
	localFault:       "local-fault",
}

func (r reason) String() string { return reasonTexts[r] }

// refused reports whether the proxy turned the connection away.
func (r reason) refused() bool { return r >= connectFailed }

// brokenBy is the reason of a connection that err on one side has broken:
// in is the client, out the backend.
func brokenBy(side direction, err error) reason {
	switch lost := isTimeout(err); {
	case side == out && lost:
		return backendLost
	case side == out:
		return backendReset
	case lost:
		return clientLost
	}
	return clientReset
}
