package bosh

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/internal/httpconn"
	"holdfast/session"
)

// transport is one BOSH session. It implements [session.Transport].
type transport struct {
	// static
	srv        *Server
	stream     session.CarriedStream
	sid        string
	addr       netip.Addr // what the gate counts it under
	peer       session.Peer
	born       int64 // in the watch's time
	wait       time.Duration
	inactivity time.Duration
	hold       int
	requests   uint64
	legacy     bool   // the client sent no 'ver': it expects HTTP's errors
	acks       bool   // the client says which responses it has
	content    string // Content-Type of all responses
	lang       string
	ver        string // what the first response says

	// Read and written without a lock: a stream may call with its own locks held.
	front   atomic.Pointer[waiter] // who can answer now: the oldest request that is held
	finish  atomic.Uint32          // how + 1; 0 while it lives
	probe   atomic.Bool            // the stream wants to know what has arrived
	due     atomic.Int64           // when the watch has to look, never for none
	authed  atomic.Bool
	expired atomic.Bool // the time to authenticate is over

	hmu    sync.Mutex // a leaf
	header session.Header

	// in is held during Open, Handle, Fail, PeerClosed and Lost of the stream; before mu.
	in   sync.Mutex
	skip uint64 // stanzas that an earlier process handled and the client sends again; the handling request's

	mu         sync.Mutex // before all locks of the stream but that of handling
	slots      []slot     // by rid; a power of two
	next       uint64     // the rid that is handled next, or is being handled
	answered   uint64     // all up to it have their response
	proven     uint64     // all up to it have arrived
	dropped    uint64     // all up to it are forgotten
	newest     uint64     // the highest that was received
	created    uint64     // that of the request for a session; 0 when an earlier process had it
	handling   bool
	base       uint64 // how much the stream had handled before next
	mark       uint64 // up to where frames were pulled
	marked     uint64 // the rid of the last response with a frame that is counted
	proved     uint64 // the mark that the stream was told
	keys       keyring
	pausing    time.Duration // the inactivity until the next request, 0 for the usual
	touched    int64         // the last request, response or loss of a connection
	report     uint64        // a response that the client seems not to have, 0 for none
	reportAt   int64         // when it was sent
	lastNew    int64         // when the last new request came in
	lastIdle   bool          // it was empty
	strikes    int           // requests that came too early in a row
	terminated bool          // the client said so
	over       bool
	why        ending

	shelf       uint32     // of the watch; static
	prev, later *transport // guarded by the shelf
}

var _ session.Transport = (*transport)(nil)

const never = int64(1) << 62

// waiter is a goroutine that may wait. It is used again for other sessions: a token may come for somebody else, so who is
// woken looks.
type waiter struct {
	wake <-chan struct{}
	conn *httpconn.Conn // that reads meanwhile; or
	own  chan struct{}
}

func newWaiter() any {
	w := &waiter{own: make(chan struct{}, 1)}
	w.wake = w.own
	return w
}

func (w *waiter) signal() {
	if w.conn != nil {
		w.conn.Wake()
		return
	}
	select {
	case w.own <- struct{}{}:
	default:
	}
}

// Header is [session.Transport]'s. There is no stream header in BOSH (XEP-0206 §4): what it says goes into the first
// response.
func (t *transport) Header(h session.Header) []byte {
	t.hmu.Lock()
	t.header = h
	t.hmu.Unlock()
	return nil
}

func (t *transport) said() session.Header {
	t.hmu.Lock()
	defer t.hmu.Unlock()
	return t.header
}

// Wake is [session.Transport]'s. When no request is held the next one will see what there is: a request shows itself in
// front before it looks.
func (t *transport) Wake() {
	if w := t.front.Load(); w != nil {
		w.signal()
	}
}

// Probe is [session.Transport]'s. The held request is answered, for the next one to prove what arrived.
func (t *transport) Probe() {
	if t.hold == 0 {
		return // it comes back by itself
	}
	t.probe.Store(true)
	t.Wake()
}

// Finish is [session.Transport]'s. The first call decides, but Broken cuts short what the others began.
func (t *transport) Finish(how session.Finish) {
	if how == session.Broken {
		t.finish.Store(uint32(how) + 1)
		go t.finishNow()
		return
	}
	if !t.finish.CompareAndSwap(0, uint32(how)+1) {
		return
	}
	if w := t.front.Load(); w != nil {
		w.signal()
		return
	}
	go t.finishNow()
}

// finishNow ends a session that had no request in front to do it.
func (t *transport) finishNow() {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch how := session.Finish(t.finish.Load() - 1); {
	case t.over:
	case how == session.Broken:
		t.finishLocked(how, nil)
	default:
		t.pump()
	}
}

// finishIdle ends a session that has no request to tell it to, when it is to end. A stream that ended properly still has
// something to say: the next request is told, if it comes soon. What is being handled is seen to by who handles it.
func (t *transport) finishIdle() {
	switch how := t.finish.Load(); {
	case t.handling:
	case how == uint32(session.Restarting)+1:
		t.restarting()
	case how == uint32(session.Closed)+1 && !t.authed.Load():
		// A stranger's place is not kept for the sake of its last words.
		t.answerAll(response{kind: terminate}, response{kind: terminate})
		t.endLocked(endClosed)
	}
}

// stopWaiting ends a session that waits for a request to tell its end to.
func (t *transport) stopWaiting() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over && !t.handling && t.finish.Load() == uint32(session.Closed)+1 && t.held() == nil {
		t.answerAll(response{kind: terminate}, response{kind: terminate})
		t.endLocked(endClosed)
	}
}

// endLocked takes the session out of the world. The caller has seen to the open requests.
func (t *transport) endLocked(why ending) {
	if t.over {
		return
	}
	t.over, t.why = true, why
	t.front.Store(nil)
	t.due.Store(never)
	for i := range t.slots {
		if s := &t.slots[i]; s.handler != nil { // it waits for its turn
			s.handler.signal()
		}
	}
	t.srv.forget(t)
	go t.lose()
}

// lose tells the stream, once nothing is being handled any more.
func (t *transport) lose() {
	defer t.srv.door.Leave()
	t.in.Lock()
	defer t.in.Unlock()
	t.mu.Lock()
	why := t.why
	t.mu.Unlock()
	t.stream.Lost(endings[why].err)
	t.srv.gate.Leave(t.addr, t.authed.Load())
	t.srv.met.ended.WithLabelValues(endings[why].label).Inc()
	t.srv.log.Debug("bosh session ended", "reason", endings[why].label)
}

// sayAuthenticated asks the stream and, once it says so, lifts what binds a stranger.
func (t *transport) sayAuthenticated() bool {
	if t.authed.Load() {
		return true
	}
	if !t.stream.Authenticated() {
		return false
	}
	if t.authed.CompareAndSwap(false, true) {
		t.srv.gate.Authenticated(t.addr)
	}
	return true
}

// timeouts is the watch's look at a session. It blocks on nothing.
func (t *transport) timeouts(now int64) {
	if limit := t.srv.cfg.AuthTimeout; limit > 0 && now-t.born >= int64(limit) && !t.sayAuthenticated() && t.expired.CompareAndSwap(false, true) {
		go t.fail(errTimeout)
	}
	if now < t.due.Load() {
		return
	}
	if w := t.front.Load(); w != nil {
		w.signal()
		return
	}
	go t.expire()
}

// expire ends a session whose client is gone (XEP-0124 §10).
func (t *transport) expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over || t.srv.watch.time() < t.due.Load() || t.front.Load() != nil {
		return
	}
	t.answerAll(response{kind: terminate, cond: itemNotFound}, response{kind: terminate, cond: itemNotFound})
	why := endInactive
	if t.finish.Load() == uint32(session.Closed)+1 {
		why = endClosed
	}
	t.endLocked(why)
}
