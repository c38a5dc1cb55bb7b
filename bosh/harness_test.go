package bosh

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"holdfast/session"
	"holdfast/stanza"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	features = `<stream:features xmlns:stream='http://etherx.jabber.org/streams'><m/></stream:features>`
	success  = `<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>`
	bound    = `<iq xmlns='jabber:client' type='result' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>`
)

// fakeService is the session layer: what it knows survives a Server.
type fakeService struct {
	mu       sync.Mutex
	sids     map[string]*fakeSession
	streams  chan *fakeStream
	settled  chan struct{} // nil: everything is settled at once
	draining bool
	killed   bool                   // and nobody has taken over yet
	bad      atomic.Pointer[string] // a call that a stream must never see
}

// fakeSession is what survives a transport.
type fakeSession struct {
	outbox  []string // by place, from 1
	proved  uint64
	sent    uint64
	handled []string
	kept    []byte
	sid     string
	linger  time.Duration
	stream  *fakeStream
}

type fakeStream struct {
	svc  *fakeService
	t    session.Transport
	peer session.Peer
	hook func(e string)

	mu       sync.Mutex
	controls []string
	s        *fakeSession // once bound
	authed   bool
	events   []string
	lost     bool
	over     bool
	handling bool
	proved   uint64
}

func newFakeService() *fakeService {
	return &fakeService{sids: make(map[string]*fakeSession), streams: make(chan *fakeStream, 4096)}
}

func (f *fakeService) New(t session.Transport, p session.Peer) session.CarriedStream {
	s := &fakeStream{svc: f, t: t, peer: p}
	f.streams <- s
	return s
}

func (f *fakeService) Continue(sid string, attach func([]byte) (session.Transport, session.Peer, uint64, error)) (session.CarriedStream, uint64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sids[sid]
	if s == nil || s.stream != nil {
		return nil, 0, false
	}
	t, p, sent, err := attach(slices.Clone(s.kept))
	if err != nil {
		f.never("unreadable state: %v", err)
		return nil, 0, false
	}
	s.sent = sent
	st := &fakeStream{svc: f, t: t, peer: p, s: s, authed: true}
	s.stream = st
	t.Wake()
	return st, uint64(len(s.handled)), true
}

func (f *fakeService) never(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	f.bad.CompareAndSwap(nil, &s)
}

// kill is the end of a process: streams are no more, sessions stay.
func (f *fakeService) kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.killed = true
	for _, s := range f.sids {
		if s.stream != nil {
			s.stream.mu.Lock()
			s.stream.over, s.stream.s = true, nil
			s.stream.mu.Unlock()
			s.stream = nil
		}
	}
}

func (st *fakeStream) note(format string, args ...any) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.events = append(st.events, fmt.Sprintf(format, args...))
}

func (st *fakeStream) seen() []string {
	st.mu.Lock()
	defer st.mu.Unlock()
	return slices.Clone(st.events)
}

func (st *fakeStream) control(frames ...string) {
	st.mu.Lock()
	st.controls = append(st.controls, frames...)
	st.mu.Unlock()
	st.t.Wake()
}

// send gives the client stanzas.
func (st *fakeStream) send(frames ...string) {
	st.svc.mu.Lock()
	st.mu.Lock()
	if st.s != nil {
		st.s.outbox = append(st.s.outbox, frames...)
	}
	st.mu.Unlock()
	st.svc.mu.Unlock()
	st.t.Wake()
}

func (st *fakeStream) Open(o session.Open) {
	st.note("open:%s", o.To)
	from := o.To
	if from == "" {
		from = "localhost"
	}
	h := st.t.Header(session.Header{ID: "stream1", From: from, Lang: o.Lang})
	if from == "unknown" {
		st.control(string(h), string(stanza.HostUnknown.Raw()))
		st.t.Finish(session.Closed)
		return
	}
	st.control(string(h), features)
}

func (st *fakeStream) Handle(e *stanza.Element) {
	raw := string(e.Raw())
	st.mu.Lock()
	if st.lost || st.handling {
		st.svc.never("Handle, lost %v, handling %v", st.lost, st.handling)
	}
	st.handling = true
	hook := st.hook
	st.mu.Unlock()
	if hook != nil {
		hook(raw)
	}
	st.mu.Lock()
	st.handling = false
	over := st.over
	st.events = append(st.events, "handle:"+raw)
	st.mu.Unlock()
	switch {
	case over:
	case string(e.Name()) == "auth":
		st.mu.Lock()
		st.authed = true
		st.mu.Unlock()
		st.control(success)
	case e.Kind() == stanza.IQ && strings.Contains(raw, stanza.NSBind):
		st.mu.Lock()
		st.s = &fakeSession{stream: st}
		st.mu.Unlock()
		st.control(bound)
	case e.Kind() != stanza.Other:
		st.svc.mu.Lock()
		st.mu.Lock()
		if st.s != nil {
			st.s.handled = append(st.s.handled, raw)
		}
		st.mu.Unlock()
		st.svc.mu.Unlock()
	}
}

func (st *fakeStream) Fail(err stanza.StreamError) {
	st.note("fail:%s", err.Condition)
	st.control(string(err.Raw()))
	st.t.Finish(session.Closed)
}

func (st *fakeStream) PeerClosed() {
	st.note("peerclosed")
	st.t.Finish(session.Closed)
}

func (st *fakeStream) Pull(b *session.Batch) bool {
	st.svc.mu.Lock()
	defer st.svc.mu.Unlock()
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.lost {
		st.svc.never("Pull, lost")
	}
	for _, c := range st.controls {
		b.Frames = append(b.Frames, []byte(c))
	}
	st.controls = nil
	if st.s != nil {
		for st.s.sent < uint64(len(st.s.outbox)) && len(b.Frames) < 16 {
			b.Frames = append(b.Frames, []byte(st.s.outbox[st.s.sent]))
			st.s.sent++
		}
		b.Mark = st.s.sent
	}
	return len(b.Frames) > 0
}

func (st *fakeStream) Proved(mark uint64) {
	st.svc.mu.Lock()
	defer st.svc.mu.Unlock()
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.lost || st.s != nil && (mark > st.s.sent || mark < st.proved) {
		st.svc.never("Proved(%d), lost %v, proved %d", mark, st.lost, st.proved)
	}
	st.proved = mark
	if st.s != nil {
		st.s.proved = max(st.s.proved, mark) // an earlier process may have known more than it noted
	}
	st.events = append(st.events, fmt.Sprintf("proved:%d", mark))
}

func (st *fakeStream) Authenticated() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.authed
}

func (st *fakeStream) Lost(err error) {
	st.svc.mu.Lock()
	defer st.svc.mu.Unlock()
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.lost || st.handling {
		st.svc.never("Lost, lost %v, handling %v", st.lost, st.handling)
	}
	st.lost = true
	if st.s != nil && st.s.stream == st {
		st.s.stream = nil
		if !st.svc.draining {
			delete(st.svc.sids, st.s.sid)
		}
	}
	st.events = append(st.events, lost(err))
}

func (st *fakeStream) Keep(sid string, state []byte, linger time.Duration) {
	st.svc.mu.Lock()
	defer st.svc.mu.Unlock()
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.s == nil || st.over {
		return
	}
	st.s.sid, st.s.kept, st.s.linger = sid, slices.Clone(state), linger
	st.svc.sids[sid] = st.s
}

func (st *fakeStream) Settle(ctx context.Context, _ uint64) error {
	st.svc.mu.Lock()
	wait := st.svc.settled
	st.mu.Lock()
	over := st.over
	st.mu.Unlock()
	st.svc.mu.Unlock()
	if over {
		<-ctx.Done() // a process that died writes nothing
		return ctx.Err()
	}
	if wait == nil {
		return nil
	}
	select {
	case <-wait:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (st *fakeStream) Handled() uint64 {
	st.svc.mu.Lock()
	defer st.svc.mu.Unlock()
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.s == nil {
		return 0
	}
	return uint64(len(st.s.handled))
}

func (st *fakeStream) Again(frames [][]byte, from, to uint64) [][]byte {
	st.svc.mu.Lock()
	defer st.svc.mu.Unlock()
	for place := max(from, st.s.proved) + 1; place <= min(to, uint64(len(st.s.outbox))); place++ {
		frames = append(frames, []byte(st.s.outbox[place-1]))
	}
	return frames
}

func lost(err error) string {
	if err == nil {
		return "lost:nil"
	}
	return "lost:" + err.Error()
}

// harness is a server behind pipes, within a bubble of synctest.
type harness struct {
	t   *testing.T
	svc *fakeService
	cfg Config
	*Server
	lis  *pipes
	http *http.Server
	hc   *http.Client
	reg  *prometheus.Registry

	elsewhere Elsewhere
}

func config(edit func(*Config)) Config {
	cfg := DefaultConfig()
	cfg.MaxUnauthenticatedPerAddr = 0
	if edit != nil {
		edit(&cfg)
	}
	return cfg
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, edit func(*Config), f func(t *testing.T, h *harness)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &harness{t: t, svc: newFakeService(), cfg: config(edit)}
		h.start()
		defer h.stop()
		f(t, h)
	})
}

func (h *harness) start() {
	h.t.Helper()
	h.reg = prometheus.NewRegistry()
	var err error
	h.Server, err = New(h.cfg, slog.New(slog.DiscardHandler), h.reg, Streams{New: h.svc.New, Continue: h.svc.Continue, Elsewhere: h.elsewhere})
	if err != nil {
		h.t.Fatal(err)
	}
	h.lis = newPipes()
	h.http = &http.Server{Handler: h.Server, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	h.hc = &http.Client{Transport: &http.Transport{DialContext: h.lis.dial, DisableCompression: true, MaxIdleConnsPerHost: 8}}
	go func() { _ = h.http.Serve(h.lis) }()
}

func (h *harness) stop() {
	_ = h.http.Close()
	if err := h.Close(); err != nil {
		h.t.Error(err)
	}
	time.Sleep(time.Second) // net/http lets a client read an error
	synctest.Wait()
	h.hc.CloseIdleConnections()
	synctest.Wait()
	if bad := h.svc.bad.Load(); bad != nil {
		h.t.Errorf("a call that a stream must never see: %s", *bad)
	}
}

// restart is a kill -9 and a new process.
func (h *harness) restart() {
	h.svc.kill()
	_ = h.http.Close()
	_ = h.Close()
	synctest.Wait()
	h.hc.CloseIdleConnections()
	h.svc.mu.Lock()
	h.svc.killed = false
	h.svc.mu.Unlock()
	h.start()
}

type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, io.EOF
	}
}

func (l *pipes) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// local is a pipe that says it comes from this machine.
type local struct{ net.Conn }

func (local) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (l *pipes) dial(context.Context, string, string) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case l.conns <- local{a}:
		return b, nil
	case <-l.done:
		return nil, io.EOF
	}
}

// answer is what came back for a request.
type answer struct {
	status int
	header http.Header
	body   string
	err    error
	at     time.Time
}

func (a answer) String() string {
	return fmt.Sprintf("%d %q %v", a.status, a.body, a.err)
}

// pending is a request that was sent.
type pending struct {
	done   chan answer
	cancel context.CancelFunc
	got    *answer
}

func (h *harness) post(body string, edit ...func(*http.Request)) *pending {
	ctx, cancel := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost/http-bind", strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	for _, e := range edit {
		e(r)
	}
	p := &pending{done: make(chan answer, 1), cancel: cancel}
	hc := h.hc
	go func() {
		defer cancel()
		resp, err := hc.Do(r)
		if err != nil {
			p.done <- answer{err: err}
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		p.done <- answer{status: resp.StatusCode, header: resp.Header, body: string(b), err: err, at: time.Now()}
	}()
	return p
}

// now returns the answer that is there without time passing, nil when the request is held.
func (p *pending) now() *answer {
	synctest.Wait()
	select {
	case a := <-p.done:
		p.got = &a
	default:
	}
	return p.got
}

// wait waits for the answer.
func (p *pending) wait() answer {
	if p.got == nil {
		a := <-p.done
		p.got = &a
	}
	return *p.got
}

// client is the other end of a session.
type client struct {
	*harness
	sid string
	rid uint64
	st  *fakeStream
}

const createAttrs = ` to='localhost' wait='60' hold='1' ver='1.6' xml:lang='en' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'`

func wrap(rid uint64, attrs, inner string) string {
	b := fmt.Sprintf(`<body rid='%d' xmlns='http://jabber.org/protocol/httpbind'%s`, rid, attrs)
	if inner == "" {
		return b + "/>"
	}
	return b + ">" + inner + "</body>"
}

// create begins a session.
func (h *harness) create(attrs string) *client {
	h.t.Helper()
	c := &client{harness: h, rid: 1000}
	a := h.post(wrap(c.rid, attrs, "")).wait()
	c.sid = attr(a.body, "sid")
	if a.status != http.StatusOK || c.sid == "" {
		h.t.Fatalf("session not created: %v", a)
	}
	c.st = <-h.svc.streams
	return c
}

// login creates a session and binds it.
func (h *harness) login(attrs string) *client {
	h.t.Helper()
	c := h.create(attrs)
	for _, step := range []struct{ attrs, inner, want string }{
		{"", `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>x</auth>`, success},
		{` xmpp:restart='true' xmlns:xmpp='urn:xmpp:xbosh' to='localhost'`, "", features},
		{"", `<iq type='set' id='b' xmlns='jabber:client'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>`, bound},
	} {
		if a := c.next(step.attrs, step.inner).wait(); !strings.Contains(a.body, step.want) {
			h.t.Fatalf("got %v, want %s", a, step.want)
		}
	}
	return c
}

// at sends a request with any rid.
func (c *client) send(rid uint64, attrs, inner string) *pending {
	return c.post(wrap(rid, attrs+" sid='"+c.sid+"'", inner))
}

// next sends the next request.
func (c *client) next(attrs, inner string) *pending {
	c.rid++
	return c.send(c.rid, attrs, inner)
}

// attr reads an attribute of the answer's <body/>.
func attr(body, name string) string {
	tag, _, _ := strings.Cut(body, ">")
	_, rest, ok := strings.Cut(tag, " "+name+"='")
	if !ok {
		return ""
	}
	v, _, _ := strings.Cut(rest, "'")
	return v
}

func message(n int) string {
	return fmt.Sprintf(`<message xmlns='jabber:client' to='a@localhost'><body>m%d</body></message>`, n)
}

const emptyBody = `<body xmlns='http://jabber.org/protocol/httpbind'/>`

func terminated(cond string) string {
	if cond == "" {
		return `<body xmlns='http://jabber.org/protocol/httpbind' type='terminate'/>`
	}
	return `<body xmlns='http://jabber.org/protocol/httpbind' type='terminate' condition='` + cond + `'/>`
}
