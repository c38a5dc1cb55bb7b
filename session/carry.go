package session

import (
	"context"
	"encoding/binary"
	"time"

	"holdfast/internal/journal"
)

// A transport that is more than one connection goes on at another process, with what it noted here: Carrier is the half
// for the transport, Continue the half for who finds one that is not known.

// carried is what a transport noted.
type carried struct {
	sid    string
	state  []byte // behind how much the session had handled before the transport began to count
	linger time.Duration
	pos    uint64 // of the last record of it; see Sendable
}

// Keep implements Carrier.
func (st *stream) Keep(sid string, state []byte, linger time.Duration) {
	if p := st.through.Load(); p != nil {
		p.keep(sid, state, linger)
		return
	}
	st.note(sid, state, linger)
}

// note keeps what the transport says with its session.
func (st *stream) note(sid string, state []byte, linger time.Duration) {
	s := st.session.Load()
	if s == nil {
		return
	}
	s.mu.Lock()
	if s.stream != st || s.ended {
		s.mu.Unlock()
		return
	}
	first := s.carried.sid != sid || s.carried.linger != linger
	s.carried.sid, s.carried.linger = sid, linger
	note := binary.LittleEndian.AppendUint64(make([]byte, 0, beforeSize+len(state)), st.before)
	note = append(note, state...)
	s.carried.state = note // not over the one before, which a checkpoint may still read
	// A checkpoint that looks now sees both the record and the state, or neither.
	var err error
	if first {
		err = s.noteLocked()
	} else {
		var head [8]byte
		s.dirty = true
		err = st.sv.journal.Append(journal.KindCarried, journal.AppendCarried(head[:0], s.ord), note)
	}
	s.carried.pos = st.sv.journal.Appended()
	s.mu.Unlock()
	if err != nil {
		st.log.Error("transport not recorded", "error", err)
		st.finish(Broken)
		return
	}
	if first {
		st.sv.mu.Lock()
		st.sv.sids[sid] = s
		st.sv.mu.Unlock()
	}
}

// beforeSize is the size of what stands before a transport's own note.
const beforeSize = 8

// dropLocked forgets what a transport noted that is over.
func (s *Session) dropLocked() (sid string) {
	sid = s.carried.sid
	s.carried = carried{}
	return sid
}

// Settle implements Carrier.
func (st *stream) Settle(ctx context.Context, handled uint64) error {
	if p := st.through.Load(); p != nil {
		return p.settle(ctx)
	}
	s, j := st.session.Load(), st.sv.journal
	if s == nil {
		return nil
	}
	s.mu.Lock()
	counted := s.managed || st.carried
	all := s.totalLocked()
	settled := counted && s.earlier+uint64(s.settled) >= min(handled, all-st.before)+st.before
	pos := s.carried.pos
	s.mu.Unlock()
	if settled && j.Sendable() >= pos {
		return nil
	}
	if err := j.Settle(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if all > s.earlier+uint64(s.settled) {
		s.settled = uint32(all - s.earlier)
	}
	return nil
}

// Handled implements Carrier.
func (st *stream) Handled() uint64 {
	if p := st.through.Load(); p != nil {
		return p.told.Load()
	}
	s := st.session.Load()
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.totalLocked() - st.before
}

// totalLocked is how many stanzas of the client were handled, those before XEP-0198 was enabled included.
func (s *Session) totalLocked() uint64 { return s.earlier + uint64(s.handled) }

// Again implements Carrier.
func (st *stream) Again(frames [][]byte, from, to uint64) [][]byte {
	s := st.session.Load()
	if s == nil {
		return frames
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for place := max(from, s.out.acked) + 1; place <= min(to, s.out.last()); place++ {
		frames = append(frames, s.frame(s.out.at(place)))
	}
	return frames
}

// NewCarriedStream is NewStream for a transport that outlives its process.
func (sv *Service) NewCarriedStream(t Transport, p Peer) CarriedStream {
	st := sv.newStream(t, p)
	st.carried = true
	return st
}

// Continue attaches a transport to the session that has what an earlier process noted under sid. attach makes the
// transport of it, and says up to which Batch.Mark it had sent. handled is Carrier's. It reports false when there is no
// such session, or it has a connection.
func (sv *Service) Continue(
	sid string, attach func(state []byte) (t Transport, p Peer, sent uint64, err error),
) (s CarriedStream, handled uint64, ok bool) {
	sv.enter()
	defer sv.leave()
	sv.mu.Lock()
	session := sv.sids[sid]
	sv.mu.Unlock()
	if session == nil {
		return nil, 0, false
	}
	st, handled := session.goOn(sid, attach)
	if st == nil {
		return nil, 0, false
	}
	sv.resumeDrain(session)
	sv.drainMore(session)
	st.transport.Wake()
	return st, handled, true
}

// Carries reports whether there is a session with such a note, and whether Continue may have it: it has no connection.
func (sv *Service) Carries(sid string) (carried, free bool) {
	sv.mu.Lock()
	s := sv.sids[sid]
	sv.mu.Unlock()
	if s == nil {
		return false, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return true, s.stream == nil && !s.ended
}

func (s *Session) goOn(sid string, attach func(state []byte) (Transport, Peer, uint64, error)) (*stream, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stream != nil || s.ended || s.spilling || s.carried.sid != sid || s.sv.draining.Load() {
		return nil, 0
	}
	if len(s.carried.state) < beforeSize {
		return nil, 0
	}
	before := binary.LittleEndian.Uint64(s.carried.state)
	t, p, sent, err := attach(s.carried.state[beforeSize:])
	if err != nil {
		s.log.Error("kept transport not readable", "error", err)
		return nil, 0
	}
	st := s.sv.newStream(t, p)
	st.log, st.state, st.user, st.domain, st.carried = s.log, bound, s.addr.Bare(), s.addr.Server(), true
	st.before = before
	st.authed.Store(true)
	st.session.Store(s)
	s.attachLocked(st, min(max(sent, s.out.acked), s.out.last()))
	if err := s.noteLocked(); err != nil {
		s.log.Error("session not recorded", "error", err)
	}
	s.log.Info("session goes on", "address", p.Addr, "transport", p.Kind, "queued", s.out.n)
	return st, s.totalLocked() - before
}

// patienceLocked is how long a session waits for its client.
func (s *Session) patienceLocked() (d time.Duration) {
	if s.token != "" {
		d = s.max
	}
	if s.carried.sid != "" {
		d = max(d, s.carried.linger)
	}
	return d
}
