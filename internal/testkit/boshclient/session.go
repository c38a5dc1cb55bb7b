package boshclient

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"holdfast/internal/testkit/xmppclient"
)

// Config is a session's. URL and Domain are needed; zero values of the rest stand for what is said there.
type Config struct {
	URL    string
	Roots  *x509.CertPool // who signs the certificate of an https URL
	Domain string

	Wait time.Duration // whole seconds: 2 s
	Hold int           // 1; the window is what the server says
	Acks bool          // the client acknowledges responses (XEP-0124 §9.2)
	Keys int           // length of a sequence of keys, from 2; 0 protects nothing with keys

	RepeatEvery int           // of how many answered requests one is sent again, to be answered with the same: 0 for none
	Batch       int           // stanzas in one request: 20
	Patience    time.Duration // beyond wait, after which a request counts as lost: 2 s
	Backoff     time.Duration // before a request is sent again: 50 ms
	GiveUp      time.Duration // after which a request that is never answered ends the session: 30 s
	Once        bool          // nothing is sent again: the first lost request ends the session

	Stats  *Stats // counts here, over many sessions; nil counts nowhere
	Faults *xmppclient.Faults
}

// Stats counts what a client's sessions did.
type Stats struct {
	mu sync.Mutex
	Counts
}

// Counts are the numbers of Stats.
type Counts struct {
	Sessions    int // that were created
	Requests    int // new rids
	Retried     int // requests sent again because no answer came
	Unavailable int // answers 502, 503 and 504
	Recoverable int // answers of type error
	Repeated    int // answered requests that were sent again and answered with the same
	Early       int // empty answers before wait had passed, to the only request there was: the server wants to hear from the client
	Reports     int // answers that told of a response that is not known to have arrived
}

func (s *Stats) count(do func(*Counts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do(&s.Counts)
}

// Get returns the counts so far.
func (s *Stats) Get() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Counts
}

// Ended is how a session ended: what the server said with a terminating body, or what made the client give up. Trace tells
// the last requests, oldest first.
type Ended struct {
	Condition string // empty after a proper end
	Err       error  // what the client could not get over, nil when the server ended the session
	Trace     []string
}

func (e *Ended) Error() string {
	switch {
	case e.Err != nil:
		return "boshclient: the session is given up: " + e.Err.Error()
	case e.Condition == "":
		return "boshclient: the session is terminated"
	}
	return "boshclient: the session is terminated: " + e.Condition
}

func (e *Ended) Unwrap() error { return e.Err }

// How names the end in few words.
func (e *Ended) How() string {
	switch {
	case e.Err != nil:
		return "given up"
	case e.Condition == "":
		return "terminated"
	}
	return e.Condition
}

// Session is one BOSH session. Make one with Create.
type Session struct {
	cfg    Config
	http   *http.Client
	sid    string
	window uint64 // requests at once
	acking bool   // the server acknowledges requests (XEP-0124 §9.1)
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	changed xmppclient.Signal // something came, or ended is set

	settling sync.Mutex // held, before mu, while settled is called for one answer after the other
	mu       sync.Mutex
	keys     keys
	next     uint64 // rid of the next request
	base     uint64 // the lowest rid whose answer was not processed
	open     map[uint64]*request
	queue    []item
	readers  int // wait for something to come
	inbox    []*xmppclient.Element
	ended    *Ended
	trace    []string
}

// noteLocked keeps what happened last, for who has to find out why a session ended.
func (s *Session) noteLocked(format string, args ...any) {
	if len(s.trace) == 40 {
		s.trace = s.trace[1:]
	}
	s.trace = append(s.trace, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// item is something to send.
type item struct {
	xml     string
	attrs   string // of <body/>; an item with some goes with nothing after it
	settled func() // called when the request was answered, in order
}

type request struct {
	rid     uint64
	text    string
	items   []item
	sent    time.Time
	hurry   chan struct{} // closed when a later request was sent, so that this one is to be answered soon
	tries   int
	answer  *Response
	retired bool // its hurry is closed
}

// Create begins a session and returns it with the answer, whose children wait to be read.
func Create(ctx context.Context, cfg Config) (*Session, *Response, error) {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&cfg.Wait, 2*time.Second)
	def(&cfg.Patience, 2*time.Second)
	def(&cfg.Backoff, 50*time.Millisecond)
	def(&cfg.GiveUp, 30*time.Second)
	if cfg.Hold == 0 {
		cfg.Hold = 1
	}
	if cfg.Batch == 0 {
		cfg.Batch = 20
	}
	if cfg.Stats == nil {
		cfg.Stats = new(Stats)
	}
	if cfg.Faults == nil {
		cfg.Faults = new(xmppclient.Faults)
	}
	s := &Session{cfg: cfg, http: NewHTTP(cfg.Roots), keys: keys{length: cfg.Keys}, open: map[uint64]*request{}}
	rid := 1 + rand.Uint64N(1<<52) // an unprotected session's is to be hard to guess (XEP-0124 §14.1)
	extra := ""
	if cfg.Acks {
		extra = " ack='1'"
	}
	if cfg.Keys > 0 {
		extra += " newkey='" + s.keys.start() + "'"
	}
	resp, err := Post(ctx, s.http, cfg.URL, fmt.Sprintf(
		"<body xmlns='%s' rid='%d' to='%s' wait='%d' hold='%d' ver='1.11' xml:lang='en' content='%s' xmpp:version='1.0' xmlns:xmpp='%s'%s/>",
		NSBind, rid, xmppclient.Escape(cfg.Domain), cfg.Wait/time.Second, cfg.Hold, ContentType, NSXMPP, extra), nil)
	if err == nil && (resp.Status != http.StatusOK || resp.Kind() == "terminate") {
		err = &Ended{Condition: resp.Body.Attr("condition"), Err: fmt.Errorf("%d %s", resp.Status, resp.Text)}
	}
	if err == nil {
		err = s.begin(rid, resp)
	}
	if err != nil {
		s.http.CloseIdleConnections()
		return nil, resp, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	cfg.Stats.count(func(c *Counts) { c.Sessions++ })
	return s, resp, nil
}

// begin holds the answer to the creation to XEP-0124 §7.2 and takes from it what the session needs.
func (s *Session) begin(rid uint64, resp *Response) error {
	b := resp.Body
	if !b.Is(NSBind, "body") {
		return fmt.Errorf("boshclient: no <body/> in answer to a session request: %q", resp.Text)
	}
	number := func(name string, low, high int) int {
		n, err := strconv.Atoi(b.Attr(name))
		if err != nil || n < low || n > high {
			s.cfg.Faults.Add("%s is %q in %q; want %d to %d", name, b.Attr(name), resp.Text, low, high)
		}
		return n
	}
	wait, hold := number("wait", 0, int(s.cfg.Wait/time.Second)), number("hold", 0, s.cfg.Hold)
	number("inactivity", 1, 3600)
	number("polling", 0, 3600)
	s.window = uint64(max(number("requests", max(hold+1, 1), 100), 1))
	s.cfg.Wait = time.Duration(wait) * time.Second
	for _, name := range []string{"sid", "ver", "from"} {
		if b.Attr(name) == "" {
			s.cfg.Faults.Add("no %s in %q", name, resp.Text)
		}
	}
	s.checkHeader(resp)
	s.sid, s.base, s.next = b.Attr("sid"), rid+1, rid+1
	switch ack := b.Attr("ack"); ack {
	case "":
	case strconv.FormatUint(rid, 10):
		s.acking = true
	default:
		s.cfg.Faults.Add("ack is %q in the answer to a session request with rid %d", ack, rid)
	}
	s.inbox = b.Children
	return nil
}

func (s *Session) checkHeader(resp *Response) {
	if ct := resp.Header.Get("Content-Type"); !strings.EqualFold(strings.ReplaceAll(ct, " ", ""), "text/xml;charset=utf-8") {
		s.cfg.Faults.Add("Content-Type %q", ct)
	}
}

// SID is the session's id.
func (s *Session) SID() string { return s.sid }

// NextRID is the rid that the next request will have.
func (s *Session) NextRID() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

// Send queues something that is no more and no less than well-formed. settled, if there is one, is called when the
// request that carried it was answered.
func (s *Session) Send(xml string, settled func()) error {
	return s.put(item{xml: xml, settled: settled})
}

// Restart opens the stream anew (XEP-0206 §4).
func (s *Session) Restart(domain string) error {
	return s.put(item{attrs: fmt.Sprintf(" to='%s' xml:lang='en' xmpp:restart='true' xmlns:xmpp='%s'", xmppclient.Escape(domain), NSXMPP)})
}

// Terminate ends the session behind all that was queued. Next returns an Ended without a condition when the server has
// agreed.
func (s *Session) Terminate() error { return s.put(item{attrs: " type='terminate'"}) }

func (s *Session) put(it item) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return s.ended
	}
	s.queue = append(s.queue, it)
	s.pumpLocked()
	return nil
}

// Next returns what comes next, and at the end how the session ended. While it waits, a request is held.
func (s *Session) Next(ctx context.Context) (*xmppclient.Element, error) {
	s.mu.Lock()
	s.readers++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.readers--
		s.mu.Unlock()
	}()
	for {
		changed := s.changed.Changed()
		s.mu.Lock()
		if len(s.inbox) > 0 {
			e := s.inbox[0]
			s.inbox = s.inbox[1:]
			s.mu.Unlock()
			return e, nil
		}
		if s.ended != nil {
			defer s.mu.Unlock()
			return nil, s.ended
		}
		s.pumpLocked()
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Abort drops the session without a word and returns when none of its goroutines is left.
func (s *Session) Abort() {
	s.mu.Lock()
	s.endLocked(&Ended{Err: errors.New("aborted")})
	s.mu.Unlock()
	s.wg.Wait()
	s.http.CloseIdleConnections()
}

func (s *Session) endLocked(how *Ended) {
	if s.ended != nil {
		return
	}
	s.ended = how
	how.Trace = s.trace
	s.cancel()
	s.changed.Notify()
}

// pumpLocked sends new requests while there is room in the window and something to send, and one with nothing in it
// when no other is open and somebody waits in vain.
func (s *Session) pumpLocked() {
	poll := func() bool { return s.next == s.base && s.readers > 0 && len(s.inbox) == 0 }
	for s.ended == nil && s.next-s.base < s.window && (len(s.queue) > 0 || poll()) {
		r := &request{rid: s.next, sent: time.Now(), hurry: make(chan struct{})}
		var b strings.Builder
		fmt.Fprintf(&b, "<body xmlns='%s' rid='%d' sid='%s'", NSBind, r.rid, xmppclient.Escape(s.sid))
		if s.cfg.Acks && s.base != s.next {
			fmt.Fprintf(&b, " ack='%d'", s.base-1)
		}
		b.WriteString(s.keys.attributes())
		n, attrs := 0, ""
		for n < min(len(s.queue), s.cfg.Batch) && attrs == "" && (n == 0 || s.queue[n].attrs == "" || s.queue[n].attrs == " type='terminate'") {
			attrs = s.queue[n].attrs
			n++
		}
		r.items, s.queue = s.queue[:n:n], s.queue[n:]
		b.WriteString(attrs + ">")
		for _, it := range r.items {
			b.WriteString(it.xml)
		}
		b.WriteString("</body>")
		r.text = b.String()
		for _, before := range s.open {
			if !before.retired {
				before.retired = true
				close(before.hurry)
			}
		}
		s.open[r.rid] = r
		s.next++
		s.noteLocked("%d: new, %d items, %s", r.rid, n, attrs)
		s.cfg.Stats.count(func(c *Counts) { c.Requests++ })
		s.wg.Go(func() { s.run(r) })
	}
}
