package ws

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"holdfast/session"
	"holdfast/stanza"
)

func TestMain(m *testing.M) {
	if runIdleServer() {
		return
	}
	goleak.VerifyTestMain(m)
}

// violations counts what a stream must never see. A panic would not do: the transport survives those.
var violations atomic.Int32

const patience = 10 * time.Second

// fakeStream answers <open/>, echoes what it gets and records the rest.
type fakeStream struct {
	t      session.Transport
	peer   session.Peer
	authed atomic.Bool
	quiet  bool           // does not echo
	hook   func(e string) // called by Handle

	events chan string // open:to, handle:raw, fail:condition, peerclosed, lost:err
	proved chan uint64

	mu       sync.Mutex
	out      [][]byte
	mark     uint64
	pulls    int
	lost     int
	handling bool
}

func newFakeStream(t session.Transport, p session.Peer) *fakeStream {
	return &fakeStream{t: t, peer: p, events: make(chan string, 4096), proved: make(chan uint64, 64)}
}

func (s *fakeStream) send(frames ...string) {
	s.mu.Lock()
	for _, f := range frames {
		s.out = append(s.out, []byte(f))
	}
	s.mu.Unlock()
	s.t.Wake()
}

func (s *fakeStream) Open(o session.Open) {
	s.events <- "open:" + o.To
	s.send(string(s.t.Header(session.Header{ID: "i", From: o.To, To: o.From, Lang: o.Lang})))
}

func (s *fakeStream) Handle(e *stanza.Element) {
	s.mu.Lock()
	if s.lost > 0 || s.handling {
		violations.Add(1)
	}
	s.handling = true
	s.mu.Unlock()
	raw := string(e.Raw())
	if s.hook != nil {
		s.hook(raw)
	}
	s.mu.Lock()
	s.handling = false
	s.mu.Unlock()
	s.events <- "handle:" + raw
	if !s.quiet {
		s.send(raw)
	}
}

func (s *fakeStream) Fail(err stanza.StreamError) {
	s.events <- "fail:" + err.Condition
	s.send(string(err.Raw()))
	s.t.Finish(session.Closed)
}

func (s *fakeStream) PeerClosed() {
	s.events <- "peerclosed"
	s.t.Finish(session.Closed)
}

func (s *fakeStream) Pull(b *session.Batch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost > 0 {
		violations.Add(1)
	}
	s.pulls++
	if len(s.out) == 0 {
		return false
	}
	s.mark += uint64(len(s.out))
	b.Frames = append(b.Frames, s.out...)
	b.Mark = s.mark
	s.out = nil
	return true
}

func (s *fakeStream) Proved(mark uint64) {
	s.mu.Lock()
	if s.lost > 0 {
		violations.Add(1)
	}
	s.mu.Unlock()
	s.proved <- mark
}

func (s *fakeStream) Authenticated() bool { return s.authed.Load() }

func (s *fakeStream) Lost(err error) {
	s.mu.Lock()
	s.lost++
	n := s.lost
	s.mu.Unlock()
	if n > 1 {
		violations.Add(1)
	}
	msg := "lost:nil"
	if err != nil {
		msg = "lost:" + err.Error()
	}
	s.events <- msg
}

// expect waits for the next event and fails the test when it is another one.
func (s *fakeStream) expect(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-s.events:
			if got != w {
				t.Fatalf("stream event %.200q, want %.200q", got, w)
			}
		case <-time.After(patience):
			t.Fatalf("no stream event, want %.200q", w)
		}
	}
}

func lost(err error) string {
	if err == nil {
		return "lost:nil"
	}
	return "lost:" + err.Error()
}

// harness is a server on a real socket.
type harness struct {
	*Server
	http    *httptest.Server
	reg     *prometheus.Registry
	streams chan *fakeStream
}

func config(edit func(*Config)) Config {
	cfg := DefaultConfig()
	cfg.MaxUnauthenticatedPerAddr = 0
	if edit != nil {
		edit(&cfg)
	}
	return cfg
}

func serve(t testing.TB, edit func(*Config)) *harness {
	t.Helper()
	h := &harness{streams: make(chan *fakeStream, 2048), reg: prometheus.NewRegistry()}
	var err error
	h.Server, err = New(config(edit), slog.New(slog.DiscardHandler), h.reg, func(tr session.Transport, p session.Peer) session.Stream {
		s := newFakeStream(tr, p)
		h.streams <- s
		return s
	})
	if err != nil {
		t.Fatal(err)
	}
	h.http = httptest.NewServer(h.Server)
	t.Cleanup(func() {
		h.http.Close()
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
		if n := violations.Load(); n > 0 {
			t.Errorf("%d calls of a stream after Lost, or two Handles at once", n)
		}
	})
	return h
}

func (h *harness) url() string { return "ws" + strings.TrimPrefix(h.http.URL, "http") }

func (h *harness) stream(t testing.TB) *fakeStream {
	t.Helper()
	select {
	case s := <-h.streams:
		return s
	case <-time.After(patience):
		t.Fatal("no stream was made")
		return nil
	}
}

// client is the other end.
type client struct{ *websocket.Conn }

func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func (h *harness) dial(t testing.TB, opts *websocket.DialOptions) client {
	t.Helper()
	if opts == nil {
		opts = &websocket.DialOptions{}
	}
	if opts.Subprotocols == nil {
		opts.Subprotocols = []string{"xmpp"}
	}
	c, _, err := websocket.Dial(patient(t), h.url(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	c.SetReadLimit(-1)
	return client{c}
}

const openElement = `<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>`

// open connects and opens a stream.
func (h *harness) open(t testing.TB) (client, *fakeStream) {
	t.Helper()
	c := h.dial(t, nil)
	s := h.stream(t)
	c.write(t, openElement)
	if got := c.read(t); !strings.HasPrefix(got, "<open ") {
		t.Fatalf("got %q, want <open/>", got)
	}
	if e := <-s.events; e != "open:localhost" {
		t.Fatalf("stream event %q", e)
	}
	return c, s
}

func (c client) write(t testing.TB, msg string) {
	t.Helper()
	if err := c.Write(patient(t), websocket.MessageText, []byte(msg)); err != nil {
		t.Fatal(err)
	}
}

func (c client) read(t testing.TB) string {
	t.Helper()
	typ, b, err := c.Read(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	if typ != websocket.MessageText {
		t.Fatalf("got a message of type %v", typ)
	}
	return string(b)
}

// rest reads to the end: the messages and the status of the closing frame, -1 when there was none.
func (c client) rest(t testing.TB) (msgs []string, status websocket.StatusCode) {
	t.Helper()
	for {
		_, b, err := c.Read(patient(t))
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			return msgs, websocket.CloseStatus(err)
		}
		msgs = append(msgs, string(b))
	}
}

func contains(msgs []string, part string) bool {
	for _, m := range msgs {
		if strings.Contains(m, part) {
			return true
		}
	}
	return false
}
