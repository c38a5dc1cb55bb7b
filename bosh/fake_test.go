package bosh

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/session"
	"holdfast/stanza"
)

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
	pull func() // called once, in a Pull that finds something

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
	if pull := st.pull; pull != nil && len(b.Frames) > 0 {
		st.pull = nil
		pull()
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
