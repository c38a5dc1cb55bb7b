package haproxyproc

import (
	"io"
	"net/http"
	"net/http/httptest"
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

func ask(t *testing.T, p *Proxy) string {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: p.TLS(), DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := c.Get("https://" + p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v, %s", resp.StatusCode, err, b)
	}
	return string(b)
}

func TestRoundRobinOverWhoIsThere(t *testing.T) {
	a, b := newBackend(t, "a"), newBackend(t, "b")
	p := Start(t, a.Backend, b.Backend)
	got := map[string]int{}
	for range 4 {
		got[ask(t, p)]++
	}
	if got["a"] != 2 || got["b"] != 2 {
		t.Errorf("answered by %v", got)
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
	deadline := time.Now().Add(5 * time.Second)
	for a1, a2 := "", ""; a1 != "a" || a2 != "a"; a1, a2 = ask(t, p), ask(t, p) {
		if time.Now().After(deadline) {
			t.Fatal("still sent to a backend that is not ready")
		}
	}
}
