package main

import (
	"errors"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"haslohas.com/elbow/internal/awstest"
	"haslohas.com/elbow/internal/route53test"
)

// startCloud starts what a script may use of AWS: a Route 53 at $ROUTE53 with the
// hosted zone haslohas.com, Z1, which $ROUTE53_KEY and $ROUTE53_SECRET open; an EC2 at
// $EC2, for $EC2_KEY and $EC2_SECRET, with two instances; and the metadata service
// of the first at $IMDS.
func startCloud(t *testing.T, env *testscript.Env) {
	zones := route53test.New(t)
	zones.AddZone("Z1", "haslohas.com", false, "www.haslohas.com. 300 IN A 192.0.2.80")
	env.Values["route53"] = zones
	cloud := &awstest.Cloud{}
	here := awstest.Instance{ID: "i-0123456789abcdef0", Private: netip.MustParseAddr("172.31.8.1"), Zone: "eu-central-1a"}
	cloud.AddInstance(here)
	cloud.AddInstance(awstest.Instance{ID: "i-0fedcba9876543210", Private: netip.MustParseAddr("172.31.8.2"), Zone: "eu-central-1b"})
	cloud.AddAddress(awstest.Address{Allocation: "eipalloc-0123456789abcdef0", Public: netip.MustParseAddr("54.93.167.95"), Instance: "i-0fedcba9876543210"})
	ec2, metadata := httptest.NewServer(cloud), httptest.NewServer(awstest.Metadata(here))
	env.Defer(ec2.Close)
	env.Defer(metadata.Close)
	for name, value := range map[string]string{
		"ROUTE53":        zones.URL,
		"ROUTE53_KEY":    route53test.KeyID,
		"ROUTE53_SECRET": route53test.Secret,
		"EC2":            ec2.URL,
		"EC2_KEY":        awstest.AccessKey,
		"EC2_SECRET":     awstest.SecretKey,
		"IMDS":           metadata.URL,
	} {
		env.Setenv(name, value)
	}
}

// route53 changes what is in the hosted zone: put RECORD, or drop NAME TYPE; or has an
// operation be denied: deny OPERATION.
func route53(ts *testscript.TestScript, neg bool, args []string) {
	zones, _ := ts.Value("route53").(*route53test.Server)
	switch {
	case !neg && len(args) > 1 && args[0] == "put":
		zones.Put("Z1", strings.Join(args[1:], " "))
	case !neg && len(args) == 3 && args[0] == "drop":
		zones.Drop("Z1", args[1], args[2])
	case !neg && len(args) == 2 && args[0] == "deny":
		zones.Fail(args[1], route53test.Denied)
	default:
		ts.Fatalf("usage: route53 put RECORD | drop NAME TYPE | deny OPERATION")
	}
}

// exits runs a command, which must end with that status. What it printed is added to
// the file said.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND [ARG ...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		got = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	said, err := os.OpenFile(ts.MkAbs("said"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	_, err = said.WriteString(ts.ReadFile("stdout") + ts.ReadFile("stderr"))
	ts.Check(errors.Join(err, said.Close()))
	if got != want {
		ts.Fatalf("the status is %d, want %d", got, want)
	}
}

// hides fails where a file holds one of the secrets that the other arguments are.
func hides(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: hides FILE SECRET ...")
	}
	text := ts.ReadFile(args[0])
	if slices.ContainsFunc(args[1:], func(secret string) bool { return strings.Contains(text, secret) }) {
		ts.Fatalf("%s holds a secret:\n%s", args[0], text)
	}
}
