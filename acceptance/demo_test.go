//go:build acceptance

package acceptance

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/internal/elbowtest"
)

// TestDemo runs the demo as a user without rights and plays the user: a
// minion is stopped at the terminal, the proxy goes on.
func TestDemo(t *testing.T) {
	cmd := exec.Command(elbowtest.Binary(t), "demo", "--exit-after", "20s")
	cmd.Dir = "/"
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	terminal, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	t.Cleanup(func() {
		if !ended {
			cmd.Process.Kill()
			cmd.Wait()
		}
		if t.Failed() {
			t.Log(out.String())
		}
	})

	minions := func() map[string]bool {
		seen := map[string]bool{}
		for range 30 {
			body, err := ask(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, "127.0.0.1:8080")
			if err != nil {
				return nil
			}
			seen[strings.Fields(body)[2]] = true
		}
		return seen
	}
	resolve := func() (int, uint32) {
		q := new(dns.Msg).SetQuestion("minions.public.haslohas.com.", dns.TypeA)
		r, _, err := (&dns.Client{}).Exchange(q, "127.0.0.1:5300")
		if err != nil || len(r.Answer) == 0 {
			return 0, 0
		}
		return len(r.Answer), r.Answer[0].Header().Ttl
	}
	elbowtest.Eventually(t, 10*time.Second, "all three minions serve", func() bool { return len(minions()) == 3 })
	if n, ttl := resolve(); n != 3 || ttl != 30 {
		t.Errorf("%d addresses with TTL %d, want 3 with 30", n, ttl)
	}
	if r, err := http.Get("http://127.0.0.1:9653/"); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("the status page: %v, %v", r, err)
	} else {
		r.Body.Close()
	}

	io.WriteString(terminal, "stop 2\n")
	elbowtest.Eventually(t, 5*time.Second, "minion2 is out of DNS", func() bool { n, ttl := resolve(); return n == 2 && ttl == 5 })
	if seen := minions(); seen["minion2"] || len(seen) != 2 {
		t.Errorf("served by %v", seen)
	}
	io.WriteString(terminal, "start 2\n")
	elbowtest.Eventually(t, 10*time.Second, "minion2 is back", func() bool { return len(minions()) == 3 })

	io.WriteString(terminal, "quit\n")
	if err := cmd.Wait(); err != nil {
		t.Errorf("demo ended with %v", err)
	}
	ended = true
}
