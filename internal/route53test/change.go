package route53test

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

type changeInfo struct {
	Id          string
	Status      string
	SubmittedAt string
}

// change carries out a batch, all of it or nothing.
func (s *Server) change(w http.ResponseWriter, body []byte, id string, lost bool) {
	var request struct {
		XMLName xml.Name `xml:"https://route53.amazonaws.com/doc/2013-04-01/ ChangeResourceRecordSetsRequest"`
		Batch   struct {
			Comment string
			Changes []struct {
				Action string
				Set    Set `xml:"ResourceRecordSet"`
			} `xml:"Changes>Change"`
		} `xml:"ChangeBatch"`
	}
	z := s.byID(w, id)
	if z == nil {
		return
	}
	if err := xml.Unmarshal(body, &request); err != nil {
		fail(w, http.StatusBadRequest, "MalformedInput", err.Error())
		return
	}
	var wrong []string
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if len(request.Batch.Changes) == 0 {
		fail(w, http.StatusBadRequest, "InvalidInput", "1 validation error detected: Value '[]' at 'changeBatch.changes' failed to satisfy constraint")
		return
	}
	next := slices.Clone(z.sets)
	records := 0
	for _, c := range request.Batch.Changes {
		set := c.Set
		at := slices.IndexFunc(next, func(o Set) bool { return o.key() == set.key() })
		if why := set.wrong(z); why != "" {
			complain("%s", why)
			continue
		}
		records += len(set.Records)
		switch c.Action {
		case "CREATE":
			if at >= 0 {
				complain("Tried to create resource record set [name='%s', type='%s'] but it already exists", set.Name, set.Type)
				continue
			}
			next = append(next, set)
		case "UPSERT":
			if at >= 0 {
				next = slices.Delete(next, at, at+1)
			}
			next = append(next, set)
		case "DELETE":
			switch {
			case at < 0:
				complain("Tried to delete resource record set [name='%s', type='%s'] but it was not found", set.Name, set.Type)
			case !next[at].same(&set):
				complain("Tried to delete resource record set [name='%s', type='%s'] but the values provided do not match the current values", set.Name, set.Type)
			default:
				next = slices.Delete(next, at, at+1)
			}
		default:
			complain("%s is no action", c.Action)
		}
	}
	for _, a := range next {
		if a.Type == "CNAME" && slices.ContainsFunc(next, func(b Set) bool { return b.Name == a.Name && b.Type != "CNAME" }) {
			complain("RRSet of type CNAME with DNS name %s is not permitted as other records exist with the same DNS name", a.Name)
		}
	}
	if records > 1000 {
		complain("Number of records limit of 1000 exceeded.")
	}
	if len(wrong) > 0 {
		refuse(w, wrong)
		return
	}
	z.sets = next
	change := fmt.Sprintf("C%d", len(s.changes)+1)
	s.changes[change] = s.pending
	if lost {
		panic(http.ErrAbortHandler)
	}
	type response struct {
		XMLName    xml.Name `xml:"https://route53.amazonaws.com/doc/2013-04-01/ ChangeResourceRecordSetsResponse"`
		ChangeInfo changeInfo
	}
	answer(w, response{ChangeInfo: changeInfo{"/change/" + change, "PENDING", time.Now().UTC().Format(time.RFC3339)}})
}

func (s *Server) getChange(w http.ResponseWriter, id string) {
	left, ok := s.changes[id]
	if !ok {
		fail(w, http.StatusNotFound, "NoSuchChange", "Could not find resource with ID: "+id)
		return
	}
	type response struct {
		XMLName    xml.Name `xml:"https://route53.amazonaws.com/doc/2013-04-01/ GetChangeResponse"`
		ChangeInfo changeInfo
	}
	status := "INSYNC"
	if left > 0 {
		status = "PENDING"
		s.changes[id] = left - 1
	}
	answer(w, response{ChangeInfo: changeInfo{"/change/" + id, status, time.Now().UTC().Format(time.RFC3339)}})
}

// wrong says what a set has that Route 53 does not take; empty: nothing.
func (s *Set) wrong(z *zone) string {
	name := strings.ToLower(s.Name)
	switch {
	case !dns.IsSubDomain(z.name, name):
		return fmt.Sprintf("RRSet with DNS name %s is not permitted in zone %s", s.Name, z.name)
	case name == z.name && (s.Type == "NS" || s.Type == "SOA"):
		return fmt.Sprintf("A HostedZone must contain exactly one %s record for the zone itself", s.Type)
	case s.Alias == nil && (s.TTL == nil || len(s.Records) == 0):
		return fmt.Sprintf("Invalid request: Expected exactly one of [AliasTarget, all of [TTL, and ResourceRecords], or TrafficPolicyInstanceId], but found none in Change with [Name=%s, Type=%s]", s.Name, s.Type)
	}
	seen := make(map[string]bool)
	for _, record := range s.Records {
		r := record.Value
		if seen[r] {
			return fmt.Sprintf("Duplicate Resource Record: '%s'", r)
		}
		seen[r] = true
		rr, err := dns.NewRR(fmt.Sprintf("%s %d IN %s %s", s.Name, *s.TTL, s.Type, r))
		if err != nil || rr == nil {
			return fmt.Sprintf("Invalid Resource Record: '%s' is not a valid %s", r, s.Type)
		}
	}
	return ""
}
