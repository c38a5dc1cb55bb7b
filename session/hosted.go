package session

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// Addresses that belong to no client, but to a Host in this process: rooms. Each has a session as a user's client has
// one, with an outbox of what was sent to it, at the home of its address. A goroutine, which lives while there is
// something, takes the stanzas out in order and has the Resident handle them. What that sends is counted, as a client's stanzas
// are, in the records of what they do.
//
// A Resident is a state machine: the same stanzas make it send the same ones. So it need not be stored with each: every
// so many stanzas its state is noted with the session, and only then do they leave the outbox. Another process begins with that
// state, has the stanzas behind it handled again, and leaves out what was sent before, by its count: that of the i-th stanza
// which the one at a place of the outbox leads to is place<<outBits + i. The counts wrap; what was not noted yet is far less
// than half of what they go round in.

const (
	// outBits bounds what one stanza may lead to.
	outBits = 14
	// A state is noted after so many stanzas, or so many bytes of them, if they are a fair part of what it takes.
	noteStanzas = 64
	noteBytes   = 128 << 10
	noteShare   = 4
	// maxOpening bounds the addresses whose Residents are not there yet: they wait for a store.
	maxOpening = 1000
	// saveFirst and saveLast are the waits between tries to bring a state into the kept stores.
	saveFirst = time.Second
	saveLast  = time.Minute
)

// markSize is the size of what stands before a state: the place of the last stanza in it.
const markSize = 8

// hosted is the session's hold on its Resident. What wakes a Transport elsewhere wakes this.
type hosted struct {
	s *Session

	mu      sync.Mutex // a leaf
	running bool
	again   bool // something came while it ran

	// owned by the goroutine that runs
	resident Resident
	done     uint64 // outbox place up to which everything was handled
	torn     bool   // the hosting ended while a stanza behind it was handled
	stanzas  int    // handled since the state was noted
	bytes    int
	noted    int           // bytes of the state that was noted last
	saveWait time.Duration // after a try that failed
	saveNext time.Time
}

// hosts reports whether an address is not a client's but the Host's.
func (sv *Service) hosts(a stanza.Addr) bool { return sv.host != nil && sv.host.Serves(a.Domain()) }

// crowded is the condition for who sends something where too much waits.
var crowded = mstanza.Error{Type: mstanza.Wait, Condition: mstanza.ResourceConstraint}

// sendHosted brings a stanza to a hosted address, here or at its home.
func (sv *Service) sendHosted(from *Session, st *stanza.Stanza) error {
	if from != nil && from.nowhere == st.To.Bare() {
		return nil
	}
	for {
		if sv.cluster != nil {
			if err := sv.forward(from, st.To.Bare(), opHosted, st); !errors.Is(err, errHere) {
				return err
			}
		}
		if err := sv.toHosted(from, st); !errors.Is(err, ErrElsewhere) {
			return err
		}
	}
}

// toHosted puts a stanza into the outbox of a hosted address whose home is here. The caller has entered.
func (sv *Service) toHosted(from *Session, st *stanza.Stanza) error {
	to := st.To.Bare()
	var full, lost bool
	var err error
	sv.router.Locked(to, func(t Table) {
		if !sv.here(to) {
			err = ErrElsewhere
			return
		}
		var s *Session
		switch all := t.Sessions(); {
		case len(all) > 0:
			s = all[0]
		case !opens(st):
			return
		case sv.opening.Load() >= maxOpening:
			full = true
			return
		default:
			if s, err = sv.openHosted(t, to); err != nil {
				return
			}
		}
		s.mu.Lock()
		full = s.overLocked(len(st.Raw()))
		if full && parts(st) {
			full, lost = false, s.overBy(2, len(st.Raw()))
		}
		s.mu.Unlock()
		if full || lost {
			return
		}
		if st.Kind() == stanza.Message {
			st = st.Rewrite(stanza.Edit{From: st.From, To: st.To, ID: stanza.NewID(), IDBy: to})
		}
		one := [1]*Session{s}
		var n int
		if n, err = sv.deliver(from, st, one[:], 0); n == 0 && err == nil {
			err = ErrBusy // it ends, and another one begins
		}
	})
	if lost {
		sv.metrics.outcomes[dropped].Inc()
	}
	if full {
		sv.metrics.outcomes[refused].Inc()
		if from == nil {
			sv.bounce(st, crowded)
			return nil
		}
		return from.reply(st, crowded)
	}
	return err
}

// opens reports whether a stanza means something where nobody is.
func opens(st *stanza.Stanza) bool { return opensBy(st.Kind(), st.TypeRaw()) }

func opensBy(kind stanza.Kind, typ []byte) bool {
	switch kind {
	case stanza.Presence:
		return len(typ) == 0
	case stanza.IQ:
		return string(typ) == "get" || string(typ) == "set"
	}
	return string(typ) != "error"
}

// partHosted is for what a hosted address has to know of a session that is gone. Its home may not be known.
func (sv *Service) partHosted(to stanza.Addr, st *stanza.Stanza) {
	if to.Local() == "" {
		return
	}
	err := sv.sendHosted(nil, st)
	switch {
	case err == nil:
	case errors.Is(err, ErrUnlocated):
		m := Message{Op: opHosted, Term: TermHome, Payload: st.Raw()}
		if parked, err := sv.parkLocked(to.Bare(), m, Origin{}); !parked || err != nil {
			sv.errands.add(errand{user: to.Bare(), op: opHosted, st: st, kept: true})
		}
	default:
		sv.log.Error("presence not delivered", "error", err)
	}
}

// parts reports whether a stanza says that somebody is gone: it is heard also where others are told to wait.
func parts(st *stanza.Stanza) bool {
	typ := string(st.TypeRaw())
	return typ == "error" || typ == "unavailable" && st.Kind() == stanza.Presence
}

// openHosted makes the session of a hosted address, under the address's lock.
func (sv *Service) openHosted(t Table, addr stanza.Addr) (*Session, error) {
	s := &Session{
		sv: sv, ord: sv.ords.Add(1), addr: addr, managed: true, created: time.Now(), log: sv.log.With("room", addr.String()),
	}
	s.hosted = &hosted{s: s}
	s.mu.Lock()
	err := s.noteLocked()
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	sv.opening.Add(1)
	t.Add(s)
	sv.add(s)
	return s, nil
}

// Wake says that there may be something to do.
func (h *hosted) Wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running {
		h.again = true
		return
	}
	h.running = h.s.sv.goHosting(h.run)
}

// run works until there is nothing to do. When the hosting ends it does not come back.
func (h *hosted) run() {
	for h.work() {
		h.mu.Lock()
		h.running, h.again = h.again, false
		more := h.running
		h.mu.Unlock()
		if !more {
			return
		}
	}
}

// work reports false when the hosting ends, or has ended for this address.
func (h *hosted) work() bool {
	h.s.mu.Lock()
	ended := h.s.ended
	h.s.mu.Unlock()
	if ended || h.resident == nil && !h.open() {
		return false
	}
	for {
		st, place := h.next()
		if st == nil {
			return h.rest()
		}
		if !h.handle(st, place) {
			return false
		}
	}
}

// next is the stanza behind those that were handled.
func (h *hosted) next() (*stanza.Stanza, uint64) {
	s := h.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || h.done >= s.out.last() {
		return nil, 0
	}
	return s.out.at(h.done + 1).st, h.done + 1
}

// open makes the Resident of the state that was noted, or of what the kept stores have.
func (h *hosted) open() bool {
	s, sv := h.s, h.s.sv
	s.mu.Lock()
	note, acked := s.carried.state, s.out.acked
	s.mu.Unlock()
	h.done = acked
	fresh := len(note) < markSize
	var state []byte
	if len(note) >= markSize {
		h.done = max(acked, binary.LittleEndian.Uint64(note))
		state = note[markSize:]
		h.noted = len(note)
	}
	for wait := retryFirst; ; wait = min(2*wait, retryLast) {
		err := sv.pinHosted(s.addr)
		if err == nil {
			h.resident, err = sv.host.Open(sv.hosting, s.addr, state)
		}
		switch {
		case err == nil && state != nil:
			return true
		case err == nil:
			if fresh {
				sv.opening.Add(-1)
			}
			// What it begins with has to be the same when it is handled again.
			return h.noteSurely()
		case h.resident == nil && state != nil && sv.hosting.Err() == nil && !retryable(err):
			s.log.Error("noted state not readable", "error", err)
			state = nil
			continue
		case sv.hosting.Err() == nil:
			s.log.Warn("room not opened yet", "error", err)
		}
		if !sv.pause(wait) {
			return false
		}
	}
}

// pinHosted keeps this node the home of a hosted address.
func (sv *Service) pinHosted(addr stanza.Addr) error {
	if sv.cluster == nil {
		return nil
	}
	if err := sv.cluster.Pin(sv.hosting, addr, ""); err != nil {
		return errors.Join(ErrUnlocated, err)
	}
	return nil
}

// pause waits, and reports false when the hosting ends.
func (sv *Service) pause(d time.Duration) bool { return sleepFor(sv.hosting, d) }

// handle has one stanza handled, and sends what comes of it.
func (h *hosted) handle(st *stanza.Stanza, place uint64) bool {
	first := uint32(place << outBits)
	if int32(first-h.s.in) > 0 {
		h.s.in = first // where many stanzas led to nothing, or the counts would come round
	}
	n, alive := first, true
	h.resident.Handle(st, func(out *stanza.Stanza, from, to stanza.Addr) {
		n++
		switch {
		case n-first >= 1<<outBits:
			h.s.log.Error("a stanza led to too many, one is not sent", "to", to.Server().String())
		case int32(n-h.s.in) <= 0: // an earlier process sent it
		case alive:
			alive = h.send(n, out, from, to)
		}
	})
	if !alive {
		h.torn = true
		return false
	}
	h.done = place
	h.stanzas++
	h.bytes += len(st.Raw())
	return !h.due() || h.noteSurely()
}

// due reports whether the state is to be noted: when enough was handled, or much of what may wait.
func (h *hosted) due() bool {
	c := &h.s.sv.cfg
	return (h.stanzas >= h.s.sv.noteEvery || h.bytes >= noteBytes) && noteShare*h.bytes >= h.noted ||
		c.OutboxStanzas > 0 && 2*h.stanzas >= c.OutboxStanzas || c.OutboxBytes > 0 && 2*h.bytes >= c.OutboxBytes
}

// send sends one stanza, once. It tries until it can be done, and reports false when the hosting ends.
func (h *hosted) send(n uint32, st *stanza.Stanza, from, to stanza.Addr) bool {
	s, sv := h.s, h.s.sv
	for wait := retryFirst; ; wait = min(2*wait, retryLast) {
		nowhere, err := sv.prepareOutgoing(st, to)
		if err == nil {
			err = s.outgoing(n, st, from, to, nowhere)
		}
		switch {
		case err == nil:
			return true
		case sv.hosting.Err() != nil:
			return false
		case errors.Is(err, journal.ErrFenced):
			return false // who took over goes on with it
		case !retryable(err):
			s.log.Error("stanza of a room not sent", "error", err)
		}
		if !sv.pause(wait) {
			return false
		}
	}
}

// prepareOutgoing waits, with nothing locked, for what sending needs. It returns a user whom nobody serves.
func (sv *Service) prepareOutgoing(st *stanza.Stanza, to stanza.Addr) (nowhere stanza.Addr, err error) {
	if err := sv.journal.Room(sv.hosting); err != nil || sv.cluster == nil || !sv.Local(to) {
		return nowhere, err
	}
	if err := sv.cluster.Room(sv.hosting); err != nil {
		return nowhere, err
	}
	user := to.Bare()
	if sv.cluster.Ready(sv.hosting, user) {
		return nowhere, nil
	}
	err = sv.find(sv.hosting, user, st.Kind() == stanza.Message)
	if errors.Is(err, ErrNowhere) {
		return user, nil
	}
	return nowhere, err
}

// outgoing sends a stanza as a client's would be, under the count n. An error says that nothing was done.
func (s *Session) outgoing(n uint32, st *stanza.Stanza, from, to, nowhere stanza.Addr) error {
	sv := s.sv
	sv.enter()
	defer sv.leave()
	before := s.in
	s.in, s.recorded, s.nowhere = n, false, nowhere
	err := s.routeOut(st, from, to)
	if err == nil && !s.recorded {
		err = sv.journal.Count(journal.KindHandled, s.ord, uint64(n))
	}
	if err != nil {
		s.in = before
		return err
	}
	s.mu.Lock()
	s.handled, s.settled, s.dirty = n, n, true
	s.mu.Unlock()
	return nil
}

func (s *Session) routeOut(st *stanza.Stanza, from, to stanza.Addr) error {
	sv := s.sv
	if !sv.Local(to) || to.Local() == "" {
		return nil // a room answers nobody but users, and sends to nobody else
	}
	edit := stanza.Edit{From: from, To: to}
	if st.Kind() == stanza.Message {
		if sv.here(to.Bare()) {
			edit.ID, edit.IDBy = stanza.NewID(), to.Bare() // else the home gives it one
		}
		return sv.routeMessage(s, st.Rewrite(edit))
	}
	if !to.IsFull() {
		return nil
	}
	out := st.Rewrite(edit)
	found, err := sv.routeDirect(to, s, out)
	if typ := string(out.TypeRaw()); err == nil && !found && out.Kind() == stanza.IQ && (typ == "get" || typ == "set") {
		return s.reply(out, serviceUnavailable)
	}
	return err
}

// noteSurely notes the state, and tries until that is done: what is handled next depends on it. It reports false when the
// hosting ends.
func (h *hosted) noteSurely() bool {
	s, sv := h.s, h.s.sv
	for wait := retryFirst; ; wait = min(2*wait, retryLast) {
		err := h.note(sv.hosting)
		if err == nil {
			return true
		}
		if sv.hosting.Err() != nil || errors.Is(err, journal.ErrFenced) {
			return false
		}
		s.log.Error("state of a room not noted", "error", err)
		if !sv.pause(wait) {
			return false
		}
	}
}

// note writes the state to the journal; then the stanzas that are in it may leave the outbox.
func (h *hosted) note(ctx context.Context) error {
	s, sv := h.s, h.s.sv
	note := append(binary.LittleEndian.AppendUint64(nil, h.done), h.resident.State()...)
	if err := sv.journal.Room(ctx); err != nil {
		return err
	}
	sv.enter()
	defer sv.leave()
	if sent := uint32((h.done+1)<<outBits) - 1; int32(sent-s.in) > 0 {
		// Everything before was sent; also that is to be known where it was nothing.
		if err := sv.journal.Count(journal.KindHandled, s.ord, uint64(sent)); err != nil {
			return err
		}
		s.in = sent
	}
	var head [8]byte
	s.mu.Lock()
	s.handled, s.settled = s.in, s.in
	s.carried.state, s.dirty = note, true
	err := sv.journal.Append(journal.KindCarried, journal.AppendCarried(head[:0], s.ord), note)
	s.mu.Unlock()
	if err == nil {
		err = s.ack(h.done)
	}
	if err == nil {
		h.stanzas, h.bytes, h.noted = 0, 0, len(note)
	}
	return err
}

// rest is what there is to do when no stanza waits: to bring what has to stay into the kept stores, and to end the session
// of an address that nobody uses.
func (h *hosted) rest() bool {
	sv := h.s.sv
	if time.Now().Before(h.saveNext) {
		return true // and is woken then
	}
	changed, err := h.resident.Save(sv.hosting)
	if changed && !h.noteSurely() {
		return false
	}
	if err != nil {
		if sv.hosting.Err() != nil {
			return false
		}
		h.saveWait = min(max(2*h.saveWait, saveFirst), saveLast)
		h.saveNext = time.Now().Add(h.saveWait)
		h.s.log.Warn("room not saved yet", "error", err)
		time.AfterFunc(h.saveWait, h.Wake)
		return true
	}
	h.saveWait = 0
	if h.resident.Idle() {
		h.close()
	}
	return true
}

// close ends the session, unless something came for it.
func (h *hosted) close() {
	s, sv := h.s, h.s.sv
	sv.enter()
	defer sv.leave()
	ended := false
	sv.router.Locked(s.addr, func(t Table) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.ended || s.out.last() != h.done {
			return
		}
		if err := sv.journal.Count(journal.KindEnded, s.ord, uint64(s.in)); err != nil {
			return // it stays, and is what it was
		}
		ended, s.ended = true, true
		t.Remove(s)
		if sv.cluster != nil {
			sv.cluster.Unpin(s.addr)
		}
	})
	if !ended {
		return
	}
	s.mu.Lock()
	stored := s.stored
	s.mu.Unlock()
	sv.forget(s, "", stored)
}

// goHosting runs f unless the hosting has ended.
func (sv *Service) goHosting(f func()) bool {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if sv.hosting.Err() != nil {
		return false
	}
	sv.hostLoops.Go(f)
	return true
}

// StopHosting ends the work for hosted addresses: what waits for them is for the next process. It returns when none of it is
// under way. It may be called again.
func (sv *Service) StopHosting() {
	sv.mu.Lock()
	sv.stopHosting()
	sv.mu.Unlock()
	sv.hostLoops.Wait()
	for _, s := range sv.all() {
		if s.hosted != nil {
			s.hosted.leave()
		}
	}
}

// leave notes the state for the next process, which may be another version of this one, and handle nothing again.
func (h *hosted) leave() {
	h.s.mu.Lock()
	ended := h.s.ended
	h.s.mu.Unlock()
	if ended || h.resident == nil || h.torn || h.stanzas == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), briefly)
	defer cancel()
	if err := h.note(ctx); err != nil {
		h.s.log.Warn("state of a room not noted", "error", err)
	}
}
