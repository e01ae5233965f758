//go:build acceptance

package acceptance

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// A load is a steady stream of requests, each on a connection of its own.
type load struct {
	stop func() []request
}

// A request is one that has ended.
type request struct {
	begin  time.Time
	server string // who answered; empty where err is set
	err    error
}

// startLoad sends perSecond requests a second to addr, each at its time whether
// or not earlier ones have been answered. All requests are returned by stop.
func startLoad(t *testing.T, addr string, perSecond int) *load {
	t.Helper()
	client := &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true},
		Timeout:   10 * time.Second,
	}
	var (
		mu   sync.Mutex
		all  []request
		wg   sync.WaitGroup
		done = make(chan struct{})
	)
	wg.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				wg.Go(func() {
					r := request{begin: time.Now()}
					r.server, r.err = ask(client, addr)
					mu.Lock()
					defer mu.Unlock()
					all = append(all, r)
				})
			}
		}
	})
	return &load{stop: sync.OnceValue(func() []request {
		close(done)
		wg.Wait()
		return all
	})}
}

func ask(client *http.Client, addr string) (server string, err error) {
	r, err := client.Get("http://" + addr + "/")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Body.Close()) }()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return "", err
	}
	if r.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d", r.StatusCode)
	}
	return strings.TrimSpace(string(body)), nil
}
