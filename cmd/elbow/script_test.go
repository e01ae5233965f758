package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, programs)
}

// TestScripts drives the binary as a user does: testdata/*.txtar. Each script
// has two web servers, at $A and $B, two with TLS, at $SA and $SB, two DNS
// servers, at $DNS_A and $DNS_B, that answer everything with their name and end
// at the command stopdns, an address that is free for UDP and TCP, $HOST and
// $PORT, and a control socket path, $SOCKET. Of AWS it has what startCloud
// says.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			for name, scheme := range map[string]string{"A": "http", "B": "http", "SA": "https", "SB": "https"} {
				s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					fmt.Fprintf(w, "this is %s, %s %s\n", name, scheme, r.Host)
				}))
				s.Config.ErrorLog = log.New(io.Discard, "", 0) // it says that probes end the handshake
				if scheme == "https" {
					s.StartTLS()
				} else {
					s.Start()
				}
				env.Defer(s.Close)
				env.Setenv(name, s.Listener.Addr().String())
			}
			for _, name := range []string{"A", "B"} {
				server, err := startNameServer(name)
				if err != nil {
					return err
				}
				env.Defer(server.stop)
				env.Setenv("DNS_"+name, server.address)
				env.Values[name] = server
			}
			startCloud(t, env)
			if err := setFreePort(env); err != nil {
				return err
			}
			// The path of a socket has room for 108 bytes; $WORK may be longer.
			dir, err := os.MkdirTemp("", "elbow")
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			env.Setenv("SOCKET", filepath.Join(dir, "sock"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"eventually": eventually,
			"stopdns":    stopNameServer,
			"fill":       fill,
			"route53":    route53,
			"exits":      exits,
			"hides":      hides,
		},
	})
}

// eventually runs a command again and again until it succeeds: with the
// pattern, if the first argument is one (/.../), in its output.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN COMMAND [ARG ...]")
	}
	var said string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		path, err := exec.LookPath(args[1])
		ts.Check(err)
		cmd := exec.Command(path, args[2:]...)
		cmd.Dir = ts.MkAbs(".")
		out, err := cmd.CombinedOutput()
		said = string(out)
		if err == nil && strings.Contains(said, args[0]) {
			return
		}
	}
	ts.Fatalf("%q was not seen; last:\n%s", args[0], said)
}

// fill replaces $NAME by the environment in files.
func fill(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: fill FILE ...")
	}
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o644))
	}
}
