// Package route53test is a Route 53 for tests: it speaks the wire protocol over
// HTTP, and is as strict as the real one where that matters. Batches are atomic, a
// DELETE must say exactly what is there, and a change is PENDING for a while.
package route53test

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// The credentials that a [Server] accepts.
const (
	KeyID  = "AKIDROUTE53TEST00000"
	Secret = "secret/of+route53test/that/nobody/may/see"
)

// A Fault is something that goes wrong, once, with the next request of an operation.
type Fault uint8

const (
	Throttle      Fault = iota // 400 Throttling
	Busy                       // 400 PriorRequestNotComplete
	Denied                     // 403 AccessDenied
	Broken                     // 500
	Lost                       // the connection is cut before anything is done
	LostAnswer                 // the connection is cut when it is done
	BatchInError               // 400 InvalidChangeBatch as an ErrorResponse
	BatchMessages              // 400 InvalidChangeBatch with Messages
)

// A Server is the API of one account. Its methods may be called at any time.
type Server struct {
	URL string

	http *httptest.Server
	t    testing.TB

	mu      sync.Mutex
	zones   []*zone
	faults  map[string][]Fault // by operation
	log     []string           // operations
	changes map[string]int     // how often each is still PENDING
	pending int
	page    int
}

type zone struct {
	id, name string // the name with the final dot
	private  bool
	sets     []Set
}

// A Set is a record set as it is on the wire.
type Set struct {
	Name          string   `xml:"Name"`
	Type          string   `xml:"Type"`
	SetIdentifier string   `xml:"SetIdentifier,omitempty"`
	Weight        *int     `xml:"Weight,omitempty"`
	TTL           *int     `xml:"TTL,omitempty"`
	Records       []Record `xml:"ResourceRecords>ResourceRecord,omitempty"`
	Alias         *Alias   `xml:"AliasTarget,omitempty"`
}

// A Record is one value of a set.
type Record struct{ Value string }

// An Alias is the target of one.
type Alias struct {
	HostedZoneId         string
	DNSName              string
	EvaluateTargetHealth bool
}

// New runs a Server until the test ends.
func New(t testing.TB) *Server {
	s := &Server{t: t, faults: make(map[string][]Fault), changes: make(map[string]int), page: 3}
	s.http = httptest.NewServer(s)
	s.URL = s.http.URL
	t.Cleanup(s.http.Close)
	return s
}

// AddZone makes a hosted zone, with the NS and SOA that it is born with and
// these records in presentation format.
func (s *Server) AddZone(id, name string, private bool, records ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	z := &zone{id: id, name: dns.Fqdn(name), private: private}
	s.zones = append(s.zones, z)
	born := []string{
		z.name + " 172800 IN NS ns-1.awsdns-01.org.",
		z.name + " 900 IN SOA ns-1.awsdns-01.org. awsdns-hostmaster.amazon.com. 1 7200 900 1209600 86400",
	}
	for _, r := range append(born, records...) {
		z.add(s.t, r)
	}
}

// Put puts a record, in presentation format, into a zone.
func (s *Server) Put(id, record string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone(id).add(s.t, record)
}

// PutSet puts a set into a zone, in the place of one with its name and type.
func (s *Server) PutSet(id string, set Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	z := s.zone(id)
	z.sets = slices.DeleteFunc(z.sets, func(o Set) bool { return o.key() == set.key() })
	z.sets = append(z.sets, set)
}

// Drop takes a set out of a zone, as somebody else would.
func (s *Server) Drop(id, name, typ string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	z := s.zone(id)
	before := len(z.sets)
	z.sets = slices.DeleteFunc(z.sets, func(o Set) bool { return o.Name == dns.Fqdn(name) && o.Type == typ })
	if len(z.sets) == before {
		s.t.Errorf("there is no %s %s in %s", name, typ, id)
	}
}

// Records returns what is in a zone at and below a name, in presentation format,
// sorted.
func (s *Server) Records(id, name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, set := range s.zone(id).sets {
		if dns.IsSubDomain(dns.Fqdn(name), set.Name) {
			for _, r := range set.Records {
				out = append(out, fmt.Sprintf("%s %d %s %s", set.Name, *set.TTL, set.Type, r.Value))
			}
			if set.Alias != nil {
				out = append(out, fmt.Sprintf("%s %s alias %s", set.Name, set.Type, set.Alias.DNSName))
			}
		}
	}
	slices.Sort(out)
	return out
}

// Fail has the next requests of an operation fail, each in one way.
func (s *Server) Fail(operation string, faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[operation] = append(s.faults[operation], faults...)
}

// Pending sets how often a change is still PENDING when it is looked at.
func (s *Server) Pending(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = n
}

// Log returns the operations since it was last called.
func (s *Server) Log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.log
	s.log = nil
	return out
}

func (s *Server) zone(id string) *zone {
	for _, z := range s.zones {
		if z.id == id {
			return z
		}
	}
	s.t.Fatalf("there is no hosted zone %s", id)
	return nil
}

func (z *zone) add(t testing.TB, record string) {
	rr, err := dns.NewRR(record)
	if err != nil {
		t.Fatal(err)
	}
	h := rr.Header()
	value := strings.TrimPrefix(rr.String(), h.String())
	for i, set := range z.sets {
		if set.Name == h.Name && set.Type == dns.TypeToString[h.Rrtype] {
			z.sets[i].Records = append(z.sets[i].Records, Record{value})
			return
		}
	}
	ttl := int(h.Ttl)
	z.sets = append(z.sets, Set{Name: h.Name, Type: dns.TypeToString[h.Rrtype], TTL: &ttl, Records: []Record{{value}}})
}

func (s *Set) key() string { return strings.ToLower(s.Name) + " " + s.Type + " " + s.SetIdentifier }

// same reports whether a DELETE that says o means s.
func (s *Set) same(o *Set) bool {
	if (s.TTL == nil) != (o.TTL == nil) || s.TTL != nil && *s.TTL != *o.TTL || (s.Alias == nil) != (o.Alias == nil) {
		return false
	}
	byValue := func(a, b Record) int { return cmp.Compare(a.Value, b.Value) }
	return slices.Equal(slices.SortedFunc(slices.Values(s.Records), byValue), slices.SortedFunc(slices.Values(o.Records), byValue))
}

// sortKey is the order of ListResourceRecordSets: the labels from the right.
func (s *Set) sortKey() string { return sortName(s.Name) + " " + s.Type }

func sortName(name string) string {
	labels := dns.SplitDomainName(name)
	slices.Reverse(labels)
	return strings.ToLower(strings.Join(labels, ".")) + "."
}

// ServeHTTP is one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/2013-04-01/")
	parts := strings.Split(strings.Trim(path, "/"), "/")
	operation := ""
	switch {
	case ok && r.Method == "GET" && parts[0] == "hostedzonesbyname":
		operation = "ListHostedZonesByName"
	case ok && r.Method == "GET" && len(parts) == 3 && parts[0] == "hostedzone" && parts[2] == "rrset":
		operation = "ListResourceRecordSets"
	case ok && r.Method == "POST" && len(parts) == 3 && parts[0] == "hostedzone" && parts[2] == "rrset":
		operation = "ChangeResourceRecordSets"
	case ok && r.Method == "GET" && len(parts) == 2 && parts[0] == "change":
		operation = "GetChange"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, operation)
	if operation == "" {
		s.t.Errorf("%s %s is no request that Route 53 knows", r.Method, r.URL)
		fail(w, http.StatusBadRequest, "InvalidAction", "what?")
		return
	}
	if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential="+KeyID+"/") {
		fail(w, http.StatusForbidden, "InvalidClientTokenId", "The security token included in the request is invalid.")
		return
	}
	fault := Fault(255)
	if q := s.faults[operation]; len(q) > 0 {
		fault, s.faults[operation] = q[0], q[1:]
	}
	switch fault {
	case Throttle:
		fail(w, http.StatusBadRequest, "Throttling", "Rate exceeded")
		return
	case Busy:
		fail(w, http.StatusBadRequest, "PriorRequestNotComplete", "The request was rejected because Route 53 was still processing a prior request.")
		return
	case Denied:
		fail(w, http.StatusForbidden, "AccessDenied", "User: arn:aws:iam::123456789012:user/elbow is not authorized to perform: route53:"+operation+
			" on resource: arn:aws:route53:::hostedzone/Z1 because no identity-based policy allows the route53:"+operation+" action")
		return
	case Broken:
		fail(w, http.StatusInternalServerError, "InternalFailure", "")
		return
	case Lost:
		panic(http.ErrAbortHandler)
	case BatchInError:
		fail(w, http.StatusBadRequest, "InvalidChangeBatch", "[Tried to create resource record set [name='x.', type='NS'] but it already exists]")
		return
	case BatchMessages:
		refuse(w, []string{"first message", "second message"})
		return
	}
	switch operation {
	case "ListHostedZonesByName":
		s.listZones(w, r)
	case "ListResourceRecordSets":
		s.listSets(w, r, parts[1])
	case "ChangeResourceRecordSets":
		s.change(w, body, parts[1], fault == LostAnswer)
	case "GetChange":
		s.getChange(w, parts[1])
	}
}

const namespace = "https://route53.amazonaws.com/doc/2013-04-01/"

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "text/xml")
	_, _ = io.WriteString(w, xml.Header)
	if err := xml.NewEncoder(w).Encode(v); err != nil {
		panic(err) // of the tests
	}
}

func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0"?><ErrorResponse xmlns="%s"><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>0-0-0</RequestId></ErrorResponse>`,
		namespace, code, escape(message))
}

func refuse(w http.ResponseWriter, messages []string) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(http.StatusBadRequest)
	fmt.Fprintf(w, `<?xml version="1.0"?><InvalidChangeBatch xmlns="%s"><Messages>`, namespace)
	for _, m := range messages {
		fmt.Fprintf(w, "<Message>%s</Message>", escape(m))
	}
	fmt.Fprint(w, "</Messages><RequestId>0-0-0</RequestId></InvalidChangeBatch>")
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}

type hostedZone struct {
	Id              string
	Name            string
	CallerReference string
	Config          struct{ PrivateZone bool }
}

func (s *Server) listZones(w http.ResponseWriter, r *http.Request) {
	type response struct {
		XMLName     xml.Name     `xml:"https://route53.amazonaws.com/doc/2013-04-01/ ListHostedZonesByNameResponse"`
		HostedZones []hostedZone `xml:"HostedZones>HostedZone"`
		IsTruncated bool
		MaxItems    string
	}
	from := sortName(r.URL.Query().Get("dnsname"))
	out := response{MaxItems: "100"}
	slices.SortStableFunc(s.zones, func(a, b *zone) int { return cmp.Compare(sortName(a.name), sortName(b.name)) })
	for _, z := range s.zones {
		if sortName(z.name) >= from {
			h := hostedZone{Id: "/hostedzone/" + z.id, Name: z.name, CallerReference: z.id}
			h.Config.PrivateZone = z.private
			out.HostedZones = append(out.HostedZones, h)
		}
	}
	answer(w, out)
}

func (s *Server) byID(w http.ResponseWriter, id string) *zone {
	for _, z := range s.zones {
		if z.id == id {
			return z
		}
	}
	fail(w, http.StatusNotFound, "NoSuchHostedZone", "No hosted zone found with ID: "+id)
	return nil
}

func (s *Server) listSets(w http.ResponseWriter, r *http.Request, id string) {
	type response struct {
		XMLName        xml.Name `xml:"https://route53.amazonaws.com/doc/2013-04-01/ ListResourceRecordSetsResponse"`
		Sets           []Set    `xml:"ResourceRecordSets>ResourceRecordSet"`
		IsTruncated    bool
		MaxItems       string
		NextRecordName string `xml:",omitempty"`
		NextRecordType string `xml:",omitempty"`
	}
	z := s.byID(w, id)
	if z == nil {
		return
	}
	q := r.URL.Query()
	if q.Has("type") && !q.Has("name") {
		fail(w, http.StatusBadRequest, "InvalidInput", "a type without a name")
		return
	}
	from := sortName(q.Get("name")) + " " + q.Get("type")
	if !q.Has("name") {
		from = ""
	}
	sets := slices.Clone(z.sets)
	slices.SortFunc(sets, func(a, b Set) int { return cmp.Compare(a.sortKey(), b.sortKey()) })
	sets = slices.DeleteFunc(sets, func(s Set) bool { return s.sortKey() < from })
	out := response{MaxItems: "3", Sets: sets}
	if len(sets) > s.page { // a few at a time, so that every list is more than one page
		next := sets[s.page]
		out.Sets, out.IsTruncated, out.NextRecordName, out.NextRecordType = sets[:s.page], true, next.Name, next.Type
	}
	answer(w, out)
}
