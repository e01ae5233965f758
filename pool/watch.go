package pool

// A QueryLog says which DNS queries are written down, a line of JSON each. The
// zero value: none.
type QueryLog struct {
	File   string // stdout, stderr or an absolute path; empty: there is no log
	Sample int    // one in so many is written, by chance; at least 1
}

// A Dnstap says who is sent DNS queries and responses in the form of
// dnstap.info. The zero value: nobody.
type Dnstap struct {
	Network   string // unix or tcp; empty: nobody is sent anything
	Address   string // a path, or an IP address and port
	Identity  string // what this server is called; empty: nothing is said
	Version   string // what its software is called; empty: the server's own
	Queries   bool   // AUTH_QUERY is sent
	Responses bool   // AUTH_RESPONSE is sent
	Sample    int    // one in so many queries, by chance; at least 1
}
