package ws

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"holdfast/session"
	"holdfast/stanza"
)

// echoStream echoes without allocating: what a stream costs is not measured here.
type echoStream struct {
	t     session.Transport
	mu    sync.Mutex
	reply []byte
	out   [][]byte
	mark  uint64
}

func (s *echoStream) Open(session.Open) {}

func (s *echoStream) Handle(e *stanza.Element) {
	s.mu.Lock()
	if !bytes.Equal(s.reply, e.Raw()) {
		s.reply = bytes.Clone(e.Raw())
	}
	s.out = append(s.out, s.reply)
	s.mu.Unlock()
	s.t.Wake()
}

func (s *echoStream) Pull(b *session.Batch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.out) == 0 {
		return false
	}
	b.Frames = append(b.Frames, s.out...)
	s.mark += uint64(len(s.out))
	b.Mark = s.mark
	s.out = s.out[:0]
	return true
}

func (s *echoStream) Fail(stanza.StreamError) { s.t.Finish(session.Broken) }
func (s *echoStream) PeerClosed()             { s.t.Finish(session.Closed) }
func (s *echoStream) Proved(uint64)           {}
func (s *echoStream) Authenticated() bool     { return true }
func (s *echoStream) Lost(error)              {}

func echoHandler(tb testing.TB) http.Handler {
	cfg := DefaultConfig()
	cfg.MaxUnauthenticatedPerAddr = 0
	srv, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), func(t session.Transport, _ session.Peer) session.Stream {
		return &echoStream{t: t}
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = srv.Close() })
	return srv
}

// relay is the bare library: it reads a message and writes it back.
func relay(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"xmpp"}})
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	ctx := context.Background()
	var buf []byte
	for {
		typ, rd, err := c.Reader(ctx)
		if err != nil {
			return
		}
		b := bytes.NewBuffer(buf[:0])
		if _, err := b.ReadFrom(rd); err != nil {
			return
		}
		buf = b.Bytes()
		if c.Write(ctx, typ, buf) != nil {
			return
		}
	}
}

const chat = `<message xmlns='jabber:client' type='chat' id='0123456789' to='bob@localhost/phone'><body>` +
	`a hundred bytes of text, which is what people write to each other when they have little to say to each.` + `</body></message>`

// pair is a client that writes prepared frames and reads their echoes, without allocating.
type pair struct {
	*rawClient
	send, got []byte
}

func newPair(tb testing.TB, url string, depth int) *pair {
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	c := upgradeRaw(tb, conn)
	if _, err := io.WriteString(conn, maskedText(openElement)); err != nil {
		tb.Fatal(err)
	}
	return &pair{c, []byte(strings.Repeat(maskedText(chat), depth)), make([]byte, (len(chat)+4)*depth)}
}

func (p *pair) roundTrip(tb testing.TB) {
	if _, err := p.Write(p.send); err != nil {
		tb.Fatal(err)
	}
	if _, err := io.ReadFull(p.br, p.got); err != nil {
		tb.Fatal(err)
	}
}

// The path of a message through the transport allocates nothing: read, scan, hand on, pull, write.
func TestMessageAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	web := httptest.NewServer(echoHandler(t))
	defer web.Close()
	p := newPair(t, web.URL, 1)
	p.roundTrip(t)
	if n := testing.AllocsPerRun(2000, func() { p.roundTrip(t) }); n > 0 {
		t.Errorf("%v allocations a message", n)
	}
}

// Round trips of messages, depth of them outstanding: the gateway's transport with its scan against the bare library.
func BenchmarkEcho(b *testing.B) {
	for _, bb := range []struct {
		name  string
		depth int
		relay bool
	}{
		{"relay/1", 1, true}, {"holdfast/1", 1, false}, {"relay/8", 8, true}, {"holdfast/8", 8, false},
	} {
		b.Run(bb.name, func(b *testing.B) {
			var h http.Handler = http.HandlerFunc(relay)
			if !bb.relay {
				h = echoHandler(b)
			}
			web := httptest.NewServer(h)
			defer web.Close()
			p := newPair(b, web.URL, bb.depth)
			if bb.relay { // it echoes <open/> as well
				_ = p.next()
			}
			p.roundTrip(b)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p.roundTrip(b)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*bb.depth), "ns/msg")
		})
	}
}

// Accepting a connection, the client's side included.
func BenchmarkAccept(b *testing.B) {
	for _, bb := range []struct {
		name  string
		relay bool
	}{{"relay", true}, {"holdfast", false}} {
		b.Run(bb.name, func(b *testing.B) {
			var h http.Handler = http.HandlerFunc(relay)
			if !bb.relay {
				h = echoHandler(b)
			}
			web := httptest.NewServer(h)
			defer web.Close()
			b.ReportAllocs()
			for b.Loop() {
				conn, err := net.Dial("tcp", web.Listener.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				upgradeRaw(b, conn)
				_ = conn.Close()
			}
		})
	}
}

// The writer starts and ends without a word lost, whoever wakes it.
func BenchmarkWake(b *testing.B) {
	var pulls atomic.Int64
	t := &transport{}
	t.run = func() {
		for t.state.CompareAndSwap(writerPending, writerRunning) {
			pulls.Add(1)
			if t.state.CompareAndSwap(writerRunning, writerIdle) {
				return
			}
		}
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			t.Wake()
		}
	})
}
