package bosh

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/session"
	"holdfast/stanza"
)

// benchStream echoes, and costs next to nothing itself.
type benchStream struct {
	t     session.Transport
	out   [][]byte
	mark  uint64
	frame []byte
	n     uint64
}

func (s *benchStream) Open(session.Open)       { s.t.Header(session.Header{}) }
func (s *benchStream) Handle(*stanza.Element)  { s.n++; s.out = append(s.out, s.frame) }
func (s *benchStream) Fail(stanza.StreamError) {}
func (s *benchStream) PeerClosed()             {}
func (s *benchStream) Pull(b *session.Batch) bool {
	b.Frames = append(b.Frames, s.out...)
	s.mark += uint64(len(s.out))
	s.out = s.out[:0]
	b.Mark = s.mark
	return len(b.Frames) > 0
}
func (s *benchStream) Proved(uint64)                          {}
func (s *benchStream) Authenticated() bool                    { return true }
func (s *benchStream) Lost(error)                             {}
func (s *benchStream) Keep(string, []byte, time.Duration)     {}
func (s *benchStream) Settle(context.Context, uint64) error   { return nil }
func (s *benchStream) Handled() uint64                        { return s.n }
func (s *benchStream) Again(f [][]byte, _, _ uint64) [][]byte { return f }

// recorder is an http.ResponseWriter that keeps nothing.
type recorder struct {
	h      http.Header
	status int
	body   []byte
}

func (r *recorder) Header() http.Header    { return r.h }
func (r *recorder) WriteHeader(status int) { r.status = status }
func (r *recorder) Write(b []byte) (int, error) {
	r.body = append(r.body[:0], b...)
	return len(b), nil
}
func (r *recorder) Flush()                           {}
func (r *recorder) SetReadDeadline(time.Time) error  { return nil }
func (r *recorder) SetWriteDeadline(time.Time) error { return nil }

type bench struct {
	s    *Server
	rec  *recorder
	req  *http.Request
	in   content
	body []byte
	sid  string
	rid  uint64
}

// content is a request's body.
type content struct{ bytes.Reader }

func (*content) Close() error { return nil }

func newBench(tb testing.TB) *bench {
	frame := []byte(message(1))
	s, err := New(DefaultConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry(), Streams{
		New: func(t session.Transport, _ session.Peer) session.CarriedStream {
			return &benchStream{t: t, frame: frame}
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://localhost/", nil)
	if err != nil {
		tb.Fatal(err)
	}
	req.RemoteAddr = "127.0.0.1:1"
	req.Header.Set("Content-Type", "text/xml; charset=utf-8")
	b := &bench{s: s, rec: &recorder{h: make(http.Header)}, req: req, rid: 1000}
	b.in.Reset([]byte(wrap(b.rid, createAttrs, "")))
	req.Body = &b.in
	s.ServeHTTP(b.rec, req)
	if b.sid = attr(string(b.rec.body), "sid"); b.sid == "" {
		tb.Fatalf("got %s", b.rec.body)
	}
	return b
}

// exchange sends one message and has one back.
func (b *bench) exchange(msg string) {
	b.rid++
	b.body = strconv.AppendUint(append(b.body[:0], "<body rid='"...), b.rid, 10)
	b.body = append(append(append(b.body, "' sid='"...), b.sid...), "' xmlns='http://jabber.org/protocol/httpbind'>"...)
	b.body = append(append(b.body, msg...), "</body>"...)
	b.in.Reset(b.body)
	b.req.Body = &b.in
	clear(b.rec.h)
	b.s.ServeHTTP(b.rec, b.req)
}

// A request with one message, answered with one, without net/http.
func BenchmarkExchange(b *testing.B) {
	x := newBench(b)
	msg := message(1)
	b.ReportAllocs()
	for b.Loop() {
		x.exchange(msg)
	}
	if string(x.rec.body) != payload(msg) {
		b.Fatalf("got %s", x.rec.body)
	}
}

// The way of a message costs no garbage but what net/http's header takes: the length of the response, and a slice for each
// field. Connections that were taken over do not have it.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	x := newBench(t)
	msg := message(1)
	x.exchange(msg)
	if n := testing.AllocsPerRun(1000, func() { x.exchange(msg) }); n > 7 {
		t.Errorf("%v allocations", n)
	}
}
