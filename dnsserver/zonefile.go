package dnsserver

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

const (
	maxRecords  = 1_000_000 // of one zone
	maxFindings = 50        // after that many errors nobody reads on
	maxTTL      = math.MaxInt32
)

// A record is one resource record of class IN, its data in wire form and
// without compression.
type record struct {
	owner  name
	typ    uint16
	ttl    uint32
	data   []byte
	target name // that CNAME, DNAME, NS, MX and SRV point to
	line   int  // in the master file; 0: it comes from the configuration
}

// A finding is something wrong with a zone. A warning stops nothing.
type finding struct {
	file         string // empty: that of the zone
	line, column int
	message      string
	warning      bool
}

// readable sorts findings and leaves out what is too much to read, of errors
// and of warnings each.
func readable(findings []finding) []finding {
	slices.SortFunc(findings, func(a, b finding) int {
		return cmp.Or(a.line-b.line, a.column-b.column, strings.Compare(a.message, b.message))
	})
	var out []finding
	left := map[bool]int{false: maxFindings, true: maxFindings}
	for _, f := range findings {
		if left[f.warning]--; left[f.warning] >= 0 {
			out = append(out, f)
		}
	}
	for _, warning := range []bool{false, true} {
		if more := -left[warning]; more > 0 {
			out = append(out, finding{message: fmt.Sprintf("%d more of this kind", more), warning: warning})
		}
	}
	return out
}

// A zoneFile reads a master file record by record. miekg/dns reads the
// records; what it does not tell is on which line a record began, and it ends
// at the first error. So the text is first cut into entries, one for each
// record or directive, and reading goes on with the entry after a bad one.
type zoneFile struct {
	text    string
	entries []entry
	most    int    // records
	origin  string // where the entry at begun is read
	ttl     uint32 // there, for records without one
	begun   int    // where reading last began

	records  []record
	findings []finding
}

// An entry is a record or a directive with all its lines.
type entry struct {
	start, end int // in the text
	line       int
}

// parseZoneFile reads the text of a master file. Relative names belong to
// origin; ttl is for records without one; more than most records are an error.
func parseZoneFile(text string, origin name, ttl uint32, most int) ([]record, []finding) {
	if text != "" && text[len(text)-1] != '\n' {
		text += "\n"
	}
	f := &zoneFile{text: text, most: most, origin: origin.String(), ttl: ttl}
	f.split()
	for next := 0; next < len(f.entries) && len(f.findings) < maxFindings; {
		next = f.read(next)
	}
	return f.records, f.findings
}

func (f *zoneFile) fault(line, column int, format string, args ...any) {
	f.findings = append(f.findings, finding{line: line, column: max(1, column), message: fmt.Sprintf(format, args...)})
}

// split cuts the text into entries. It knows of the syntax what keeps a line
// end from ending an entry: parentheses and quotes.
func (f *zoneFile) split() {
	var (
		line         = 1
		e            = entry{line: 1}
		depth, opens int // parentheses, and the line of the outermost
		quote        int // the line of the open quote; 0: none
		comment      bool
		blank        = true // nothing but space and comments so far
	)
	for i := 0; i < len(f.text); i++ {
		c := f.text[i]
		switch {
		case c == '\n':
			line++
			if quote != 0 {
				continue
			}
			comment = false
			if depth > 0 {
				continue
			}
			if !blank {
				e.end = i + 1
				f.entries = append(f.entries, e)
			}
			e, blank = entry{start: i + 1, line: line}, true
		case comment:
		case c == '\\':
			blank = false
			if i+1 < len(f.text) && f.text[i+1] != '\n' {
				i++
			}
		case c == '"':
			blank = false
			if quote == 0 {
				quote = line
			} else {
				quote = 0
			}
		case quote != 0:
		case c == ';':
			comment = true
		case c == '(':
			blank = false
			if depth++; depth == 1 {
				opens = line
			}
		case c == ')':
			blank = false
			depth = max(0, depth-1)
		case c != ' ' && c != '\t' && c != '\r':
			blank = false
		}
	}
	// What is still open swallowed the rest of the file, which is not read.
	if quote != 0 {
		f.fault(quote, 1, "the quote that opens here is never closed")
	} else if depth > 0 {
		f.fault(opens, 1, "the parenthesis that opens here is never closed")
	}
}

// read reads entries from the given one on up to the first error and returns
// where to go on.
func (f *zoneFile) read(first int) int {
	// A parser begins anew after an error: it needs what the entries before have set.
	f.directives(f.entries[f.begun:first])
	f.begun = first
	from := f.entries[first].start
	last := f.entries[len(f.entries)-1].end
	r := &byteReader{text: f.text[from:last]}
	p := dns.NewZoneParser(r, f.origin, "")
	p.SetDefaultTTL(f.ttl)
	at := first
	for {
		rr, ok := p.Next()
		for at+1 < len(f.entries) && f.entries[at+1].start < from+r.at {
			at++
		}
		if !ok {
			break
		}
		line := f.entries[at].line
		if len(f.records) == f.most {
			f.fault(line, 1, "the zone has more than %d records", f.most)
			return len(f.entries)
		}
		rec, err := pack(rr)
		if err != nil {
			f.fault(line, 1, "%v", err)
			if len(f.findings) >= maxFindings {
				return len(f.entries)
			}
			continue
		}
		rec.line = line
		f.records = append(f.records, rec)
	}
	err := p.Err()
	if err == nil {
		return len(f.entries)
	}
	message, line, column := explainParse(err)
	if e := f.entries[at]; message != unexpectedNewline && strings.HasPrefix(strings.ToUpper(f.text[e.start:e.end]), "$GENERATE") {
		line, column = e.line, 1 // the place is one in the generated text
	} else {
		line += f.entries[first].line - 1
		for at > first && f.entries[at].line > line { // the parser looks a token ahead
			at--
		}
		line, column = f.place(f.entries[at], line, column, message)
	}
	f.fault(line, column, "%s", message)
	// Records that take their owner from the bad one would be taken for the owner before.
	for at++; at < len(f.entries) && strings.ContainsRune(" \t", rune(f.text[f.entries[at].start])); at++ {
	}
	return at
}

// directives takes over the $ORIGIN and $TTL of entries that were read.
func (f *zoneFile) directives(entries []entry) {
	for _, e := range entries {
		if f.text[e.start] != '$' {
			continue
		}
		fields := strings.Fields(f.text[e.start:e.end])
		if len(fields) < 2 {
			continue
		}
		switch strings.ToUpper(fields[0]) {
		case "$ORIGIN":
			origin := fields[1]
			if !dns.IsFqdn(origin) {
				origin += "." + strings.TrimPrefix(f.origin, ".")
			}
			if _, ok := dns.IsDomainName(origin); ok {
				f.origin = origin
			}
		case "$TTL":
			// A record without data tells how the parser reads the time.
			if rr, err := dns.NewRR("$TTL " + fields[1] + "\n. TXT x"); err == nil && rr != nil {
				f.ttl = rr.Header().Ttl
			}
		}
	}
}

// place returns where the token begins that an error of the entry is about. The
// parser tells where it had come to by then.
func (f *zoneFile) place(e entry, line, column int, message string) (int, int) {
	text := f.text[e.start:e.end]
	lines := strings.SplitAfter(text, "\n")
	at := min(line-e.line, len(lines)-1)
	read := 0
	for _, l := range lines[:at] {
		read += len(l)
	}
	read = min(read+column, len(text))
	token := parseToken.FindString(message)
	token, err := strconv.Unquote(token)
	if err != nil || token == "" || token == "\n" {
		return line, column
	}
	begin := strings.LastIndex(text[:read], token)
	if begin < 0 {
		return line, column
	}
	before := text[:begin]
	return e.line + strings.Count(before, "\n"), begin - strings.LastIndex(before, "\n")
}

// How miekg/dns ends the text of an error: with the token and the place.
var (
	parsePlace = regexp.MustCompile(` at line: (\d+):(\d+)$`)
	parseToken = regexp.MustCompile(`"(?:[^"\\]|\\.)*"$`)
)

// unexpectedNewline is the error that is found with the next line in sight.
const unexpectedNewline = `unexpected newline: "\n"`

// explainParse takes the text of a parse error apart.
func explainParse(err error) (message string, line, column int) {
	message = strings.TrimPrefix(err.Error(), "dns: ")
	if m := parsePlace.FindStringSubmatch(message); m != nil {
		message = strings.TrimSuffix(message, m[0])
		line, _ = strconv.Atoi(m[1])   // digits, and too many for an int do no harm
		column, _ = strconv.Atoi(m[2]) // as above
	}
	return message, line, column
}

// A byteReader tells how much was read of it.
type byteReader struct {
	text string
	at   int
}

func (r *byteReader) ReadByte() (byte, error) {
	if r.at == len(r.text) {
		return 0, io.EOF
	}
	r.at++
	return r.text[r.at-1], nil
}

// Read is there for the signature of the parser, which reads bytes.
func (r *byteReader) Read(p []byte) (int, error) {
	n := copy(p, r.text[r.at:])
	r.at += n
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// targetAt is where in the data of a type the name stands that it points to.
var targetAt = map[uint16]int{typeCNAME: 0, typeDNAME: 0, typeNS: 0, dns.TypeMX: 2, dns.TypeSRV: 6}

// dataLen is how long the data of a type is.
var dataLen = map[uint16]int{typeA: 4, typeAAAA: 16}

// pack turns a record into wire form. It accepts nothing that could not be
// answered to the letter.
func pack(rr dns.RR) (record, error) {
	h := rr.Header()
	kind := dns.Type(h.Rrtype).String()
	switch {
	case h.Name == "":
		return record{}, errors.New("the record has no owner and none stands before it")
	case h.Class != classIN:
		return record{}, fmt.Errorf("class %s: only IN is served", dns.Class(h.Class))
	case h.Rrtype == 0 || h.Rrtype == typeOPT || 249 <= h.Rrtype && h.Rrtype <= 255:
		return record{}, fmt.Errorf("%s is a type of questions, not of records", kind)
	case h.Rrtype == dns.TypeRRSIG || h.Rrtype == dns.TypeNSEC || h.Rrtype == dns.TypeNSEC3 || h.Rrtype == dns.TypeNSEC3PARAM:
		return record{}, fmt.Errorf("%s belongs to a signed zone, whose answers cannot follow the health of backends: load it unsigned, and sign it here with dnssec", kind)
	}
	owner, err := packName(h.Name)
	if err != nil {
		return record{}, fmt.Errorf("owner %s: %w", h.Name, err)
	}
	buf := make([]byte, dns.Len(rr)+2*maxName)
	end, err := dns.PackRR(rr, buf, 0, nil, false)
	if err == nil {
		_, _, err = dns.UnpackRR(buf[:end], 0)
	}
	if err != nil {
		return record{}, fmt.Errorf("%s record of %s: %w", kind, h.Name, err)
	}
	lower(owner)
	r := record{owner: name(owner), typ: h.Rrtype, ttl: min(h.Ttl, maxTTL), data: bytes.Clone(buf[len(owner)+10 : end])} // RFC 2181 section 8
	if want, known := dataLen[r.typ]; known && len(r.data) != want ||
		len(r.data) == 0 && dns.TypeToRR[r.typ] != nil && r.typ != dns.TypeAPL && r.typ != dns.TypeNULL {
		return record{}, fmt.Errorf("%s record of %s: the data is missing", kind, h.Name)
	}
	if at, points := targetAt[r.typ]; points {
		if at > len(r.data) || !wholeName(r.data[at:]) {
			return record{}, fmt.Errorf("%s record of %s: the data is no name", kind, h.Name)
		}
		target := bytes.Clone(r.data[at:])
		lower(target)
		r.target = name(target)
	}
	return r, nil
}
