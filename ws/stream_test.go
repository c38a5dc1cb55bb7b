package ws

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"holdfast/session"
	"holdfast/stanza"
)

const (
	closeFramed = `<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>`
	ping        = `<iq xmlns='jabber:client' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>`
)

// RFC 7395 §3.4 and §3.7: <open/>, elements both ways, a restart.
func TestOpenAndElements(t *testing.T) {
	h := serve(t, nil)
	c, s := h.open(t)
	c.write(t, ping)
	if got := c.read(t); got != ping {
		t.Errorf("got %q", got)
	}
	c.write(t, openElement)
	if got := c.read(t); !strings.Contains(got, "from='localhost'") || !strings.Contains(got, "version='1.0'") {
		t.Errorf("got %q", got)
	}
	s.expect(t, "handle:"+ping, "open:localhost")
}

func TestHeaderEscapes(t *testing.T) {
	tr := &transport{}
	got := string(tr.Header(session.Header{ID: "a'b", From: "x", To: "<&>", Lang: "en"}))
	var e stanza.Element
	if err := e.Scan([]byte(got), stanza.Limits{}); err != nil {
		t.Fatalf("%s: %v", got, err)
	}
	if !e.Is(stanza.NSFraming, "open") || e.Attr("id") != "a'b" || e.Attr("to") != "<&>" || e.Attr("from") != "x" || e.Attr("xml:lang") != "en" || e.Attr("version") != "1.0" {
		t.Errorf("got %s", got)
	}
	if got := string(tr.Header(session.Header{})); strings.Contains(got, "id=") || strings.Contains(got, "to=") {
		t.Errorf("got %s", got)
	}
}

// RFC 7395 §3.3: a message may come in fragments.
func TestFragmented(t *testing.T) {
	h := serve(t, nil)
	c, s := h.open(t)
	w, err := c.Writer(patient(t), websocket.MessageText)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(ping) {
		if _, err := w.Write([]byte(ping[i : i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := c.read(t); got != ping {
		t.Errorf("got %q", got)
	}
	s.expect(t, "handle:"+ping)
}

// What is not an element in its place ends the stream with an error and does not reach it.
func TestRefused(t *testing.T) {
	big := "<message xmlns='jabber:client'><body>" + strings.Repeat("x", 10<<20) + "</body></message>"
	for _, tt := range []struct {
		name      string
		unopened  bool
		typ       websocket.MessageType
		msg       string
		condition string
		status    websocket.StatusCode
	}{
		{"RFC 7395 3.3.3 two elements in a message", false, websocket.MessageText, ping + ping, "", websocket.StatusNormalClosure},
		{"RFC 7395 3.3.3 half an element", false, websocket.MessageText, ping[:20], "", websocket.StatusNormalClosure},
		{"RFC 7395 3.3.3 empty", false, websocket.MessageText, "", "", websocket.StatusNormalClosure},
		{"RFC 6120 11.1 comment", false, websocket.MessageText, "<a xmlns='b'><!-- c --></a>", "", websocket.StatusNormalClosure},
		{"RFC 6120 11.1 DTD", false, websocket.MessageText, "<!DOCTYPE a><a/>", "", websocket.StatusNormalClosure},
		{"garbage", false, websocket.MessageText, "\x00\xff\xfe garbage", "", websocket.StatusNormalClosure},
		{"10,000 nested elements", false, websocket.MessageText, strings.Repeat("<a>", 10000) + strings.Repeat("</a>", 10000), "policy-violation", websocket.StatusMessageTooBig},
		{"nested too deep", false, websocket.MessageText, strings.Repeat("<a>", 100) + strings.Repeat("</a>", 100), "policy-violation", websocket.StatusNormalClosure},
		{"RFC 7395 3.2 binary", false, websocket.MessageBinary, ping, "unsupported-encoding", websocket.StatusUnsupportedData},
		{"10 MB", false, websocket.MessageText, big, "policy-violation", websocket.StatusMessageTooBig},
		{"RFC 7395 3.4 a stanza before open", true, websocket.MessageText, ping, "not-authorized", websocket.StatusNormalClosure},
		{"RFC 7395 3.4 auth before open", true, websocket.MessageText, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AAA=</auth>", "bad-format", websocket.StatusNormalClosure},
		{"RFC 7395 3.3.2 open of another namespace", true, websocket.MessageText, "<open xmlns='jabber:client'/>", "invalid-namespace", websocket.StatusNormalClosure},
		{"RFC 7395 3.3 a stream tag", true, websocket.MessageText, "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>", "", websocket.StatusNormalClosure},
		{"binary before open", true, websocket.MessageBinary, openElement, "unsupported-encoding", websocket.StatusUnsupportedData},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := serve(t, func(c *Config) { c.CloseTimeout = time.Minute }) // a large message takes as long as it takes
			var c client
			var s *fakeStream
			if tt.unopened {
				c = h.dial(t, nil)
				s = h.stream(t)
			} else {
				c, s = h.open(t)
			}
			if err := c.Write(patient(t), tt.typ, []byte(tt.msg)); err != nil {
				t.Fatal(err)
			}
			msgs, status := c.rest(t)
			if len(msgs) != 2 || !strings.HasPrefix(msgs[0], "<stream:error") || msgs[1] != closeFramed {
				t.Errorf("got %q, want a stream error and <close/>", msgs)
			}
			if status != tt.status {
				t.Errorf("closed with %d, want %d", status, tt.status)
			}
			got := <-s.events
			if !strings.HasPrefix(got, "fail:"+tt.condition) {
				t.Errorf("stream event %q", got)
			}
			s.expect(t, lost(nil))
		})
	}
}

// The cap before authentication is another one than after it; both hold to the byte.
func TestMessageCaps(t *testing.T) {
	element := func(size int) string { return "<a xmlns='b'>" + strings.Repeat("x", size-17) + "</a>" }
	for _, tt := range []struct {
		name   string
		authed bool
		size   int
		ok     bool
	}{
		{"unauthenticated at the cap", false, 10_000, true},
		{"unauthenticated over it", false, 10_001, false},
		{"authenticated at the cap", true, 30_000, true},
		{"authenticated over it", true, 30_001, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := serve(t, func(c *Config) { c.MaxMessage, c.MaxMessageUnauthenticated = 30_000, 10_000 })
			c, s := h.open(t)
			s.authed.Store(tt.authed)
			c.write(t, ping)
			_ = c.read(t)
			s.expect(t, "handle:"+ping)
			c.write(t, element(tt.size))
			if got := c.read(t); (got == element(tt.size)) != tt.ok {
				t.Errorf("got %.80q", got)
			}
		})
	}
	t.Run("0 lifts them", func(t *testing.T) {
		h := serve(t, func(c *Config) { c.MaxMessage, c.MaxMessageUnauthenticated = 0, 0 })
		c, _ := h.open(t)
		c.write(t, element(1<<20))
		if got := c.read(t); got != element(1<<20) {
			t.Errorf("got %.80q", got)
		}
	})
}

// RFC 7395 §3.6: the peer closes the stream, then we close the WebSocket, and what was queued before arrives.
func TestPeerCloses(t *testing.T) {
	h := serve(t, nil)
	c, s := h.open(t)
	s.send("<last xmlns='a'/>")
	c.write(t, closeFramed)
	msgs, status := c.rest(t)
	if fmt.Sprint(msgs) != fmt.Sprint([]string{"<last xmlns='a'/>", closeFramed}) || status != websocket.StatusNormalClosure {
		t.Errorf("got %q, %d", msgs, status)
	}
	s.expect(t, "peerclosed", lost(nil))
	if mark := <-s.proved; mark != 2 {
		t.Errorf("proved %d, want 2", mark)
	}
}

// RFC 7395 §3.6: when we close, the peer's <close/> is waited for before the WebSocket goes, and stanzas that it
// sent meanwhile are no longer handed on.
func TestFinishClosed(t *testing.T) {
	h := serve(t, nil)
	c, s := h.open(t)
	s.send("<last xmlns='a'/>")
	s.t.Finish(session.Closed)
	if got := c.read(t) + c.read(t); got != "<last xmlns='a'/>"+closeFramed {
		t.Errorf("got %q", got)
	}
	c.write(t, ping)
	c.write(t, closeFramed)
	if msgs, status := c.rest(t); len(msgs) != 0 || status != websocket.StatusNormalClosure {
		t.Errorf("got %q, %d", msgs, status)
	}
	s.expect(t, lost(nil))
	if mark := <-s.proved; mark != 2 {
		t.Errorf("proved %d, want 2", mark)
	}
}

// XEP-0198 §5: a restart leaves the stream open.
func TestFinishRestarting(t *testing.T) {
	h := serve(t, nil)
	c, s := h.open(t)
	s.send("<last xmlns='a'/>")
	s.t.Finish(session.Restarting)
	s.t.Finish(session.Closed) // too late
	msgs, status := c.rest(t)
	if fmt.Sprint(msgs) != "[<last xmlns='a'/>]" || status != websocket.StatusServiceRestart {
		t.Errorf("got %q, %d", msgs, status)
	}
	s.expect(t, lost(nil))
}

func TestFinishBroken(t *testing.T) {
	h := serve(t, nil)
	c, s := h.open(t)
	s.t.Finish(session.Broken)
	if msgs, status := c.rest(t); len(msgs) != 0 || status != -1 {
		t.Errorf("got %q, %d", msgs, status)
	}
	s.expect(t, lost(ErrBroken))
}

// The peer closes the WebSocket without <close/>: its session may be resumed, and nothing is proved.
func TestPeerClosesWebSocket(t *testing.T) {
	h := serve(t, nil)
	c, s := h.open(t)
	if err := c.Close(websocket.StatusGoingAway, "tab closed"); err != nil {
		t.Fatal(err)
	}
	s.expect(t, lost(ErrPeerClosed))
	if len(s.proved) != 0 {
		t.Error("proved")
	}
}

func TestPeerVanishes(t *testing.T) {
	h := serve(t, nil)
	c, s := h.open(t)
	_ = c.CloseNow()
	s.expect(t, lost(ErrLost))
}

// RFC 6455 §5.1: an unmasked frame of a client.
func TestProtocolError(t *testing.T) {
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
	// Reserved bits are answered with 1002; RFC 6455 §5.2.
	if _, err := fmt.Fprintf(conn, "%s\r\n\xf1\x80\x00\x00\x00\x00", req); err != nil {
		t.Fatal(err)
	}
	h.stream(t).expect(t, lost(ErrProtocol))
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	all := new(bytes.Buffer)
	if _, err := all.ReadFrom(conn); err != nil {
		t.Fatal(err)
	}
	if b := all.Bytes(); !bytes.Contains(b, []byte{0x03, 0xea}) {
		t.Errorf("no closing frame with 1002 in %q", b)
	}
}

// One fault of the stream ends one connection.
func TestPanicInHandle(t *testing.T) {
	h := serve(t, nil)
	c, s := h.open(t)
	other, _ := h.open(t)
	s.hook = func(string) { panic("fault") }
	c.write(t, ping)
	if _, status := c.rest(t); status != -1 {
		t.Errorf("status %d", status)
	}
	s.expect(t, lost(errPanic))
	other.write(t, ping)
	if got := other.read(t); got != ping {
		t.Errorf("got %q", got)
	}
}

// Everything queued comes out, in order, however Wake and the writer meet.
func TestOrderUnderLoad(t *testing.T) {
	h := serve(t, nil)
	c, s := h.open(t)
	const n = 20000
	go func() {
		for i := range n {
			s.send(fmt.Sprintf("<m xmlns='a' n='%d'/>", i))
		}
	}()
	for i := range n {
		if got, want := c.read(t), fmt.Sprintf("<m xmlns='a' n='%d'/>", i); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Logf("%d frames in at most %d batches", n, s.pulls)
}

// A ping of the peer is answered, also while much is written.
func TestPeerPing(t *testing.T) {
	h := serve(t, nil)
	c, s := h.open(t)
	ctx := c.CloseRead(context.Background())
	_ = ctx
	for range 5 {
		if err := c.Ping(patient(t)); err != nil {
			t.Fatal(err)
		}
	}
	_ = s
}

// A frame of every length class arrives whole.
func TestFrameSizes(t *testing.T) {
	h := serve(t, nil)
	c, s := h.open(t)
	for _, size := range []int{20, 124, 125, 126, 127, 4095, 65535, 65536, 70000, 1 << 20} {
		msg := "<a xmlns='b'>" + strings.Repeat("x", max(0, size-17)) + "</a>"
		s.send(msg)
		if got := c.read(t); got != msg {
			t.Errorf("size %d: got %d bytes", size, len(got))
		}
	}
}

// RFC 7692, and its bombs.
func TestCompression(t *testing.T) {
	for _, mode := range []string{CompressionNoTakeover, CompressionTakeover} {
		t.Run(mode, func(t *testing.T) {
			h := serve(t, func(c *Config) {
				c.Compression, c.CompressionConnections, c.CompressionThreshold = mode, 1, 1
				c.CloseTimeout = time.Minute // the server is done with the bomb long before it is written
			})
			m, _ := compressionMode(mode)
			squashed := h.dial(t, &websocket.DialOptions{CompressionMode: m, CompressionThreshold: 1})
			s := h.stream(t)
			msg := "<a xmlns='b'>" + strings.Repeat("holdfast ", 1000) + "</a>"
			squashed.write(t, openElement)
			_ = squashed.read(t)
			for range 3 {
				squashed.write(t, msg)
				if got := squashed.read(t); got != msg {
					t.Fatalf("got %.100q", got)
				}
			}
			if out := h.met.bytesOut.Load(); out > uint64(len(msg)) {
				t.Errorf("%d bytes written, not compressed", out)
			}
			plain := h.dial(t, &websocket.DialOptions{CompressionMode: m})
			if p := h.stream(t).t.(*transport); p.squash {
				t.Error("the cap on compressed connections does not hold")
			}
			plain.write(t, openElement)
			_ = plain.read(t)

			squashed.write(t, closeFramed)
			if msgs, status := squashed.rest(t); !contains(msgs, "<close") || status != websocket.StatusNormalClosure {
				t.Errorf("got %.100q, %d", msgs, status)
			}
			s.expect(t, "open:localhost", "handle:"+msg, "handle:"+msg, "handle:"+msg, "peerclosed", lost(nil))

			for h.squeezing.Load() != 0 {
				time.Sleep(time.Millisecond)
			}
			bomb := h.dial(t, &websocket.DialOptions{CompressionMode: m, CompressionThreshold: 1})
			s = h.stream(t)
			bomb.write(t, openElement)
			_ = bomb.read(t)
			bomb.write(t, "<a>"+strings.Repeat(" ", 8<<20)+"</a>")
			msgs, status := bomb.rest(t)
			if !contains(msgs, "policy-violation") || status != websocket.StatusMessageTooBig {
				t.Errorf("got %.100q, %d", msgs, status)
			}
			s.expect(t, "open:localhost", "fail:policy-violation", lost(ErrRejected))
		})
	}
}

// A thousand connections that never speak cost a place each, and none of the others its own.
func TestSilentConnections(t *testing.T) {
	h := serve(t, nil)
	for range 1000 {
		conn, err := net.Dial("tcp", h.http.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		req := "GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Protocol: xmpp\r\n"
		for i := 0; i < len(upgradeHeaders); i += 2 {
			req += upgradeHeaders[i] + ": " + upgradeHeaders[i+1] + "\r\n"
		}
		if _, err := conn.Write([]byte(req + "\r\n")); err != nil {
			t.Fatal(err)
		}
		h.stream(t)
	}
	c, _ := h.open(t)
	c.write(t, ping)
	if got := c.read(t); got != ping {
		t.Errorf("got %q", got)
	}
	if open, _ := h.gate.Counts(); open != 1001 {
		t.Errorf("%d connections counted", open)
	}
}
