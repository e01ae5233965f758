// Package delegation keeps the way from the parent zone to the zones of this
// elbow: in a hosted zone of Route 53 the NS records, the addresses of the name
// servers that lie inside (glue), and the DS records of signed zones.
//
// # Plan
//
// What must be there follows from the configuration ([Zone]); what is there the
// [Parent] lists. [Compare] makes a [Plan] of both, a pure function: the changes,
// and what stands in the way. Nothing that elbow has not written is changed or
// deleted, unless it is told to. What it has written it knows by a TXT record beside
// it, the marker (docs/decisions/0017-delegation.md).
//
// # Verify
//
// [Verifier] asks as a resolver does, without any right in the cloud: the servers
// of the parent zone, then the name servers they lead to. What is not as it must be
// is a [Finding] with a code, and what to do.
//
// [Keeper] does both from time to time, in the daemon.
package delegation
