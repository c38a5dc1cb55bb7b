package bosh

import (
	"bytes"
	"errors"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"holdfast/session"
	"holdfast/stanza"
)

var batches = sync.Pool{New: func() any { return new(session.Batch) }}

var streamErrorTag = []byte("<stream:error")

// pump answers what can be answered. It is called with mu held, after everything that may make an answer due.
func (t *transport) pump() {
	if t.over {
		return
	}
	b := batches.Get().(*session.Batch)
	defer batches.Put(b)
	fixed := false
	for !t.over {
		first := t.at(t.answered + 1)
		if first == nil || first.state != open {
			t.front.Store(nil)
			t.finishIdle() // after that: Finish may have left it to who was in front, and that one has its answer
			break
		}
		if t.terminated && t.handling {
			break // the request that ends the session has its answer in line too
		}
		held := t.held()
		if held != nil {
			t.front.Store(held.live) // before Pull, see Wake
		} else {
			t.front.Store(nil)
		}
		how := t.finish.Load() // before Pull: what was queued before Finish is said before the end
		if held != nil && t.pull(b) {
			fixed = true
			t.deliver(held, b, how)
			b.Reset()
			continue
		}
		if how != 0 {
			if held == nil && how == uint32(session.Closed)+1 {
				t.finishIdle()
				break
			}
			t.finishLocked(session.Finish(how-1), held)
			fixed = true
			break
		}
		if !t.idleAnswer(first) {
			break
		}
		t.fix(first, response{})
		fixed = true
	}
	if fixed {
		t.keep()
	}
	t.schedule()
}

// held returns the first request in line that a connection waits for.
func (t *transport) held() *slot {
	for rid := t.answered + 1; rid < t.next; rid++ {
		if s := t.at(rid); s != nil && s.state == open && s.live != nil {
			return s
		}
	}
	return nil
}

// pull takes the next frames, without the empty one that stands for a stream header.
func (t *transport) pull(b *session.Batch) bool {
	for b.Reset(); t.stream.Pull(b); b.Reset() {
		n := 0
		for _, f := range b.Frames {
			if len(f) > 0 {
				b.Frames[n] = f
				n++
			}
		}
		clear(b.Frames[n:])
		if b.Frames = b.Frames[:n]; n > 0 {
			return true
		}
	}
	b.Reset() // it may have a mark
	return false
}

// deliver answers s with a batch, and what is in line before it with nothing.
func (t *transport) deliver(s *slot, b *session.Batch, how uint32) {
	for t.answered+1 < s.rid {
		t.fix(t.at(t.answered+1), response{})
	}
	r := response{frames: append(s.resp.frames[:0], b.Frames...), from: t.mark, mark: max(t.mark, b.Mark)}
	if how == uint32(session.Closed)+1 {
		// The end can be in the same response, unless there is very much.
		for n := 0; n < 16; n++ {
			if !t.pull(b) {
				r.kind = terminate
				break
			}
			r.frames = append(r.frames, b.Frames...)
			r.mark = max(r.mark, b.Mark)
		}
	}
	if e := r.frames[len(r.frames)-1]; bytes.HasPrefix(e, streamErrorTag) {
		r.kind, r.cond = terminate, remoteStreamError
		if c := ofCreation(streamCondition(e)); s.rid == t.created && c != remoteStreamError {
			r.cond, r.frames = c, r.frames[:0]
		}
	}
	if r.mark > t.mark {
		t.mark, t.marked = r.mark, s.rid
	}
	if r.kind != terminate {
		t.fix(s, r)
		return
	}
	t.finished(s, r)
}

// finished ends the session with r as the answer to s, and nothing for the other requests (XEP-0124 §13).
func (t *transport) finished(s *slot, r response) {
	t.fix(s, r)
	t.answerAll(response{}, response{kind: terminate})
	why := endClosed
	if t.terminated {
		why = endTerminated
	}
	t.keep() // while the session knows the stream
	t.endLocked(why)
}

// finishLocked ends the session after all that was to be said.
func (t *transport) finishLocked(how session.Finish, held *slot) {
	switch how {
	case session.Closed:
		for t.answered+1 < held.rid {
			t.fix(t.at(t.answered+1), response{})
		}
		t.finished(held, response{kind: terminate})
	case session.Restarting:
		t.restarting()
	default:
		t.answerAll(response{kind: unavailable}, response{kind: unavailable})
		t.endLocked(endBroken)
	}
}

// restarting lets go of the requests, and leaves the session to who comes after us. What was not handled is not answered.
func (t *transport) restarting() {
	if t.over {
		return
	}
	b := batches.Get().(*session.Batch)
	defer batches.Put(b)
	if s := t.held(); s != nil && t.pull(b) {
		t.deliver(s, b, 0)
		b.Reset()
	}
	t.answerAll(response{}, response{kind: unavailable})
	t.keep()
	t.endLocked(endRestarting)
}

// idleAnswer reports whether the first request in line is to be answered although there is nothing to say.
func (t *transport) idleAnswer(s *slot) bool {
	if s.hurry || int(t.next-1-t.answered) > t.hold {
		return true
	}
	if s.live == nil {
		return false
	}
	if t.srv.watch.time() >= s.deadline {
		return true
	}
	if t.probe.Load() {
		if t.proven < t.marked {
			return true
		}
		t.probe.Store(false)
	}
	return false
}

// answerAll fixes the response of all requests that have none: of those that were handled, and of those that were not.
func (t *transport) answerAll(handled, others response) {
	for rid := t.answered + 1; rid <= t.newest; rid++ {
		s := t.at(rid)
		if s == nil || s.state == answered {
			continue
		}
		r := others
		if s.state == open {
			r = handled
		}
		if rid == t.answered+1 && s.state == open {
			t.fix(s, r)
			continue
		}
		s.respond(r) // out of line: the session ends
	}
}

func (s *slot) respond(r response) {
	r.frames = append(s.resp.frames[:0], r.frames...)
	r.attrs = append(s.resp.attrs[:0], r.attrs...)
	s.resp = r
	s.state = answered
	if s.live != nil {
		s.live.signal()
	}
}

// fix makes r the response to s, the first in line.
func (t *transport) fix(s *slot, r response) {
	t.answered = s.rid
	t.touched = t.srv.watch.time()
	if len(r.frames) == 0 {
		r.frames, r.from, r.mark = s.resp.frames[:0], t.mark, t.mark
	}
	r.at = t.touched
	attrs := s.resp.attrs[:0]
	attrs = append(attrs, r.attrs...)
	if t.acks {
		if n := t.received(); n != s.rid && s.rid != t.created {
			attrs = strconv.AppendUint(append(attrs, " ack='"...), n, 10)
			attrs = append(attrs, '\'')
		}
		if t.report != 0 && r.kind == plain {
			attrs = strconv.AppendUint(append(attrs, " report='"...), t.report, 10)
			attrs = strconv.AppendInt(append(attrs, "' time='"...), (t.touched-t.reportAt)/1e6, 10)
			attrs = append(attrs, '\'')
			t.report = 0
		}
	}
	r.attrs = attrs
	if s.rid == t.created && r.kind != terminate {
		r.attrs = t.appendCreation(r.attrs)
	}
	s.resp = r
	s.state = answered
	t.srv.met.responses.Add(1)
	if s.live != nil {
		s.live.signal()
	}
}

// received is the highest rid up to which nothing is missing (XEP-0124 §9.1).
func (t *transport) received() uint64 {
	n := t.next - 1
	for s := t.at(n + 1); s != nil && s.rid <= t.newest; s = t.at(n + 1) {
		n++
	}
	return n
}

// lastWords is how long a session that has ended waits for a request to be told to.
const lastWords = 60 * time.Second

// schedule says when the watch has to look.
func (t *transport) schedule() {
	if t.over {
		return
	}
	due, inactivity := never, t.inactivity
	if t.finish.Load() != 0 && (inactivity == 0 || inactivity > lastWords) {
		inactivity = lastWords
	}
	switch held := t.held(); {
	case held != nil:
		due = held.deadline
	case t.handling:
	case inactivity == 0:
	case t.newest >= t.next: // a request before it is missing; the client finds out by itself, but not for ever
		due = t.touched + int64(t.wait+inactivity)
	case t.pausing > 0:
		due = t.touched + int64(t.pausing)
	default:
		due = t.touched + int64(inactivity)
	}
	t.due.Store(due)
}

// fail ends the stream for something that the transport found.
func (t *transport) fail(err stanza.StreamError) {
	t.in.Lock()
	t.mu.Lock()
	over := t.over
	t.mu.Unlock()
	if !over && t.finish.Load() == 0 {
		t.stream.Fail(err)
		t.Finish(session.Closed) // at the latest now
	}
	t.in.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pump()
}

var (
	errTimeout       = stanza.StreamError{Condition: "connection-timeout"}
	errNotWellFormed = stanza.StreamError{Condition: "not-well-formed"}
)

// streamError is the stream error for what a scan refused.
func streamError(err error) stanza.StreamError {
	var syntax *stanza.SyntaxError
	if errors.As(err, &syntax) && syntax.Stream.Condition != "" {
		return syntax.Stream
	}
	return errNotWellFormed
}

// streamCondition reads the condition of a rendered stream error.
func streamCondition(e []byte) string {
	_, rest, ok := bytes.Cut(e, []byte("><"))
	if !ok {
		return ""
	}
	i := bytes.IndexAny(rest, " />")
	return string(rest[:max(i, 0)])
}

// recovered keeps a fault in one session from being more.
func (t *transport) recovered() {
	p := recover()
	if p == nil {
		return
	}
	t.srv.log.Error("panic in a bosh request", "panic", p, "stack", string(debug.Stack()))
	t.mu.Lock()
	defer t.mu.Unlock()
	r := response{kind: terminate, cond: internalServerError}
	t.answerAll(r, r)
	t.endLocked(endPanic)
}
