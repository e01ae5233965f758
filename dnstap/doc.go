// Package dnstap writes what a DNS server is asked and answers in the form of
// dnstap.info: protocol buffers, encoded by an [Encoder], in a Frame Stream,
// the writing side of which is a [Stream].
//
// It knows the two messages of an authoritative server, AUTH_QUERY and
// AUTH_RESPONSE, and no others. They are a dozen fields, which is why they
// are written by hand: in the generated code every number is a pointer.
package dnstap
