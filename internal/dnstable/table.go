// Package dnstable reads tables of questions and what is answered to them, so
// that tests can put the same ones to several servers.
//
// A table is a text of sections. Each begins with a line in dashes:
//
//	-- zone example.test --
//	@ SOA ns hostmaster 1 7200 1800 1209600 600
//	-- signed zone secure.test --
//	@ SOA ns hostmaster 1 7200 1800 1209600 600
//	-- service web.example.test --
//	198.51.100.1
//	-- answers --
//	> www.example.test A
//	NOERROR aa
//	an www.example.test. 3600 IN A 192.0.2.80
//	! nsd: why it answers something else
//
// What stands before the first section is a comment, and so is a line of
// answers that begins with #. Cases are divided by blank lines. A line with !
// that belongs to no case is for the whole table.
package dnstable

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// A Table is what some zones and services answer.
type Table struct {
	Zones    []Zone
	Services []Service
	Cases    []Case

	// Others are servers that most of the table is not for, with the reason.
	Others map[string]string
}

// A Zone is the master file of a zone.
type Zone struct {
	Name, Text string
	Signed     bool // by one key for all, ECDSA P-256, with NSEC
}

// A Service is a hostname with the addresses it is answered with.
type Service struct {
	Hostname  string
	Addresses []string // empty: all backends are down
}

// A Case is a question with its answer.
type Case struct {
	Line   int
	Ask    string // see Question
	Answer string // as Text has it

	// Others are servers that answer something else, with the reason.
	Others map[string]string
}

// Parse reads a table.
func Parse(text string) (*Table, error) {
	t := &Table{Others: make(map[string]string)}
	var title string
	var body strings.Builder
	begun := 0
	end := func() error {
		kind, name, _ := strings.Cut(title, " ")
		switch kind {
		case "":
		case "zone":
			t.Zones = append(t.Zones, Zone{Name: name, Text: body.String()})
		case "signed":
			of, ok := strings.CutPrefix(name, "zone ")
			if !ok {
				return fmt.Errorf("line %d: section %q: want signed zone NAME", begun, title)
			}
			t.Zones = append(t.Zones, Zone{Name: of, Text: body.String(), Signed: true})
		case "service":
			t.Services = append(t.Services, Service{name, strings.Fields(body.String())})
		case "answers":
			return t.cases(body.String(), begun)
		default:
			return fmt.Errorf("line %d: section %q: want zone, signed zone, service or answers", begun, title)
		}
		return nil
	}
	line := 0
	for l := range strings.Lines(text) {
		line++
		head, ok := strings.CutPrefix(strings.TrimSpace(l), "-- ")
		head, closed := strings.CutSuffix(head, " --")
		if !ok || !closed {
			body.WriteString(l)
			continue
		}
		if err := end(); err != nil {
			return nil, err
		}
		title, begun = head, line
		body.Reset()
	}
	if err := end(); err != nil {
		return nil, err
	}
	if len(t.Cases) == 0 {
		return nil, errors.New("there is no question in it")
	}
	return t, nil
}

func (t *Table) cases(text string, line int) error {
	var c *Case
	for l := range strings.SplitSeq(text, "\n") {
		line++
		ask, asks := strings.CutPrefix(l, "> ")
		other, differs := strings.CutPrefix(l, "! ")
		switch {
		case l == "":
			c = nil
		case strings.HasPrefix(l, "#"):
		case asks:
			t.Cases = append(t.Cases, Case{Line: line, Ask: ask, Others: make(map[string]string)})
			c = &t.Cases[len(t.Cases)-1]
		case differs:
			names, why, ok := strings.Cut(other, ": ")
			if !ok {
				return fmt.Errorf("line %d: want ! SERVER: REASON", line)
			}
			others := t.Others
			if c != nil {
				others = c.Others
			}
			for name := range strings.FieldsSeq(names) {
				others[name] = why
			}
		case c == nil:
			return fmt.Errorf("line %d: %q belongs to no question", line, l)
		default:
			c.Answer += l + "\n"
		}
	}
	return nil
}

// Question makes the query of a line such as "www.example.com A class=CH", and
// tells whether it is to go by TCP. Its id is 4711. The options are class=,
// opcode=, qdcount= (the same question that many times), payload= (an OPT
// record), do, cd, rd, tcp.
func Question(line string) (m *dns.Msg, tcp bool, err error) {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return nil, false, fmt.Errorf("%q: want a name and a type", line)
	}
	typ, known := dns.StringToType[fields[1]]
	if number, ok := strings.CutPrefix(fields[1], "TYPE"); ok && !known {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return nil, false, fmt.Errorf("%q: %w", line, err)
		}
		typ, known = uint16(n), true
	}
	if !known {
		return nil, false, fmt.Errorf("%q: unknown type", line)
	}
	m = &dns.Msg{MsgHdr: dns.MsgHdr{Id: 4711}}
	question := dns.Question{Name: dns.Fqdn(fields[0]), Qtype: typ, Qclass: dns.ClassINET}
	count := 1
	for _, option := range fields[2:] {
		key, value, _ := strings.Cut(option, "=")
		n, err := strconv.Atoi(value)
		ok := err == nil
		switch key {
		case "class":
			question.Qclass, ok = dns.StringToClass[value]
		case "opcode":
			m.Opcode = n
		case "qdcount":
			count = n
		case "payload":
			edns(m).SetUDPSize(uint16(n))
		case "do":
			edns(m).SetDo()
			ok = true
		case "rd":
			m.RecursionDesired, ok = true, true
		case "cd":
			m.CheckingDisabled, ok = true, true
		case "tcp":
			tcp, ok = true, true
		default:
			ok = false
		}
		if !ok {
			return nil, false, fmt.Errorf("%q: option %q", line, option)
		}
	}
	for range count {
		m.Question = append(m.Question, question)
	}
	return m, tcp, nil
}

// edns is the OPT record of m, which has one from now on.
func edns(m *dns.Msg) *dns.OPT {
	if m.IsEdns0() == nil {
		m.SetEdns0(dns.DefaultMsgSize, false)
	}
	return m.IsEdns0()
}

// Text is a response as tables have it: the response code with the flags, then
// the records by section. An OPT record is left out, and of records that a signer
// makes what hangs on its keys and its clock.
func Text(m *dns.Msg) string {
	var b strings.Builder
	b.WriteString(dns.RcodeToString[m.Rcode])
	for _, f := range []struct {
		name string
		set  bool
	}{{"aa", m.Authoritative}, {"tc", m.Truncated}, {"rd", m.RecursionDesired}, {"ra", m.RecursionAvailable},
		{"ad", m.AuthenticatedData}, {"cd", m.CheckingDisabled}, {"z", m.Zero}} {
		if f.set {
			b.WriteString(" " + f.name)
		}
	}
	b.WriteByte('\n')
	for _, section := range []struct {
		name    string
		records []dns.RR
	}{{"an", m.Answer}, {"ns", m.Ns}, {"ar", m.Extra}} {
		for _, rr := range section.records {
			if rr.Header().Rrtype != dns.TypeOPT {
				fmt.Fprintf(&b, "%s %s\n", section.name, strings.ReplaceAll(record(rr), "\t", " "))
			}
		}
	}
	return b.String()
}

// record is rr without keys, key tags, digests, times and signatures.
func record(rr dns.RR) string {
	head := rr.Header().String()
	switch rr := rr.(type) {
	case *dns.RRSIG:
		return head + fmt.Sprint(dns.Type(rr.TypeCovered), rr.Algorithm, rr.Labels, rr.OrigTtl) + " " + rr.SignerName
	case *dns.DNSKEY:
		return head + fmt.Sprint(rr.Flags, rr.Protocol, rr.Algorithm)
	case *dns.CDNSKEY:
		return head + fmt.Sprint(rr.Flags, rr.Protocol, rr.Algorithm)
	case *dns.CDS:
		return head + fmt.Sprint(rr.Algorithm, rr.DigestType)
	}
	return rr.String()
}

// Essence is what servers that obey the same rules agree on of a Text: the
// response code, AA and TC, the answer, and the authority section where there is
// no answer, or its proofs. Left out are the order, the case of names, serials,
// the additional section but for the addresses that a referral is of no use
// without, and whether CDS and CDNSKEY are published.
func Essence(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	head := strings.Fields(lines[0])
	head = slices.DeleteFunc(head, func(flag string) bool { return slices.Contains([]string{"rd", "cd", "ra", "ad"}, flag) })
	referral := !slices.Contains(head, "aa") && strings.Contains(text, "\nns ") && !strings.Contains(text, "\nan ")
	answered := strings.Contains(text, "\nan ")
	var out []string
	for _, l := range lines[1:] {
		fields := strings.Fields(strings.ToLower(l))
		section, fields := fields[0], fields[1:]
		switch {
		case len(fields) < 4, section == "ar" && (!referral || fields[3] == "rrsig"):
			continue
		case section == "ns" && answered && head[0] == "NOERROR" && fields[3] != "nsec" && !strings.Contains(l, " RRSIG NSEC "):
			continue
		}
		switch fields[3] {
		case "soa":
			if len(fields) > 6 {
				fields[6] = "SERIAL"
			}
		case "nsec":
			fields = slices.DeleteFunc(fields, func(typ string) bool { return typ == "cds" || typ == "cdnskey" })
		}
		out = append(out, section+" "+strings.Join(fields, " "))
	}
	slices.Sort(out)
	return strings.Join(append([]string{strings.Join(head, " ")}, out...), "\n")
}
