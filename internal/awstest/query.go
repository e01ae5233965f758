package awstest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	version   = "2016-11-15"
	namespace = "http://ec2.amazonaws.com/doc/" + version + "/"
)

// ServeHTTP speaks the Query protocol of EC2: a form by POST, an answer in XML.
func (c *Cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // the client is gone
	}
	call, out, err := c.serve(r, body)
	if errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler) // closes the connection
	}
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	if err != nil {
		e, ok := errors.AsType[*apiError](err)
		if !ok {
			e = &apiError{500, "InternalError", err.Error()}
		}
		w.WriteHeader(e.status)
		fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors><RequestID>%d</RequestID></Response>",
			escape(e.code), escape(e.message), len(c.Calls()))
		return
	}
	fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<%[1]sResponse xmlns=\"%[2]s\"><requestId>%[3]d</requestId>%[4]s</%[1]sResponse>",
		call.Action, namespace, len(c.Calls()), out)
}

func (c *Cloud) serve(r *http.Request, body []byte) (Call, string, error) {
	if r.Method != http.MethodPost || r.URL.Path != "/" || r.URL.RawQuery != "" {
		return Call{}, "", refuse("InvalidRequest", "%s %s is not POST /", r.Method, r.URL)
	}
	if t := r.Header.Get("Content-Type"); t != "application/x-www-form-urlencoded" {
		return Call{}, "", refuse("InvalidRequest", "content type %q", t)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return Call{}, "", refuse("InvalidRequest", "the form: %v", err)
	}
	call := Call{Action: form.Get("Action"), At: time.Now(), Form: make(map[string]string)}
	for key, values := range form {
		if len(values) != 1 {
			return call, "", refuse("InvalidParameterValue", "%s stands there %d times", key, len(values))
		}
		if key != "Action" && key != "Version" {
			call.Form[key] = values[0]
		}
	}
	if v := form.Get("Version"); v != version {
		return call, "", refuse("InvalidParameterValue", "version %q", v)
	}
	call.Key, err = c.checkSignature(r, body)
	if err != nil {
		return call, "", err
	}
	c.mu.Lock()
	c.calls = append(c.calls, call)
	c.mu.Unlock()

	var fault Fault
	if c.Fault != nil {
		fault = c.Fault(call)
	}
	// A call that is late is carried out even if the client has given up.
	time.Sleep(fault.Delay)
	switch {
	case fault.Drop:
		return call, "", http.ErrAbortHandler
	case fault.Status != 0:
		return call, "", &apiError{fault.Status, fault.Code, fault.Message}
	case fault.Pretend:
		return call, "<return>true</return><associationId>eipassoc-pretended</associationId>", nil
	}
	out, err := c.do(call)
	time.Sleep(fault.Late)
	return call, out, err
}

func (c *Cloud) do(call Call) (string, error) {
	p := &params{left: call.Form}
	c.mu.Lock()
	defer c.mu.Unlock()
	var out string
	var err error
	switch call.Action {
	case "DescribeAddresses":
		out, err = c.describeAddresses(p)
	case "AssociateAddress":
		out, err = c.associateAddress(p)
	case "DescribeInstances":
		out, err = c.describeInstances(p)
	default:
		err = refuse("InvalidAction", "The action %s is not valid for this web service.", call.Action)
	}
	return out, err
}

var authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/ec2/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=[0-9a-f]{64}$`)

// checkSignature makes the signature anew and compares (Signature Version 4).
func (c *Cloud) checkSignature(r *http.Request, body []byte) (key string, err error) {
	got := r.Header.Get("Authorization")
	m := authorization.FindStringSubmatch(got)
	if m == nil {
		return "", &apiError{401, "AuthFailure", "AWS was not able to validate the provided access credentials"}
	}
	key = m[1]
	c.mu.Lock()
	secret, known := c.secrets[key]
	c.mu.Unlock()
	if key == AccessKey {
		secret, known = SecretKey, true
	}
	if !known {
		return key, &apiError{401, "AuthFailure", "AWS was not able to validate the provided access credentials"}
	}
	if m[3] != Region {
		return key, refuse("AuthFailure", "Credential should be scoped to a valid region.")
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		return key, refuse("AuthFailure", "the date: %v", err)
	}
	again, err := http.NewRequestWithContext(context.Background(), r.Method, "http://"+r.Host+"/", bytes.NewReader(body))
	if err != nil {
		return key, err
	}
	for name := range strings.SplitSeq(m[4], ";") {
		switch name {
		case "host", "content-length", "x-amz-date", "x-amz-security-token":
		default:
			again.Header.Set(name, r.Header.Get(name))
		}
	}
	sum := sha256.Sum256(body)
	creds := aws.Credentials{AccessKeyID: key, SecretAccessKey: secret, SessionToken: r.Header.Get("X-Amz-Security-Token")}
	if err := v4.NewSigner().SignHTTP(context.Background(), creds, again, hex.EncodeToString(sum[:]), "ec2", m[3], at); err != nil {
		return key, err
	}
	if again.Header.Get("Authorization") != got {
		return key, &apiError{403, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided."}
	}
	return key, nil
}

// params are the parameters of a call that nobody has looked at yet.
type params struct{ left map[string]string }

func (p *params) take(key string) string {
	v := p.left[key]
	delete(p.left, key)
	return v
}

// list takes NAME.1, NAME.2 and so on.
func (p *params) list(name string) []string {
	var out []string
	for i := 1; ; i++ {
		v, ok := p.left[name+"."+strconv.Itoa(i)]
		if !ok {
			return out
		}
		out = append(out, v)
		delete(p.left, name+"."+strconv.Itoa(i))
	}
}

type filter struct {
	name   string
	values []string
}

func (p *params) filters() []filter {
	var out []filter
	for i := 1; ; i++ {
		at := "Filter." + strconv.Itoa(i)
		name := p.take(at + ".Name")
		if name == "" {
			return out
		}
		out = append(out, filter{name, p.list(at + ".Value")})
	}
}

// done refuses parameters that nobody knows.
func (p *params) done() error {
	for key := range p.left {
		return refuse("UnknownParameter", "The parameter %s is not recognized", key)
	}
	return nil
}

func (c *Cloud) describeAddresses(p *params) (string, error) {
	ids, filters := p.list("AllocationId"), p.filters()
	if err := p.done(); err != nil {
		return "", err
	}
	for _, id := range ids {
		if !slices.ContainsFunc(c.addresses, func(a Address) bool { return a.Allocation == id }) {
			return "", refuse("InvalidAllocationID.NotFound", "The allocation ID '%s' does not exist", id)
		}
	}
	var out strings.Builder
	out.WriteString("<addressesSet>")
	for _, a := range c.addresses {
		fits := len(ids) == 0 || slices.Contains(ids, a.Allocation)
		for _, f := range filters {
			switch f.name {
			case "public-ip":
				fits = fits && slices.Contains(f.values, a.Public.String())
			case "instance-id":
				fits = fits && slices.Contains(f.values, a.Instance)
			default:
				return "", refuse("InvalidParameterValue", "The filter '%s' is invalid", f.name)
			}
		}
		if !fits {
			continue
		}
		fmt.Fprintf(&out, "<item><publicIp>%s</publicIp><allocationId>%s</allocationId><domain>vpc</domain>", a.Public, a.Allocation)
		if a.Instance != "" {
			fmt.Fprintf(&out, "<instanceId>%s</instanceId><associationId>eipassoc-%d</associationId>", a.Instance, c.moves)
		}
		out.WriteString("</item>")
	}
	out.WriteString("</addressesSet>")
	return out.String(), nil
}

func (c *Cloud) associateAddress(p *params) (string, error) {
	allocation, instance, allow := p.take("AllocationId"), p.take("InstanceId"), p.take("AllowReassociation")
	if err := p.done(); err != nil {
		return "", err
	}
	if err := c.associate(allocation, instance, allow == "true"); err != nil {
		return "", err
	}
	return fmt.Sprintf("<return>true</return><associationId>eipassoc-%d</associationId>", c.moves), nil
}

func (c *Cloud) describeInstances(p *params) (string, error) {
	filters := p.filters()
	token, size := 0, len(c.instances)
	if s := p.take("MaxResults"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 5 || n > 1000 {
			return "", refuse("InvalidParameterValue", "Value ( %s ) for parameter maxResults is invalid. Expecting a value between 5 and 1000.", s)
		}
		size = n
	}
	if c.PageSize > 0 {
		size = c.PageSize
	}
	if s := p.take("NextToken"); s != "" {
		n, err := strconv.Atoi(strings.TrimPrefix(s, "page-"))
		if err != nil || n > len(c.instances) {
			return "", refuse("InvalidParameterValue", "The token '%s' is invalid", s)
		}
		token = n
	}
	if err := p.done(); err != nil {
		return "", err
	}
	var out strings.Builder
	out.WriteString("<reservationSet>")
	end := min(token+size, len(c.instances))
	for _, i := range c.instances[token:end] {
		ok, err := c.matches(i, filters)
		if err != nil {
			return "", err
		}
		if ok {
			fmt.Fprintf(&out, "<item><reservationId>r-%s</reservationId><instancesSet>%s</instancesSet></item>", i.ID, c.xml(i))
		}
	}
	out.WriteString("</reservationSet>")
	if end < len(c.instances) {
		fmt.Fprintf(&out, "<nextToken>page-%d</nextToken>", end)
	}
	return out.String(), nil
}

func (c *Cloud) matches(i Instance, filters []filter) (bool, error) {
	for _, f := range filters {
		tag, isTag := strings.CutPrefix(f.name, "tag:")
		var ok bool
		switch {
		case isTag:
			v, has := i.Tags[tag]
			ok = has && slices.Contains(f.values, v)
		case f.name == "instance-state-name":
			ok = slices.Contains(f.values, i.State)
		case f.name == "vpc-id":
			ok = slices.Contains(f.values, i.VPC)
		default:
			return false, refuse("InvalidParameterValue", "The filter '%s' is invalid", f.name)
		}
		if !ok {
			return false, nil
		}
	}
	return true, nil
}

// stateCodes are the numbers of instance states.
var stateCodes = map[string]int{"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}

func (c *Cloud) xml(i Instance) string {
	var out strings.Builder
	fmt.Fprintf(&out, "<item><instanceId>%s</instanceId><instanceState><code>%d</code><name>%s</name></instanceState>", i.ID, stateCodes[i.State], i.State)
	element := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&out, "<%s>%s</%[1]s>", name, escape(value))
		}
	}
	if i.Private.IsValid() {
		element("privateIpAddress", i.Private.String())
	}
	public := i.Public
	for _, a := range c.addresses {
		if a.Instance == i.ID {
			public = a.Public
		}
	}
	if public.IsValid() {
		element("ipAddress", public.String())
	}
	element("privateDnsName", i.DNS)
	element("vpcId", i.VPC)
	if i.Zone != "" {
		fmt.Fprintf(&out, "<placement><availabilityZone>%s</availabilityZone></placement>", escape(i.Zone))
	}
	out.WriteString("<tagSet>")
	for key, value := range i.Tags {
		fmt.Fprintf(&out, "<item><key>%s</key><value>%s</value></item>", escape(key), escape(value))
	}
	out.WriteString("</tagSet><networkInterfaceSet>")
	if len(i.IPv6) > 0 {
		out.WriteString("<item><ipv6AddressesSet>")
		for _, a := range i.IPv6 {
			fmt.Fprintf(&out, "<item><ipv6Address>%s</ipv6Address></item>", a)
		}
		out.WriteString("</ipv6AddressesSet></item>")
	}
	out.WriteString("</networkInterfaceSet></item>")
	return out.String()
}

func escape(s string) string {
	var out bytes.Buffer
	_ = xml.EscapeText(&out, []byte(s)) // a Buffer takes everything
	return out.String()
}
