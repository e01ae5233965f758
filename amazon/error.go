package amazon

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Kind says what there is to do about an [Error].
type Kind uint8

const (
	Other         Kind = iota // it stands in Text
	NoCredentials             // none were found
	BadCredentials
	Denied   // Action is not allowed
	Throttle // too many requests, the SDK's own attempts included
	Network  // nobody answered
	Outage   // AWS said that it is its own fault
	Rejected // the request is not as AWS wants it
)

// An Error is what AWS, or the way there, has against a request. It is one line,
// and has no secret in it.
type Error struct {
	Kind   Kind
	What   string // the operation, as in "listing hosted zones"
	Action string // as policies name it, as in route53:ListHostedZonesByName; empty: not known
	Code   string // of AWS; empty: none
	Text   string
	Cure   string // empty: Text has it
	Err    error  // of the SDK
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.What, e.Text)
	if e.Cure != "" {
		b.WriteString("; " + e.Cure)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether the same request may succeed later.
func (e *Error) Temporary() bool { return e.Kind == Throttle || e.Kind == Network || e.Kind == Outage }

var cures = [...]string{
	NoCredentials:  "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the instance a role (aws sts get-caller-identity shows who you are)",
	BadCredentials: "look with: aws sts get-caller-identity; after a change of keys, and where the clock of this host is wrong, they are not accepted",
	Throttle:       "others use up the rate of this account; try again in a minute",
	Network:        "is there a way to AWS, by HTTPS, from this host? aws.endpoint in the configuration names another one",
	Outage:         "try again in a minute; health.aws.amazon.com tells of outages",
	Rejected:       "",
}

// allowed is how AWS says which action was not.
var allowed = regexp.MustCompile(`not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)`)

// Explain turns an error of the SDK into an [Error]. What is the operation in
// words. The error of a context that has ended, and nil, stay what they are.
func Explain(what string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", what, context.Canceled)
	}
	e := &Error{What: what, Err: err}
	if op, ok := errors.AsType[*smithy.OperationError](err); ok {
		e.Action = prefixes[op.ServiceID] + ":" + op.OperationName
	}
	status := 0
	if r, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		status = r.HTTPStatusCode()
	}
	api, answered := errors.AsType[smithy.APIError](err)
	if answered {
		e.Code, e.Text = api.ErrorCode(), OneLine(api.ErrorMessage())
		if e.Text == "" {
			e.Text = e.Code
		}
	}
	_, unknownHost := errors.AsType[*net.DNSError](err)
	_, untrusted := errors.AsType[*x509.UnknownAuthorityError](err)
	_, exhausted := errors.AsType[*ratelimit.QuotaExceededError](err)
	_, unsent := errors.AsType[*smithyhttp.RequestSendError](err)
	switch {
	case noCredentials(err):
		e.Kind, e.Text = NoCredentials, "there are no credentials for AWS"
	case answered && denied[e.Code]:
		e.Kind = Denied
		if m := allowed.FindStringSubmatch(e.Text); m != nil {
			e.Action = m[1]
		}
		e.Cure = fmt.Sprintf("the policy of these credentials must allow %s (deploy/aws has policies)", e.Action)
		return e
	case answered && unaccepted[e.Code]:
		e.Kind = BadCredentials
		e.Text = "AWS does not accept the credentials: " + e.Text
	case answered && throttled(e.Code), exhausted:
		e.Kind = Throttle
		e.Text = "AWS answers that there are too many requests"
	case status >= 500:
		e.Kind = Outage
		e.Text = fmt.Sprintf("AWS answers with status %d: %s", status, firstOf(e.Text, "no reason given"))
	case answered:
		e.Kind = Rejected
	case unsent, unknownHost, untrusted, errors.Is(err, context.DeadlineExceeded):
		e.Kind, e.Text = Network, "AWS could not be asked: "+OneLine(innermost(err).Error())
	default:
		e.Text = OneLine(innermost(err).Error())
		return e
	}
	e.Cure = cures[e.Kind]
	return e
}

// prefixes are how policies name services, by the names of the SDK.
var prefixes = map[string]string{"Route 53": "route53", "EC2": "ec2", "STS": "sts"}

var denied = map[string]bool{"AccessDenied": true, "AccessDeniedException": true, "UnauthorizedOperation": true}

var unaccepted = map[string]bool{
	"InvalidClientTokenId": true, "SignatureDoesNotMatch": true, "ExpiredToken": true, "ExpiredTokenException": true,
	"RequestExpired": true, "AuthFailure": true, "UnrecognizedClientException": true, "IncompleteSignature": true,
	"MissingAuthenticationToken": true, "MissingAuthenticationTokenException": true, "OptInRequired": true,
}

func throttled(code string) bool {
	_, is := retry.DefaultThrottleErrorCodes[code]
	return is || code == "PriorRequestNotComplete"
}

// noCredentials reports whether the chain had none. The SDK has no type for
// that; it says in which step of a request it failed.
func noCredentials(err error) bool {
	s := err.Error()
	return strings.Contains(s, "get credentials:") || strings.Contains(s, "get identity:") ||
		strings.Contains(s, "failed to refresh cached credentials")
}

// innermost returns the first cause of err: what wraps it names the request, with
// its address and ID.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		if op, ok := err.(*net.OpError); ok { // it names the address
			return op
		}
		if dns, ok := err.(*net.DNSError); ok {
			return dns
		}
		err = next
	}
}

func firstOf(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// maxText bounds how much of what others say is repeated.
const maxText = 600

// OneLine is s without what would break a line or a terminal.
func OneLine(s string) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)), " ")
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}
