package bosh

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"holdfast/internal/testkit/pipes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
	lis  *pipes.Listener
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
	h.lis = pipes.New()
	h.http = &http.Server{Handler: h.Server, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	h.hc = &http.Client{Transport: &http.Transport{DialContext: h.dial, DisableCompression: true, MaxIdleConnsPerHost: 8}}
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

func (h *harness) dial(context.Context, string, string) (net.Conn, error) { return h.lis.Dial() }

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
