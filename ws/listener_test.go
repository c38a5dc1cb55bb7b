package ws

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"holdfast/internal/proxy"
	"holdfast/session"
)

// Behind TLS everything works the same, and dropping does not wait for the peer.
func TestTLS(t *testing.T) {
	h := serve(t, nil)
	web := httptest.NewUnstartedServer(h.Server)
	web.StartTLS()
	defer web.Close()
	c, _, err := websocket.Dial(patient(t), "wss"+strings.TrimPrefix(web.URL, "https"), &websocket.DialOptions{
		Subprotocols: []string{"xmpp"}, HTTPClient: web.Client(),
	})
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(-1)
	cl := client{c}
	s := h.stream(t)
	if !s.peer.Secure {
		t.Error("not secure")
	}
	cl.write(t, openElement)
	_ = cl.read(t)
	big := "<a xmlns='b'>" + strings.Repeat("x", 15000) + "</a>"
	for range 10 {
		cl.write(t, big)
		if got := cl.read(t); got != big {
			t.Fatalf("got %.50q", got)
		}
	}
	s.t.Finish(session.Restarting)
	if _, status := cl.rest(t); status != websocket.StatusServiceRestart {
		t.Errorf("status %d", status)
	}
}

// A PROXY line gives the address; the reader works on the bare socket below.
func TestProxyLine(t *testing.T) {
	trust, err := proxy.New(proxy.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	h := serve(t, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: h.Server, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = web.Serve(trust.Listener(ln))
	}()
	defer func() {
		_ = web.Close()
		<-done
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "PROXY TCP4 192.0.2.8 192.0.2.1 77 443\r\n"); err != nil {
		t.Fatal(err)
	}
	c := upgradeRaw(t, conn)
	s := h.stream(t)
	if s.peer.Addr.String() != "192.0.2.8" || s.peer.Secure {
		t.Errorf("got %+v", s.peer)
	}
	greet(t, c, s)
	if tr := s.t.(*transport); tr.conn.raw == nil {
		t.Error("reads do not go to the socket")
	}
}

// What the watch ends in virtual time it ends on real sockets too: a peer that vanished without a word, one that never
// spoke and one that has stopped reading. Two seconds leave time to greet.
func TestDeadlinesOnSockets(t *testing.T) {
	greeted := func(t *testing.T, h *harness) *fakeStream {
		t.Helper()
		conn, err := net.Dial("tcp", h.http.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		c := upgradeRaw(t, conn)
		s := h.stream(t)
		greet(t, c, s)
		return s
	}
	t.Run("ping", func(t *testing.T) {
		t.Parallel()
		h := serve(t, func(c *Config) {
			c.PingInterval, c.PingTimeout, c.WriteTimeout = 2*time.Second, 150*time.Millisecond, 0
		})
		greeted(t, h).expect(t, lost(ErrPingTimeout))
	})
	t.Run("handshake", func(t *testing.T) {
		t.Parallel()
		h := serve(t, func(c *Config) { c.HandshakeTimeout = 150 * time.Millisecond })
		cl := h.dial(t, nil)
		s := h.stream(t)
		if msgs, status := cl.rest(t); !contains(msgs, "connection-timeout") || status != websocket.StatusNormalClosure {
			t.Errorf("got %q, %d", msgs, status)
		}
		s.expect(t, "fail:connection-timeout", lost(nil))
	})
	t.Run("write", func(t *testing.T) {
		t.Parallel()
		h := serve(t, func(c *Config) { c.PingInterval, c.WriteTimeout = 0, 2*time.Second })
		s := greeted(t, h)
		big := "<a xmlns='b'>" + strings.Repeat("x", 1<<20) + "</a>"
		for range 32 {
			s.send(big)
		}
		s.expect(t, lost(ErrWriteTimeout))
	})
}

func TestMetrics(t *testing.T) {
	h := serve(t, nil)
	c, s := h.open(t)
	s.authed.Store(true)
	c.write(t, ping)
	_ = c.read(t)
	handshake(t, h, with()...)
	other, os := h.open(t)
	_ = other.CloseNow()
	os.expect(t, lost(ErrLost))
	h.awaitCounts(t, 0, 1)
	want := `
# HELP holdfast_ws_connections Open WebSocket connections, by state.
# TYPE holdfast_ws_connections gauge
holdfast_ws_connections{state="authenticated"} 1
holdfast_ws_connections{state="unauthenticated"} 0
# HELP holdfast_ws_frames_total WebSocket messages carried.
# TYPE holdfast_ws_frames_total counter
holdfast_ws_frames_total{direction="in"} 3
holdfast_ws_frames_total{direction="out"} 3
`
	if err := testutil.GatherAndCompare(h.reg, strings.NewReader(want), "holdfast_ws_connections", "holdfast_ws_frames_total"); err != nil {
		t.Error(err)
	}
	if n := testutil.ToFloat64(h.met.refused.WithLabelValues(refusedSubprotocol)); n != 1 {
		t.Errorf("%v refused", n)
	}
	if _, err := New(DefaultConfig(), slog.New(slog.DiscardHandler), h.reg, nil); err == nil {
		t.Error("metrics registered twice")
	}
}
