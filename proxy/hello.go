package proxy

import "haslohas.com/elbow/pool"

// maxHello bounds what is looked at of a client's first bytes.
const maxHello = 16 << 10

// An outcome is what a look at the client's first bytes has brought.
type outcome uint8

const (
	unfinished outcome = iota // it takes more bytes to tell
	understood                // a hello, complete as far as it matters
	foreign                   // not this protocol
	malformed                 // this protocol, against its rules or longer than what is looked at
)

// parseHello reads what the client says first, TLS or HTTP. The hello it
// returns lies in data, which is overwritten where a ClientHello comes in
// several records. It is set if the outcome is understood.
func parseHello(data []byte) (pool.Hello, outcome) {
	if len(data) == 0 {
		return pool.Hello{}, unfinished
	}
	if data[0] == recordHandshake {
		return parseClientHello(data)
	}
	return parseRequest(data)
}
