package proxy

import (
	"bytes"
	"strings"

	"haslohas.com/elbow/pool"
)

const (
	// maxRequestHead is how much of a request is looked at: its line and fields.
	maxRequestHead = 8 << 10
	// maxMethod is longer than any method there is.
	maxMethod = 32
)

// parseRequest reads the host that an HTTP/1 request is for (RFC 9112): that of
// its target, if that is in absolute form (section 3.2.2), else that of its
// field Host (section 3.2).
//
// What servers may read in different ways is malformed: two Host fields, a
// field that goes on in the next line, white space before a colon.
func parseRequest(data []byte) (pool.Hello, outcome) {
	head := data[:min(len(data), maxRequestHead)]
	// "A server SHOULD ignore at least one empty line (CRLF) received prior to
	// the request-line", section 2.2.
	if hasPrefix(head, "\r\n") {
		head = head[min(2, len(head)):]
	}
	target, rest, o := requestLine(head)
	if o != understood {
		if o == unfinished && len(data) >= maxRequestHead {
			o = malformed
		}
		return pool.Hello{}, o
	}
	host, found, o := hostField(rest)
	if o == unfinished && len(data) >= maxRequestHead {
		// Long fields, cookies as a rule. If there is a Host among those that
		// were seen, it must do.
		o = malformed
		if found {
			o = understood
		}
	}
	if o != understood {
		return pool.Hello{}, o
	}
	if authority, ok := authorityOf(target); ok {
		host = authority
	}
	name, ok := withoutPort(host)
	if !ok {
		return pool.Hello{}, malformed
	}
	return pool.Hello{Name: name}, understood
}

// requestLine takes the first line from head. It tells early what is no HTTP/1.
func requestLine(head []byte) (target, rest []byte, o outcome) {
	method := 0
	for method < len(head) && isToken(head[method]) {
		method++
	}
	switch {
	case method > maxMethod:
		return nil, nil, foreign
	case method == len(head):
		return nil, nil, unfinished
	case method == 0 || head[method] != ' ':
		return nil, nil, foreign
	}
	line, rest, ended := nextLine(head)
	if !ended {
		return nil, nil, unfinished
	}
	version := bytes.LastIndexByte(line, ' ') + 1
	v := line[version:]
	if version <= method+1 || len(v) != len("HTTP/1.1") || string(v[:7]) != "HTTP/1." || v[7] < '0' || v[7] > '9' {
		return nil, nil, foreign
	}
	target = line[method+1 : version-1]
	for _, c := range target {
		if c <= ' ' || c == 0x7f {
			return nil, nil, malformed
		}
	}
	if len(target) == 0 {
		return nil, nil, malformed
	}
	return target, rest, understood
}

// hostField returns the value of the field Host and whether there is one among
// those that rest begins with. It is understood once all fields were seen.
func hostField(rest []byte) (host []byte, found bool, o outcome) {
	for {
		line, after, ended := nextLine(rest)
		if !ended {
			return host, found, unfinished
		}
		if len(line) == 0 {
			return host, found, understood
		}
		name := 0
		for name < len(line) && isToken(line[name]) {
			name++
		}
		// No space before the colon (section 5.1), and none before the name,
		// which would make it a part of the line before (section 5.2).
		if name == 0 || name == len(line) || line[name] != ':' || bytes.IndexByte(line, '\r') >= 0 || bytes.IndexByte(line, 0) >= 0 {
			return nil, false, malformed
		}
		if isHost(line[:name]) {
			if found {
				return nil, false, malformed // section 3.2
			}
			host, found = bytes.Trim(line[name+1:], " \t"), true
		}
		rest = after
	}
}

func isHost(name []byte) bool {
	return len(name) == 4 && name[0]|0x20 == 'h' && name[1]|0x20 == 'o' && name[2]|0x20 == 's' && name[3]|0x20 == 't'
}

// nextLine takes a line from data. A line may end without CR, section 2.2.
func nextLine(data []byte) (line, rest []byte, ended bool) {
	i := bytes.IndexByte(data, '\n')
	if i < 0 {
		return data, nil, false
	}
	line, rest = data[:i], data[i+1:]
	if i > 0 && line[i-1] == '\r' {
		line = line[:i-1]
	}
	return line, rest, true
}

// authorityOf returns the authority of a target in absolute form.
func authorityOf(target []byte) (authority []byte, ok bool) {
	scheme := bytes.Index(target, []byte("://"))
	if scheme <= 0 || bytes.IndexByte(target[:scheme], '/') >= 0 {
		return nil, false
	}
	authority = target[scheme+3:]
	if end := bytes.IndexAny(authority, "/?#"); end >= 0 {
		authority = authority[:end]
	}
	return authority, true
}

// withoutPort returns the host of "host:port", an IPv6 address without its
// brackets (RFC 3986, section 3.2.2). It reports false for what is neither a
// name nor an address; an empty host is well.
func withoutPort(authority []byte) (host []byte, ok bool) {
	host, port := authority, []byte(nil)
	if len(host) > 0 && host[0] == '[' {
		end := bytes.IndexByte(host, ']')
		if end < 2 {
			return nil, false
		}
		host, port = host[1:end], host[end+1:]
		for _, c := range host {
			if !isHex(c) && c != ':' && c != '.' {
				return nil, false
			}
		}
	} else {
		if colon := bytes.IndexByte(host, ':'); colon >= 0 {
			host, port = host[:colon], host[colon:]
		}
		for _, c := range host {
			if !isRegName(c) {
				return nil, false
			}
		}
	}
	if len(port) > 0 && port[0] != ':' {
		return nil, false
	}
	for _, c := range port[min(1, len(port)):] {
		if c < '0' || c > '9' {
			return nil, false
		}
	}
	return host, true
}

func isHex(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// isToken reports whether c may be in a method or field name, RFC 9110 section 5.6.2.
func isToken(c byte) bool {
	return isLetter(c) || isDigit(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// isRegName reports whether c may be in a registered name, RFC 3986 section 3.2.2.
func isRegName(c byte) bool {
	return isLetter(c) || isDigit(c) || strings.IndexByte("-._~%!$&'()*+,;=", c) >= 0
}
