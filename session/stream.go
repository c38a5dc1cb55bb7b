package session

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// stream is the negotiation on one transport and, once bound or resumed, the session's hold on it. It implements
// Stream.
type stream struct {
	// static
	sv        *Service
	transport Transport
	peer      Peer
	log       *slog.Logger
	born      time.Time
	carried   bool   // the transport outlives its process, so what it brings is counted
	before    uint64 // how much the session had handled when the transport began to count, modulo 2^64

	// owned by the goroutine that calls Handle: a user whom the element is for and whom nobody serves
	nowhere stanza.Addr

	// inMu is held while an element is handled. A resumption on another transport takes it to be sure that
	// nothing of this one is counted any more; over is guarded by it.
	inMu sync.Mutex
	over bool

	// owned by the holder of inMu
	state    state
	domain   stanza.Addr
	exchange Exchange
	tries    int
	user     stanza.Addr // bare, after SASL

	session atomic.Pointer[Session] // set once
	through atomic.Pointer[proxy]   // set once, when the session is at another node
	authed  atomic.Bool
	leaves  atomic.Bool // the transport goes on elsewhere, with what it noted

	mu       sync.Mutex // a leaf: nothing is locked while it is held
	controls []control
	finished bool // Transport.Finish was called
}

// control is an element that is not counted and not kept: stream features, SASL, XEP-0198, errors.
type control struct {
	frame []byte
	after uint64 // goes out once the outbox was sent up to here
	pos   uint64 // and once this may be sent; see Sendable
}

type state uint8

const (
	fresh         state = iota // waits for the stream header
	greeted                    // header answered, SASL to come
	authenticated              // waits for the header after SASL
	reopened                   // bind or resume to come
	bound
)

// NewStream begins a stream on a transport.
func (sv *Service) NewStream(t Transport, p Peer) Stream { return sv.newStream(t, p) }

func (sv *Service) newStream(t Transport, p Peer) *stream {
	return &stream{sv: sv, transport: t, peer: p, log: sv.log, born: time.Now()}
}

// begin takes what handling anything needs; end lets go of it. Before authentication there is no session and nothing
// goes to the journal, and hashing a password takes long, so then no checkpoint has to wait.
func (st *stream) begin() (entered bool) {
	if entered = st.authed.Load(); entered {
		st.sv.enter()
	}
	st.inMu.Lock()
	return entered
}

func (st *stream) end(entered bool) {
	st.inMu.Unlock()
	if entered {
		st.sv.leave()
	}
}

func (st *stream) Authenticated() bool { return st.authed.Load() }

// Open answers a stream header (RFC 6120 §4.3, RFC 7395 §3.4).
func (st *stream) Open(o Open) {
	defer st.end(st.begin())
	if st.over {
		return
	}
	to := st.sv.first
	if o.To != "" {
		addr, err := stanza.ParseAddr(o.To)
		ours, known := st.sv.domains[addr.Domain()]
		if err != nil || !known || addr != ours {
			st.greet(o, o.To)
			st.failLocked(stanza.HostUnknown)
			return
		}
		to = ours
	}
	if st.sv.draining.Load() {
		st.greet(o, to.String())
		st.failLocked(stanza.SystemShutdown)
		return
	}
	if !supported(o.Version) {
		st.greet(o, to.String())
		st.failLocked(stanza.UnsupportedVersion)
		return
	}
	switch st.state {
	case fresh, greeted:
		st.domain = to
		st.state = greeted
		st.greet(o, to.String())
		st.control(st.featuresBeforeAuth())
	case authenticated, reopened:
		if to != st.domain {
			st.greet(o, to.String())
			st.failLocked(stanza.NotAuthorized.WithText("the domain may not change after authentication"))
			return
		}
		st.state = reopened
		st.greet(o, to.String())
		st.control(st.sv.featuresAfterAuth)
	case bound:
		st.failLocked(stanza.PolicyViolation.WithText("the stream is open already"))
	}
}

// greet answers with our header, also before an error (RFC 6120 §4.9.1.2).
func (st *stream) greet(o Open, from string) {
	h := Header{ID: secret(), From: from, Lang: o.Lang}
	if h.Lang == "" {
		h.Lang = "en"
	}
	if !st.user.IsZero() {
		h.To = st.user.String()
	}
	st.control(st.transport.Header(h))
}

// supported accepts version 1 and whatever follows it (RFC 6120 §4.7.5).
func supported(version string) bool {
	return len(version) >= 3 && version[0] >= '1' && version[0] <= '9' && (version[1] == '.' || version[1] >= '0' && version[1] <= '9')
}

// control queues an uncounted element.
func (st *stream) control(frame []byte) { st.queue(control{frame: frame}) }

// promise queues one that tells of what was just journaled: it goes out when that is sure.
func (st *stream) promise(frame []byte, after uint64) {
	st.queue(control{frame, after, st.sv.journal.Appended()})
}

func (st *stream) queue(c control) {
	st.mu.Lock()
	// What a client makes us say is bounded by what it sends; a client that does not read what it asks for
	// is cut by the transport's write deadline, and here if it is quicker than that.
	full := len(st.controls) >= maxControls
	if !full {
		st.controls = append(st.controls, c)
	}
	st.mu.Unlock()
	if full {
		st.transport.Finish(Broken)
		return
	}
	st.transport.Wake()
}

const maxControls = 4096

// Fail ends the stream with an error that the transport found.
func (st *stream) Fail(err stanza.StreamError) {
	defer st.end(st.begin())
	if p := st.through.Load(); p != nil {
		p.end(false)
	}
	if !st.over {
		if st.state == fresh {
			st.greet(Open{}, st.sv.first.String())
		}
		st.failLocked(err)
	}
}

// failLocked ends the stream with an error. The session, if it can be resumed, stays: the error is the stream's.
// The caller holds inMu.
func (st *stream) failLocked(err stanza.StreamError) { st.failRaw(err.Condition, err.Raw()) }

func (st *stream) failRaw(condition string, raw []byte) {
	st.sv.metrics.streamErrors.WithLabelValues(condition).Inc()
	st.log.Debug("stream error sent", "condition", condition)
	st.over = true
	st.release()
	st.control(raw)
	st.finish(Closed)
}

// PeerClosed answers a proper closing: it ends the session too (XEP-0198 §5).
func (st *stream) PeerClosed() {
	if p := st.through.Load(); p != nil {
		p.end(true) // the home says the rest
		return
	}
	defer st.end(st.begin())
	if st.over {
		return
	}
	st.over = true
	if s := st.session.Load(); s != nil {
		s.mu.Lock()
		sent, managed := s.out.sent, s.managed
		s.mu.Unlock()
		if !managed {
			// The transport accepted it and the client closes properly (contract 4).
			if err := s.ack(sent); err != nil {
				st.log.Error("acknowledgement not recorded", "error", err)
			}
		}
		st.sv.depart(s, st)
	}
	st.finish(Closed)
}

func (st *stream) finish(how Finish) {
	st.mu.Lock()
	done := st.finished
	st.finished = true
	st.mu.Unlock()
	if !done {
		st.transport.Finish(how)
	}
}

// Lost is the end of the transport.
func (st *stream) Lost(err error) {
	defer st.end(st.begin())
	if err != nil {
		st.log.Debug("transport lost", "error", err)
	}
	st.over = true
	if p := st.through.Load(); p != nil {
		p.end(false)
	}
	st.release()
}

// release lets go of the session: it waits for its client, or ends when it can't be resumed. The caller holds inMu.
func (st *stream) release() {
	if s := st.session.Load(); s != nil && !st.sv.detach(s, st) {
		st.sv.end(s, st)
	}
}

// conflict ends a stream whose session was taken over or replaced (RFC 6120 §4.9.3.3).
func (st *stream) conflict(text string) {
	st.control(stanza.Conflict.WithText(text).Raw())
	st.finish(Closed)
}

// Handle takes one element. What cannot be done now, because a store or another node has to be waited for, is waited for
// here, with nothing locked, and then done from the beginning.
func (st *stream) Handle(e *stanza.Element) {
	for wait := retryFirst; ; wait = min(2*wait, retryLast) {
		ready, done := st.prepare(e)
		if !ready {
			done()
			return
		}
		if p := st.through.Load(); p != nil {
			p.tell(opElement, e.Raw())
			if e.Kind() != stanza.Other {
				p.told.Add(1)
			}
			done()
			return
		}
		err := st.handle(e)
		done()
		if err == nil {
			return
		}
		if !st.sv.wait(err, wait) {
			st.transport.Finish(Broken) // the client sends it again when it resumes
			return
		}
	}
}

// wait is what comes between two tries. It reports false when the service ends.
func (sv *Service) wait(err error, d time.Duration) bool {
	if errors.Is(err, ErrBusy) {
		if sv.mailbox.Room(sv.intake) != nil {
			return false
		}
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-sv.intake.Done():
		return false
	case <-t.C:
		return true
	}
}

// prepare waits, with nothing locked, for what handling an element needs. It reports false when the connection ends.
func (st *stream) prepare(e *stanza.Element) (ready bool, done func()) {
	done = func() {}
	s := st.session.Load()
	switch {
	case st.through.Load() != nil:
	case s == nil:
		if st.sv.cluster != nil && st.state == reopened {
			return st.bringFor(e)
		}
	case e.Kind() != stanza.Other:
		for wait := retryFirst; ; wait = min(2*wait, retryLast) {
			err := st.sv.room(e)
			if err == nil && st.sv.cluster != nil {
				st.nowhere, err = st.sv.locate(e, e.Kind())
			}
			if err == nil {
				return true, done
			}
			if st.sv.intake.Err() != nil || !st.sv.wait(err, wait) {
				st.transport.Finish(Broken) // the client sends it again when it resumes
				return false, done
			}
		}
	}
	return true, done
}

// handle takes an element once. An error says that nothing was done.
func (st *stream) handle(e *stanza.Element) error {
	defer st.end(st.begin())
	if st.over {
		return nil
	}
	switch st.state {
	case bound:
		return st.handleBound(e)
	case greeted:
		st.handleBeforeAuth(e)
	case reopened:
		return st.handleBeforeBind(e)
	default:
		st.failLocked(stanza.NotAuthorized.WithText("a stream header is due"))
	}
	return nil
}

// handleBound is the stanza path.
func (st *stream) handleBound(e *stanza.Element) error {
	s := st.session.Load()
	if kind := e.Kind(); kind != stanza.Other {
		err := s.inbound(st, e, kind)
		if retryable(err) {
			return err
		}
		if err != nil {
			st.fault(err)
		}
		return nil
	}
	switch {
	case string(e.Space()) == stanza.NSSM:
		if err := st.manage(s, e); err != nil {
			st.fault(err)
		}
	case len(e.Space()) == 0:
		st.failLocked(stanza.InvalidNamespace)
	default:
		st.failLocked(stanza.UnsupportedStanzaType)
	}
	return nil
}

// fault ends the stream over an error of ours or a stream error. What was being handled is not counted, so the
// client sends it again when it resumes.
func (st *stream) fault(err error) {
	var se stanza.StreamError
	var ce countError
	switch {
	case errors.As(err, &se):
		st.failLocked(se)
	case errors.As(err, &ce):
		st.failRaw(stanza.UndefinedCondition.Condition, ce.Raw())
	case errors.Is(err, journal.ErrFenced):
		// Nothing that this node says counts any more. The client comes back to one that has its session.
		st.over = true
		st.release()
		st.finish(Broken)
	default:
		st.log.Error("stanza not handled", "error", err)
		st.failLocked(stanza.InternalServerError)
	}
}

// Proved is the transport's word that its peer has everything up to mark. For a client without XEP-0198 that is the
// acknowledgement (contract 4).
func (st *stream) Proved(mark uint64) {
	if p := st.through.Load(); p != nil {
		p.tell(opProved, binary.LittleEndian.AppendUint64([]byte{'p'}, mark))
		return
	}
	s := st.session.Load()
	if s == nil {
		return
	}
	st.sv.enter()
	defer st.sv.leave()
	s.mu.Lock()
	s.probing = false
	if s.managed && !s.leaving {
		// The client's own counting rules, but what came before it cannot be counted. One that closed its
		// stream counts no more: that it took everything up to the closing of the transport is all the proof
		// there will be.
		mark = min(mark, s.base)
	}
	attached := s.stream == st
	s.mu.Unlock()
	if !attached {
		return
	}
	if err := s.ack(mark); err != nil {
		st.log.Error("acknowledgement not recorded", "error", err)
	}
}
