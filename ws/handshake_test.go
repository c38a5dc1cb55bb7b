package ws

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"holdfast/internal/proxy"
)

// handshake sends a raw request and returns the answer.
func handshake(t *testing.T, h *harness, headers ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, h.http.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := h.http.Client().Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() }) // after an upgrade this is the connection
	return resp
}

var upgradeHeaders = []string{
	"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13",
	"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==",
}

func with(headers ...string) []string {
	return append(append([]string(nil), upgradeHeaders...), headers...)
}

// RFC 7395 §3.1: the subprotocol is xmpp.
func TestSubprotocol(t *testing.T) {
	h := serve(t, nil)
	for _, tt := range []struct {
		name    string
		headers []string
		status  int
	}{
		{"none", with(), http.StatusBadRequest},
		{"another", with("Sec-WebSocket-Protocol", "chat, mqtt"), http.StatusBadRequest},
		{"among others", with("Sec-WebSocket-Protocol", "chat,xmpp"), http.StatusSwitchingProtocols},
		{"on a second line", with("Sec-WebSocket-Protocol", "chat", "Sec-WebSocket-Protocol", "xmpp"), http.StatusSwitchingProtocols},
		{"not a WebSocket", nil, http.StatusUpgradeRequired},
		{"another version", append(with("Sec-WebSocket-Protocol", "xmpp")[:4:4], "Sec-WebSocket-Protocol", "xmpp", "Sec-WebSocket-Version", "8"), http.StatusBadRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := handshake(t, h, tt.headers...)
			if resp.StatusCode != tt.status {
				t.Errorf("status %d, want %d", resp.StatusCode, tt.status)
			}
			if tt.status == http.StatusSwitchingProtocols && resp.Header.Get("Sec-WebSocket-Protocol") != "xmpp" {
				t.Errorf("answered subprotocol %q", resp.Header.Get("Sec-WebSocket-Protocol"))
			}
		})
	}
}

// RFC 6455 §10.2.
func TestOrigin(t *testing.T) {
	for _, tt := range []struct {
		name    string
		allowed []string
		origin  string
		ok      bool
	}{
		{"none given", nil, "", true},
		{"same host", nil, "https://chat.example", true},
		{"same host, other case", nil, "https://Chat.Example", true},
		{"another", nil, "https://evil.example", false},
		{"another port", nil, "https://chat.example:8443", false},
		{"null", nil, "null", false},
		{"garbage", nil, "://", false},
		{"host allowed", []string{"www.example"}, "http://www.example", true},
		{"scheme and host allowed", []string{"https://www.example"}, "https://www.example", true},
		{"wrong scheme", []string{"https://www.example"}, "http://www.example", false},
		{"wildcard", []string{"*.example"}, "https://a.example", true},
		{"wildcard does not cross", []string{"https://*.example"}, "https://example", false},
		{"all", []string{"*"}, "null", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := serve(t, func(c *Config) { c.Origins = tt.allowed })
			headers := with("Sec-WebSocket-Protocol", "xmpp", "Host", "chat.example")
			if tt.origin != "" {
				headers = append(headers, "Origin", tt.origin)
			}
			want := http.StatusForbidden
			if tt.ok {
				want = http.StatusSwitchingProtocols
			}
			if resp := handshake(t, h, headers...); resp.StatusCode != want {
				t.Errorf("status %d, want %d", resp.StatusCode, want)
			}
		})
	}
}

func TestCaps(t *testing.T) {
	xmpp := with("Sec-WebSocket-Protocol", "xmpp")
	expect := func(t *testing.T, h *harness, status int, headers ...string) {
		t.Helper()
		resp := handshake(t, h, append(append([]string(nil), xmpp...), headers...)...)
		if resp.StatusCode != status {
			t.Fatalf("status %d, want %d", resp.StatusCode, status)
		}
		refused := status != http.StatusSwitchingProtocols
		if (resp.Header.Get("Retry-After") != "") != refused {
			t.Errorf("Retry-After %q", resp.Header.Get("Retry-After"))
		}
	}
	t.Run("unauthenticated", func(t *testing.T) {
		h := serve(t, func(c *Config) { c.MaxUnauthenticated = 2 })
		c, s := h.open(t)
		_ = h.dial(t, nil)
		expect(t, h, http.StatusServiceUnavailable)
		s.authed.Store(true)
		c.write(t, "<x xmlns='y'/>") // the transport looks after each element
		_ = c.read(t)
		h.awaitCounts(t, 1, 1) // the echo may come before that
		expect(t, h, http.StatusSwitchingProtocols)
		expect(t, h, http.StatusServiceUnavailable)
	})
	t.Run("all", func(t *testing.T) {
		h := serve(t, func(c *Config) { c.MaxConnections = 1 })
		c, s := h.open(t)
		s.authed.Store(true)
		expect(t, h, http.StatusServiceUnavailable)
		_ = c.CloseNow()
		s.expect(t, lost(ErrLost))
		h.awaitCounts(t, 0, 0) // the place is given back once the socket is closed
		expect(t, h, http.StatusSwitchingProtocols)
	})
	t.Run("address", func(t *testing.T) {
		h := serve(t, func(c *Config) { c.MaxUnauthenticatedPerAddr = 1 })
		from := func(a string) []string { return []string{"X-Forwarded-For", a} }
		expect(t, h, http.StatusSwitchingProtocols, from("192.0.2.1")...)
		expect(t, h, http.StatusTooManyRequests, from("192.0.2.1")...)
		expect(t, h, http.StatusSwitchingProtocols, from("192.0.2.2")...)
		expect(t, h, http.StatusSwitchingProtocols, from("2001:db8::1")...)
		expect(t, h, http.StatusTooManyRequests, from("2001:db8::2")...) // the same /64
		expect(t, h, http.StatusSwitchingProtocols)                      // a proxy that says nothing
		expect(t, h, http.StatusSwitchingProtocols)
	})
}

// awaitCounts waits until so many connections have not authenticated, and so many have.
func (h *harness) awaitCounts(t *testing.T, open, authed int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		o, a := h.gate.Counts()
		if o == open && a == authed {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d unauthenticated and %d authenticated connections, want %d and %d", o, a, open, authed)
		}
	}
}

func TestPeer(t *testing.T) {
	strict := proxy.DefaultConfig()
	strict.TrustedProxies = []string{"none"}
	for _, tt := range []struct {
		name   string
		proxy  proxy.Config
		header []string
		addr   string
		secure bool
	}{
		{"loopback", proxy.DefaultConfig(), nil, "127.0.0.1", true},
		{"behind a proxy", proxy.DefaultConfig(), []string{"X-Forwarded-For", "192.0.2.9"}, "192.0.2.9", false},
		{"behind TLS", proxy.DefaultConfig(), []string{"X-Forwarded-For", "192.0.2.9", "X-Forwarded-Proto", "https"}, "192.0.2.9", true},
		{"nobody trusted", strict, []string{"X-Forwarded-For", "192.0.2.9"}, "127.0.0.1", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := serve(t, func(c *Config) {
				var err error
				if c.Trust, err = proxy.New(tt.proxy); err != nil {
					t.Fatal(err)
				}
			})
			handshake(t, h, with(append([]string{"Sec-WebSocket-Protocol", "xmpp"}, tt.header...)...)...)
			p := h.stream(t).peer
			if p.Addr.String() != tt.addr || p.Secure != tt.secure || p.Kind != "websocket" {
				t.Errorf("got %+v", p)
			}
		})
	}
}

// A client may send its first frame behind the handshake without waiting for the answer: net/http has read it by then.
func TestEarlyFrame(t *testing.T) {
	h := serve(t, nil)
	conn, err := net.Dial("tcp", h.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	req := "GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Protocol: xmpp\r\n"
	for i := 0; i < len(upgradeHeaders); i += 2 {
		req += upgradeHeaders[i] + ": " + upgradeHeaders[i+1] + "\r\n"
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n%s", req, maskedText(openElement)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	h.stream(t).expect(t, "open:localhost")
}

// maskedText is a client's text frame, masked with zeros.
func maskedText(s string) string {
	head := []byte{0x81, 0x80 | byte(len(s))}
	if len(s) > 125 {
		head = []byte{0x81, 0x80 | 126, byte(len(s) >> 8), byte(len(s))}
	}
	return string(head) + "\x00\x00\x00\x00" + s
}

func TestDraining(t *testing.T) {
	h := serve(t, nil)
	c, s := h.open(t)
	status := make(chan websocket.StatusCode)
	go func() {
		_, _, err := c.Read(context.Background())
		status <- websocket.CloseStatus(err)
	}()
	if err := h.Drain(patient(t)); err != nil {
		t.Fatal(err)
	}
	if got := <-status; got != websocket.StatusServiceRestart {
		t.Errorf("status %d", got)
	}
	s.expect(t, lost(nil))
	if resp := handshake(t, h, with("Sec-WebSocket-Protocol", "xmpp")...); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// What does not end in time is dropped.
func TestDrainBound(t *testing.T) {
	h := serve(t, nil)
	c, s := h.open(t)
	s.authed.Store(true)
	c.write(t, "<x xmlns='y'/>")
	_ = c.read(t)
	s.expect(t, "handle:<x xmlns='y'/>")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := h.Drain(ctx); err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("got %v", err)
	}
	s.expect(t, lost(ErrServerClosed))
}
