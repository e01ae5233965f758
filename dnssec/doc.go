// Package dnssec keeps the keys that zones are signed with, as files in the
// format of BIND: K<zone>.+<algorithm>+<tag>.key holds the DNSKEY record and
// K<zone>.+<algorithm>+<tag>.private, which only its owner may read, the
// private key and the times at which the key begins and ends to do what it
// does. The tools of BIND, ldns and Knot read and write them too.
//
// A key is a combined signing key (CSK, RFC 9364 section 2): it signs the keys
// of the zone and everything else, and the parent zone has a DS record of it.
package dnssec
