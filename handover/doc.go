// Package handover replaces the running program by a new one without closing a
// socket: the new one is started as a child, is given the listening sockets
// and whatever documents describe the state, and takes over once it says that
// it serves. Until then the old one has lost nothing and can go on.
//
// # The conversation
//
// The two talk over a socketpair, in packets of one byte that says what it
// is and at most maxPayload bytes:
//
//	new: prepared              it has read its configuration
//	old: sockets, documents    as many packets as needed
//	old: all given
//	new: ready                 it serves
//	old: leaving               it does not accept any more; only now may the
//	                           new one close what it does not need
//
// At any point the new one may say why it gives up, or just end: [Successor]
// returns an error and the old one goes on. The old one bounds each wait by a
// context and kills what is late. Neither trusts the other with memory: sizes
// and counts are bounded.
//
// # What is shared
//
// A descriptor that was passed (SCM_RIGHTS, unix(7)) names the same open file
// description. So both accept from one queue, and nobody who is connected but
// not yet accepted is lost when the old one closes its descriptor; a socket that
// is closed and bound anew would reset all of them, with SO_REUSEPORT too. It
// also means that O_NONBLOCK is shared and must never be cleared, that
// shutdown(2) would end the listening of both, and that closing a descriptor does not
// take it out of an epoll: see epoll(7), questions and answers, 6.
package handover
