package haproxyproc

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answering is a backend that says its name, and whether it is ready.
type answering struct {
	Backend
	ready atomic.Bool
	seen  atomic.Pointer[http.Request]
	front *httptest.Server
}

func newBackend(t *testing.T, name string) *answering {
	t.Helper()
	a := &answering{}
	a.ready.Store(true)
	a.front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.seen.Store(r)
		_, _ = io.WriteString(w, name)
	}))
	t.Cleanup(a.front.Close)
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !a.ready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(admin.Close)
	a.Backend = Backend{Clients: a.front.Listener.Addr().String(), Admin: admin.Listener.Addr().String()}
	return a
}

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// ask returns who answers a request.
func ask(t *testing.T, p *Proxy) string {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: p.TLS(), DisableKeepAlives: true}, Timeout: patience}
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		resp, err := c.Get("https://" + p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err == nil && resp.StatusCode == http.StatusOK {
			return string(b)
		}
		// When this process stood still, no backend answered its check in time. The next check brings it back.
		stood := resp.StatusCode == http.StatusServiceUnavailable && strings.Contains(p.log.tail(1000), "Layer7 timeout")
		if err != nil || !stood || time.Now().After(deadline) {
			t.Fatalf("status %d, %v, %s", resp.StatusCode, err, b)
		}
	}
}

func TestRoundRobinOverWhoIsThere(t *testing.T) {
	a, b := newBackend(t, "a"), newBackend(t, "b")
	p := Start(t, a.Backend, b.Backend)
	var got map[string]int
	for deadline := time.Now().Add(patience); got["a"] != 2 || got["b"] != 2; { // one may be out for a check that it missed
		if time.Now().After(deadline) {
			t.Fatalf("answered by %v", got)
		}
		got = map[string]int{}
		for range 4 {
			got[ask(t, p)]++
		}
	}
	r := a.seen.Load()
	if r.Header.Get("X-Forwarded-For") != "127.0.0.1" || r.Header.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("forwarding headers: %v", r.Header)
	}

	// Who is dead is passed over at once, before any check.
	a.front.Close()
	for range 6 {
		if by := ask(t, p); by != "b" {
			t.Errorf("answered by %s, which is dead", by)
		}
	}
}

func TestWhoIsNotReadyGetsNobody(t *testing.T) {
	a, b := newBackend(t, "a"), newBackend(t, "b")
	p := Start(t, a.Backend, b.Backend)
	b.ready.Store(false)
	deadline := time.Now().Add(patience)
	for a1, a2 := "", ""; a1 != "a" || a2 != "a"; a1, a2 = ask(t, p), ask(t, p) {
		if time.Now().After(deadline) {
			t.Fatal("still sent to a backend that is not ready")
		}
	}
}
