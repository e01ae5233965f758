//go:build acceptance

package acceptance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/internal/elbowtest"
)

// TestDnstapReaders: fstrm_capture, the reader of the people of Frame Streams,
// takes the stream to its end, and dnstap-ldns finds in it what was asked and
// answered.
func TestDnstapReaders(t *testing.T) {
	capture, err := exec.LookPath("fstrm_capture")
	if err != nil {
		t.Skip("fstrm_capture is not installed (Debian: fstrm-bin)")
	}
	decode, err := exec.LookPath("dnstap-ldns")
	if err != nil {
		t.Skip("dnstap-ldns is not installed (Debian: dnstap-ldns)")
	}
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			dir := t.TempDir()
			file, socket := filepath.Join(dir, "tap"), filepath.Join(dir, "tap.sock")
			port := freePorts(t, 1)[0]
			args, reader := []string{"-u", socket}, "unix:"+socket
			if network == "tcp" {
				args, reader = []string{"-a", "127.0.0.1", "-p", port}, "tcp:127.0.0.1:"+port
			}
			cmd := exec.Command(capture, append(args, "-t", "protobuf:dnstap.Dnstap", "-w", file)...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			t.Cleanup(func() { cmd.Process.Kill() })

			zone, err := filepath.Abs("testdata/example.org.zone")
			if err != nil {
				t.Fatal(err)
			}
			e := startElbow(t, `
host: {name: master}
stateDir: ""
admin: {listen: "ADMIN", socket: DIR/elbow.sock}
dns:
  listen: ["DNS"]
  rateLimit: {perSecond: 0}
  zones: [{name: example.org, file: `+zone+`}]
  dnstap: {socket: "`+reader+`", version: elbow under test}
`)
			elbowtest.Eventually(t, 20*time.Second, "the reader is found", func() bool { return e.Metric("elbow_dns_dnstap_connected") == 1 })
			var answers []*dns.Msg
			for i, c := range []struct {
				name, transport string
				qtype           uint16
			}{{"WwW.example.org.", "udp", dns.TypeA}, {"nothing.example.org.", "tcp", dns.TypeAAAA}, {"www.example.net.", "udp", dns.TypeMX}} {
				q := new(dns.Msg).SetQuestion(c.name, c.qtype)
				q.Id = uint16(1000 + i)
				a, _, err := (&dns.Client{Net: c.transport, Timeout: 2 * time.Second}).Exchange(q, e.dns)
				if err != nil {
					t.Fatal(err)
				}
				answers = append(answers, a)
			}
			elbowtest.Eventually(t, 5*time.Second, "all is sent", func() bool {
				return e.Metric(`elbow_dns_dnstap_messages_total{result="sent"}`) == float64(2*len(answers))
			})
			// A change of the configuration ends the stream in good order.
			e.configure(`
stateDir: ""
admin: {listen: "ADMIN", socket: DIR/elbow.sock}
dns:
  listen: ["DNS"]
  zones: [{name: example.org, file: ` + zone + `}]
`)
			elbowtest.Eventually(t, 5*time.Second, "the stream has ended", func() bool { return e.Metric("elbow_dns_dnstap_connected") == 0 })
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			<-ended // by a signal, or not: what counts is the file

			said, err := exec.Command(decode, "-y", "-r", file).CombinedOutput()
			if err != nil {
				t.Fatalf("dnstap-ldns: %v\n%s", err, said)
			}
			text := string(said)
			if n := strings.Count(text, "type: MESSAGE"); n != 2*len(answers) {
				t.Errorf("%d messages, want %d", n, 2*len(answers))
			}
			wants := []string{
				`identity: "master"`, `version: "elbow under test"`, "type: AUTH_QUERY", "type: AUTH_RESPONSE",
				"socket_family: INET", "socket_protocol: UDP", "socket_protocol: TCP", `query_address: "127.0.0.1"`,
				`response_address: "127.0.0.1"`, "response_port: " + e.dns[strings.LastIndexByte(e.dns, ':')+1:], `query_zone: "example.org."`,
			}
			for _, a := range answers {
				q := a.Question[0]
				wants = append(wants,
					fmt.Sprintf("id: %d", a.Id), "rcode: "+dns.RcodeToString[a.Rcode],
					fmt.Sprintf("%s\tIN\t%s", q.Name, dns.Type(q.Qtype)))
				for _, rr := range append(a.Answer, a.Ns...) {
					wants = append(wants, rr.String())
				}
			}
			for _, want := range wants {
				if !strings.Contains(text, want) {
					t.Errorf("%q is missing", want)
				}
			}
			if t.Failed() {
				t.Logf("dnstap-ldns says\n%s", text)
			}
		})
	}
}
