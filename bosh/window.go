package bosh

import (
	"time"

	"holdfast/session"
	"holdfast/stanza"
)

// The rid window (XEP-0124 §14). A request goes through
//
//	waiting   received; those before it have not all been handled
//	open      handled, and held until there is something to say
//	answered  its response is fixed, and kept until it is known to have arrived
//
// Whoever received a request first handles it, in its turn, with the bytes it has; the response goes to the newest
// connection that asked for it, which is another one when the client sends the request again.

type slotState uint8

const (
	free slotState = iota
	waiting
	open
	answered
)

// slot is one request.
type slot struct {
	rid      uint64
	state    slotState
	hurry    bool // it is answered at once
	repeats  uint8
	key      key
	handler  *waiter // while waiting
	live     *waiter // the connection that gets the response, nil for none
	deadline int64   // when it has been held for long enough
	handled  uint64  // how much the stream had handled with it
	resp     response
}

// maxRepeats is how often one request may be sent again (XEP-0124 §14.3).
const maxRepeats = 64

// at returns the slot of a rid that was received and is not forgotten.
func (t *transport) at(rid uint64) *slot {
	if s := &t.slots[rid&uint64(len(t.slots)-1)]; s.rid == rid && s.state != free {
		return s
	}
	return nil
}

// makeSlots makes room for the responses that may have to be repeated and the requests that may come.
func (t *transport) makeSlots() {
	n := 4
	for n < 2*int(t.requests) {
		n *= 2
	}
	t.slots = make([]slot, n)
}

// arrival is what becomes of a request that came in.
type arrival uint8

const (
	mine   arrival = iota // the caller handles it, in its turn
	joined                // the response goes to the caller, who has nothing to handle
	gone                  // the session is over
	broken                // the request broke a rule, the session is over
)

// arrive takes a request in. The condition belongs to broken.
func (t *transport) arrive(w *waiter, b *body) (arrival, condition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return gone, none
	}
	now := t.srv.watch.time()
	t.touched, t.pausing = now, 0
	if s := t.at(b.rid); s != nil {
		return t.again(s, w, b, now)
	}
	switch last := t.next - 1 + t.requests; {
	case b.rid < t.next:
		// An old copy, which a balancer made or a node that was paused kept: it is refused by itself. What the client asks
		// now must not end over it.
		t.srv.met.violations.WithLabelValues(violationOld).Inc()
		return broken, itemNotFound
	case b.rid <= last:
	case b.rid > last+1 || !t.fullLocked():
		return t.violation(violationOutside, itemNotFound)
	case !b.terminates() && !b.hasPause, b.rid-t.proven > uint64(len(t.slots)):
		// One more may end or pause the session (XEP-0124 §11).
		return t.violation(violationOveractive, policyViolation)
	}
	if t.tooEarly(b, now) {
		return t.violation(violationOveractive, policyViolation)
	}
	s := &t.slots[b.rid&uint64(len(t.slots)-1)]
	clear(s.resp.frames)
	frames, attrs := s.resp.frames[:0], s.resp.attrs[:0]
	*s = slot{rid: b.rid, state: waiting, handler: w, live: w, deadline: t.heldUntil(now)}
	s.resp.frames, s.resp.attrs = frames, attrs
	s.key, _ = parseKey(b.key) // whether it is right shows in its turn
	t.newest = max(t.newest, b.rid)
	t.schedule()
	return mine, none
}

// heldUntil is when a request that comes now has waited long enough. The watch may be late by a period, wait is a promise.
func (t *transport) heldUntil(now int64) int64 { return now + max(int64(t.wait-period), 0) }

// fullLocked reports whether the client has as many requests open as it may.
func (t *transport) fullLocked() bool {
	for rid := t.next; rid < t.next+t.requests; rid++ {
		if t.at(rid) == nil {
			return false
		}
	}
	return true
}

// tooEarly applies XEP-0124 §11 and §12 to a new request.
func (t *transport) tooEarly(b *body, now int64) bool {
	empty, before, lastIdle := b.empty(), t.lastNew, t.lastIdle
	t.lastNew, t.lastIdle = now, empty
	limit := int64(t.srv.cfg.Polling)
	if limit == 0 || !empty || before == 0 || now-before >= limit-limit/10 { // clocks and networks are not exact
		t.strikes = 0
		return false
	}
	if t.polls() {
		// Two empty requests in a row, and the answer to the first was empty too.
		s := t.at(b.rid - 1)
		return lastIdle && (s == nil || s.state == answered && len(s.resp.frames) == 0)
	}
	held := uint64(1)
	for rid := t.answered + 1; rid <= t.newest; rid++ {
		if s := t.at(rid); s != nil && s.live != nil && s.state != answered {
			held++
		}
	}
	if held < t.requests {
		t.strikes = 0
		return false
	}
	// A page that is loaded anew goes on with the next rid, and that its old request is gone may not have come through.
	// So once is not too often.
	t.strikes++
	return t.strikes > 1
}

func (t *transport) polls() bool { return t.hold == 0 || t.wait == 0 }

// again takes a request that was received before (XEP-0124 §14.3).
func (t *transport) again(s *slot, w *waiter, b *body, now int64) (arrival, condition) {
	if t.keys.used() {
		if k, ok := parseKey(b.key); !ok || k != s.key {
			return t.violation(violationKey, itemNotFound)
		}
	}
	if s.repeats++; s.repeats > maxRepeats {
		return t.violation(violationOveractive, policyViolation)
	}
	t.srv.met.repeats.Add(1)
	if s.live != nil && s.state != answered {
		s.live.signal() // it finds that it is not the one any more
	}
	s.live = w
	s.deadline = t.heldUntil(now)
	t.pump() // it may be the one in front now
	return joined, none
}

// violation ends the session for what the client did.
func (t *transport) violation(kind string, cond condition) (arrival, condition) {
	if kind != "" {
		t.srv.met.violations.WithLabelValues(kind).Inc()
	}
	other := response{kind: terminate, cond: otherRequest}
	t.answerAll(other, other)
	t.endLocked(endRejected)
	return broken, cond
}

// turn waits until all requests before rid are handled. It reports false when the session is over.
func (t *transport) turn(w *waiter, rid uint64) bool {
	for {
		t.mu.Lock()
		over, now := t.over, t.next == rid && !t.handling
		if now && !over {
			t.handling = true
			t.schedule()
		}
		t.mu.Unlock()
		if over || now {
			return !over
		}
		<-w.wake
	}
}

// take handles the request whose turn it is.
func (t *transport) take(c *call) (arrival, condition) {
	b := &c.body
	t.mu.Lock()
	if !t.keys.accept(b) {
		defer t.mu.Unlock()
		t.handling = false
		return t.violation(violationKey, itemNotFound)
	}
	cond := t.prove(b)
	pause, ok := t.pauseOf(b)
	if !ok {
		cond = badRequest
		if t.srv.cfg.MaxPause > 0 && pause > t.srv.cfg.MaxPause {
			cond = policyViolation
		}
	}
	if cond != none {
		defer t.mu.Unlock()
		t.handling = false
		return t.violation("", cond)
	}
	t.mu.Unlock()

	counted, done := t.hand(c)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.handling = false
	if !t.over && !done {
		t.restarting()
	}
	if t.over {
		return gone, none
	}
	t.advance(b, counted, pause)
	return mine, none
}

// hand gives the stream what is in a request and returns how many stanzas that were. When the service goes away
// meanwhile it reports that the request is not done: the client sends it again, to who goes on with the session.
func (t *transport) hand(c *call) (counted uint64, done bool) {
	b := &c.body
	t.in.Lock()
	defer t.in.Unlock()
	defer t.recovered()
	if how := t.finish.Load(); how != 0 {
		return 0, how == uint32(session.Closed)+1
	}
	if b.restart { // XEP-0206 §5: what else is in it is ignored
		t.stream.Open(session.Open{To: b.elem.Attr("to"), From: b.elem.Attr("from"), Version: "1.0", Lang: t.language(b)})
		return 0, true
	}
	lim := t.srv.limits(t.srv.cfg.bodyLimit(t.authed.Load()))
	for i := range b.elem.NumChildren() {
		if err := b.child(&c.elem, i, lim); err != nil {
			t.stream.Fail(streamError(err))
			break
		}
		if c.elem.Kind() != stanza.Other {
			counted++
			if t.skip > 0 {
				t.skip--
				continue
			}
		}
		t.stream.Handle(&c.elem)
		if t.finish.Load() != 0 {
			break
		}
	}
	t.sayAuthenticated()
	if how := t.finish.Load(); how != 0 && how != uint32(session.Closed)+1 {
		return counted, false
	}
	if b.terminates() {
		t.mu.Lock()
		t.terminated = true
		t.mu.Unlock()
		t.stream.PeerClosed()
		t.finish.CompareAndSwap(0, uint32(session.Closed)+1) // at the latest now
	}
	return counted, true
}

func (t *transport) language(b *body) string {
	if len(b.lang) > 0 {
		return b.elem.Attr("xml:lang")
	}
	return t.lang
}

// advance goes on to the next request after one was handled.
func (t *transport) advance(b *body, counted uint64, pause time.Duration) {
	s := t.at(b.rid)
	s.state, s.handler = open, nil
	s.hurry = s.hurry || t.polls() || b.terminates()
	t.next++
	if t.skip > 0 {
		t.base += counted
	} else {
		t.base = t.stream.Handled()
	}
	s.handled = t.base
	t.touched = t.srv.watch.time()
	if n := t.at(t.next); n != nil && n.state == waiting && n.handler != nil {
		n.handler.signal()
	}
	if b.hasPause {
		// The answers to all open requests, this one too, are empty (XEP-0124 §10).
		for rid := t.answered + 1; rid < t.next; rid++ {
			t.fix(t.at(rid), response{})
		}
		t.pausing = pause
		t.keep()
	}
	t.pump()
}

// pauseOf reads how long the client wants to be away. ok is false when that is nothing it may say.
func (t *transport) pauseOf(b *body) (d time.Duration, ok bool) {
	if !b.hasPause {
		return 0, true
	}
	n, valid := number(b.pause)
	if !valid || n > 1<<31 || t.srv.cfg.MaxPause == 0 {
		return 0, false
	}
	d = time.Duration(n) * time.Second
	return d, d <= t.srv.cfg.MaxPause
}

// prove takes what the request whose turn it is says of the responses that arrived (XEP-0124 §9.2): a client that may have
// n requests open has the response to the n-th before this one, and one that acknowledges says so.
func (t *transport) prove(b *body) condition {
	window := t.requests
	if b.terminates() || b.hasPause {
		window++ // one more may be open (XEP-0124 §11)
	}
	has := b.rid - min(b.rid, window)
	if t.acks {
		ack := b.rid - 1
		if b.hasAck {
			var ok bool
			if ack, ok = number(b.ack); !ok {
				return badRequest
			}
		}
		has = max(has, ack)
		if s := t.at(ack + 1); b.hasAck && ack < t.answered && s != nil && s.state == answered {
			t.report, t.reportAt = s.rid, s.resp.at
			if t.touched-t.reportAt >= int64(reportAfter) {
				t.at(b.rid).hurry = true
			}
		}
	}
	for t.dropped+window < b.rid && t.dropped < t.answered {
		t.dropped++
		if s := t.at(t.dropped); s != nil && t.dropped > t.proven {
			t.proveSlot(s)
		}
		t.drop(t.dropped)
	}
	has = min(has, t.answered)
	for t.proven < has {
		t.proven++
		if s := t.at(t.proven); s != nil {
			t.proveSlot(s)
		}
	}
	return none
}

// proveSlot tells the stream that a response arrived.
func (t *transport) proveSlot(s *slot) {
	if s.resp.mark > t.proved {
		t.proved = s.resp.mark
		t.stream.Proved(t.proved)
	}
}

// reportAfter is how old a response must be that the client does not have for the report to be sent at once: one that is
// younger is probably on its way.
const reportAfter = 250 * time.Millisecond

// drop forgets a response that cannot be asked for any more.
func (t *transport) drop(rid uint64) {
	if s := t.at(rid); s != nil {
		clear(s.resp.frames)
		s.resp.frames, s.state = s.resp.frames[:0], free
		if cap(s.resp.attrs) > 64 { // the first response says much
			s.resp.attrs = nil
		}
	}
}
