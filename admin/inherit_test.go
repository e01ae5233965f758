package admin

import (
	"net/http"
	"sync"
	"syscall"
	"testing"
)

// TestHandOverLosesNoRequest lets one server follow the other on the same
// socket, while clients ask as fast as they can.
func TestHandOverLosesNoRequest(t *testing.T) {
	fd := -1
	heir := func() *Server {
		return server(calm(7), func(o *Options) {
			o.Listen = anyPort
			o.Inherited = func(network, _ string) []int {
				if network != "tcp" || fd < 0 {
					return nil
				}
				return []int{fd} // which adopt closes
			}
		})
	}
	s := heir()
	stop := start(t, s)
	url := "http://" + s.Addr().String() + "/livez"

	var (
		clients  sync.WaitGroup
		answered = make(chan struct{}, 20)
		over     = make(chan struct{})
		failed   = make(chan error, 8)
	)
	for range cap(failed) {
		clients.Go(func() {
			transport := &http.Transport{DisableKeepAlives: true} // a new connection each: no retry hides a lost one
			client := &http.Client{Transport: transport}
			for {
				r, err := client.Get(url)
				if err != nil {
					failed <- err
					return
				}
				r.Body.Close()
				select {
				case <-over:
					return
				case answered <- struct{}{}:
				default:
				}
			}
		})
	}
	for range 100 {
		for range cap(answered) {
			select {
			case <-answered:
			case err := <-failed:
				t.Fatal(err)
			}
		}
		s.Sockets(func(network, _ string, open int) {
			var err error
			if fd, err = syscall.Dup(open); err != nil {
				t.Fatal(err)
			}
		})
		next := heir()
		end := start(t, next)
		s.Leave()
		if err := stop(); err != nil {
			t.Error(err)
		}
		s, stop = next, end
	}
	close(over)
	clients.Wait()
	if len(failed) > 0 {
		t.Error(<-failed)
	}
}
