package bosh

import (
	"context"
)

// hold makes c one that waits for its answer.
func (c *call) hold(t *transport) *waiter {
	c.held, c.rid = t, c.body.rid
	if c.w = c.line; c.w == nil {
		c.w = t.srv.waiters.Get().(*waiter)
	}
	return c.w
}

// serve takes a request of a session that is known up to where it is held, or has its answer.
func (t *transport) serve(c *call) {
	if t.peer.Secure && !c.peer.Secure {
		// Ending the session over it would let everybody do so who saw the sid (XEP-0124 §18.1).
		c.aborted = true
		return
	}
	w := c.hold(t)
	what, cond := t.arrive(w, &c.body)
	if what == mine {
		if t.turn(w, c.rid) {
			what, cond = t.take(c)
		} else {
			what = gone
		}
	}
	switch what {
	case broken:
		c.answer(&response{kind: terminate, cond: cond}, t.legacy, t.content)
	case gone:
		t.sayGone(c, c.rid)
	}
}

// sayGone answers a request that met the end of its session: what it was given when the session ended, or else what
// a request gets that comes later.
func (t *transport) sayGone(c *call, rid uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.at(rid); s != nil && s.state == answered {
		c.answer(&s.resp, t.legacy, t.content)
		return
	}
	r := response{kind: terminate, cond: itemNotFound}
	switch t.why {
	case endBroken, endRestarting, endServer:
		r = response{kind: unavailable}
	}
	c.answer(&r, t.legacy, t.content)
}

// await holds a request until its response is there, or its connection is gone.
func (t *transport) await(ctx context.Context, c *call) {
	if c.out != nil {
		return // answered already
	}
	for !t.respond(ctx, c) {
		if !c.w.wait(ctx) {
			t.detach(c.w, c.rid)
			c.aborted = true
			return
		}
		t.mu.Lock()
		t.pump()
		t.mu.Unlock()
	}
}

// wait waits for a signal. It reports false when the client is gone.
func (w *waiter) wait(ctx context.Context) bool {
	if w.conn != nil {
		return !w.conn.Wait()
	}
	select {
	case <-w.wake:
		return true
	case <-ctx.Done():
		return false
	}
}

// respond answers c with what there is for it. It reports false when that is nothing.
func (t *transport) respond(ctx context.Context, c *call) bool {
	t.mu.Lock()
	s := t.at(c.rid)
	switch {
	case s == nil || s.live != c.w:
		t.mu.Unlock()
		c.answer(&response{kind: failure}, t.legacy, t.content)
		return true
	case s.state != answered:
		t.mu.Unlock()
		return false
	}
	c.answer(&s.resp, t.legacy, t.content)
	s.live = nil
	settle := s.handled
	if t.acks {
		settle = t.base // 'ack' may be about later requests
	}
	t.mu.Unlock()
	if t.stream.Settle(ctx, settle) != nil {
		c.unsettled(ctx)
	}
	return true
}

// unsettled takes an answer back that would promise too much (contract 1). It is kept for when the client asks again.
func (c *call) unsettled(ctx context.Context) {
	if ctx.Err() != nil {
		c.aborted = true
		return
	}
	c.answer(&response{kind: unavailable}, false, textXML)
}

// detach notes that a connection is gone. The request stays, for the client to ask again.
func (t *transport) detach(w *waiter, rid uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.at(rid); s != nil && s.live == w {
		s.live = nil
		t.touched = t.srv.watch.time()
	}
	t.pump() // what woke us may have been for another request
}

// reject ends the session for a request that could not be read. With keys it is not believed to be the client's.
func (t *transport) reject() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over && !t.keys.used() {
		t.violation("", badRequest)
	}
}
