package session

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// peerFor returns the link by that name: the other node and, when this node carries out what was meant for a dead one,
// a slash and the dead one's name. To the journal it is a session that sends stanzas.
func (sv *Service) peerFor(link string) (*Session, error) {
	sv.mu.Lock()
	p := sv.peers[link]
	sv.mu.Unlock()
	if p != nil {
		return p, nil
	}
	node, dead, heir := strings.Cut(link, "/")
	addr, err := stanza.NewAddr("link", node, dead)
	if err != nil {
		return nil, err
	}
	p = &Session{sv: sv, ord: sv.ords.Add(1), addr: addr, peer: node, heir: heir, managed: true, created: time.Now(), dirty: true, log: sv.log}
	sv.enter()
	p.mu.Lock()
	err = p.noteLocked()
	p.mu.Unlock()
	if err == nil {
		sv.mu.Lock()
		sv.peers[link] = p
		sv.mu.Unlock()
	}
	sv.leave()
	return p, err
}

// Received says for each node how far what it sent to a dead one, with "" to this one, has been carried out.
func (sv *Service) Received(dead string) map[string]uint32 {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	seen := make(map[string]uint32)
	for link, p := range sv.peers {
		if node, of, _ := strings.Cut(link, "/"); of == dead {
			p.mu.Lock()
			seen[node] = p.handled
			p.mu.Unlock()
		}
	}
	return seen
}

// goneMemory is how long the count of a dead node's messages is kept: one that was paused with a message under way may
// still send it.
const goneMemory = 10 * time.Minute

// forgetLater drops what is remembered of the links from nodes that have been dead for long.
func (sv *Service) forgetLater(node string) {
	now := time.Now()
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if sv.deaths == nil {
		sv.deaths = make(map[string]time.Time)
	}
	sv.deaths[node] = now
	for dead, at := range sv.deaths {
		if now.Sub(at) < goneMemory {
			continue
		}
		delete(sv.deaths, dead)
		if p := sv.peers[dead]; p != nil {
			delete(sv.peers, dead)
			sv.gone = append(sv.gone, p.ord)
		}
	}
}

// ForgetLinks drops what is remembered of the links to a dead node, whose mailbox is worked off.
func (sv *Service) ForgetLinks(dead string) {
	sv.enter()
	defer sv.leave()
	sv.mu.Lock()
	var gone []*Session
	for link, p := range sv.peers {
		if _, of, ok := strings.Cut(link, "/"); ok && of == dead {
			delete(sv.peers, link)
			sv.gone = append(sv.gone, p.ord)
			gone = append(gone, p)
		}
	}
	sv.mu.Unlock()
	for _, p := range gone {
		if err := sv.journal.Count(journal.KindEnded, p.ord, 0); err != nil {
			sv.log.Error("end of a link not recorded", "error", err)
		}
	}
}

// Receive carries out a message of another node. What was journaled there is carried out once, and counted in the same
// record as what it did. It waits for what it needs; its errors are the journal's.
func (sv *Service) Receive(ctx context.Context, link string, m Message) error {
	p, err := sv.peerFor(link)
	if err != nil {
		return err
	}
	if m.Seq != 0 && int32(m.Seq-p.handled) <= 0 {
		return nil // it came before
	}
	var user stanza.Addr
	if user, err = stanza.ParseAddr(m.User); err != nil {
		sv.log.Error("message of another node names no user", "op", m.Op, "error", err)
	}
	if m.Seq == 0 {
		if err == nil {
			sv.enter()
			defer sv.leave()
			sv.hear(p, user, m)
		}
		return nil
	}
	once := func() error {
		sv.enter()
		defer sv.leave()
		p.in, p.recorded = m.Seq, false
		err := sv.carryOutFor(p, user, m)
		if err != nil && !retryable(err) {
			err = sv.refused(ctx, p, m, err)
		}
		if err != nil {
			return err
		}
		if !p.recorded {
			if err := sv.journal.Count(journal.KindHandled, p.ord, uint64(m.Seq)); err != nil {
				return err
			}
		}
		p.done(m.Seq)
		return nil
	}
	if link == sv.cluster.ID() {
		err := sv.insist(ctx, user, once)
		if err == nil {
			sv.unparked(user)
		}
		return err
	}
	if m.Op == opHandover || !sv.isParked(user) { // what a user comes with is this link's, and waits for no store
		err := once()
		switch {
		case errors.Is(err, ErrBusy):
		case retryable(err):
			return sv.insist(ctx, user, once)
		default:
			return err
		}
	}
	if aside, err := sv.putAside(p, user, m); aside || err != nil {
		return err
	}
	return sv.insist(ctx, user, once)
}

// refused is for a message that a store will never take: it must not end this node, and then whoever adopts it. Its
// sender is told. What the journal refused it refuses again, and that does end the node.
func (sv *Service) refused(ctx context.Context, p *Session, m Message, why error) error {
	if p.recorded || m.Op == opHandover || ctx.Err() != nil || sv.ctx.Err() != nil {
		return why
	}
	sv.log.Error("message of another node refused", "op", m.Op, "from", p.peer, "error", why)
	switch m.Op {
	case opMessage, opDirect, opAccount, opHosted:
		if st, err := stanza.Parse(append([]byte(nil), m.Payload...), stanza.ID{}); err == nil {
			return p.reply(st, internalServerError)
		}
	}
	return nil
}

// done notes that a link's messages are carried out up to seq.
func (s *Session) done(seq uint32) {
	s.mu.Lock()
	s.handled, s.dirty = seq, true
	s.mu.Unlock()
}

// parker is what a Cluster may offer besides: to keep a message for later.
type parker interface {
	Park(user stanza.Addr, m Message, o Origin) (bool, error)
}

// putAside parks a message that a store which is away cannot take, so that those for others need not wait for it.
// Later ones for the same user go behind it.
func (sv *Service) putAside(p *Session, user stanza.Addr, m Message) (bool, error) {
	sv.enter()
	defer sv.leave()
	term := m.Term
	if p.heir {
		term = TermHome // it must not go back to where it came from
	}
	parked, err := sv.parkLocked(user, Message{Op: m.Op, Term: term, Payload: m.Payload}, Origin{Session: p.ord, N: m.Seq})
	if parked && err == nil {
		p.done(m.Seq)
		sv.metrics.parked.Inc()
	}
	return parked, err
}

// parkLocked has a message carried out here, later. The caller has entered.
func (sv *Service) parkLocked(user stanza.Addr, m Message, o Origin) (bool, error) {
	lot, ok := sv.cluster.(parker)
	if !ok {
		return false, nil
	}
	sv.mu.Lock()
	sv.parkedFor[user]++ // before it can be carried out
	sv.mu.Unlock()
	parked, err := lot.Park(user, m, o)
	if !parked || err != nil {
		sv.unparked(user)
		return false, err
	}
	return true, nil
}

func (sv *Service) isParked(user stanza.Addr) bool {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	return sv.parkedFor[user] > 0
}

func (sv *Service) unparked(user stanza.Addr) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if sv.parkedFor[user]--; sv.parkedFor[user] <= 0 {
		delete(sv.parkedFor, user)
	}
}

// insist tries until f does not fail for a reason that passes.
func (sv *Service) insist(ctx context.Context, user stanza.Addr, f func() error) error {
	// Room in the journal is not waited for: it is made by checkpoints, which wait for what other nodes and this one
	// still have to carry out. The nodes that send have their own.
	for wait := retryFirst; ; wait = min(2*wait, retryLast) {
		err := f()
		if !retryable(err) {
			return err
		}
		if errors.Is(err, ErrUnlocated) || errors.Is(err, ErrElsewhere) {
			// A user whose account is gone is this node's as good as any's.
			if err = sv.cluster.Locate(ctx, user, true); err == nil {
				wait = retryFirst
				continue
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		sv.log.Warn("message of another node has to wait", "error", err)
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// Reroute carries out a message that did not reach the dead node it was for.
func (sv *Service) Reroute(ctx context.Context, user stanza.Addr, m Message, o Origin) error {
	from := &Session{sv: sv, ord: o.Session, peer: sv.cluster.ID(), heir: true, managed: true, in: o.N, log: sv.log}
	return sv.insist(ctx, user, func() error {
		sv.enter()
		defer sv.leave()
		from.recorded = false
		if err := sv.carryOutFor(from, user, m); err != nil || from.recorded {
			return err
		}
		// It came to an error for its sender, or to nothing: who adopts this node must not carry it out again.
		return sv.journal.Count(journal.KindHandled, o.Session, uint64(o.N))
	})
}

// carryOutFor does what a journaled message says, or passes it on. An error says that nothing was done.
func (sv *Service) carryOutFor(p *Session, user stanza.Addr, m Message) error {
	if user.IsZero() {
		return nil // logged already
	}
	if m.Op == opHandover {
		return sv.takeOver(p, user, m)
	}
	if m.Op == opRemoved {
		return sv.atHome(p, user, m, func() error { return sv.userRemoved(user) })
	}
	if m.Op == opAwaits {
		return sv.atHome(p, user, m, func() error { return sv.takeAwaited(p, user, m) })
	}
	st, err := stanza.Parse(append([]byte(nil), m.Payload...), stanza.ID{})
	if err != nil {
		sv.log.Error("stanza of another node not readable", "op", m.Op, "error", err)
		return nil
	}
	if !fits(m.Op, st) || st.To.Bare() != user {
		sv.log.Error("stanza of another node is not what it should be", "op", m.Op, "kind", st.Kind().String())
		return nil
	}
	switch m.Op {
	case opMessage:
		// The id is the home's, whose clock orders all else that it has of the user.
		st = st.Rewrite(stanza.Edit{From: st.From, To: st.To, ID: stanza.NewID(), IDBy: user})
		return sv.atHome(p, user, m, func() error { return sv.routeHere(p, st) })
	case opDirect:
		return sv.atHome(p, user, m, func() error {
			found, err := sv.router.Direct(st.To, p, st)
			if typ := string(st.TypeRaw()); err == nil && !found && st.Kind() == stanza.IQ && (typ == "get" || typ == "set") {
				return p.reply(st, serviceUnavailable)
			}
			return err
		})
	case opArrives:
		return sv.atHome(p, user, m, func() error { return sv.arrives(user, st.From.Bare(), st) })
	case opAccount:
		return sv.atHome(p, user, m, func() error { return sv.account(p, st) })
	case opReply:
		return sv.atHome(p, user, m, func() error { sv.sendHere(st.To, st); return nil })
	case opHosted:
		return sv.atHome(p, user, m, func() error { return sv.toHosted(p, st) })
	}
	sv.log.Error("message of another node not understood", "op", m.Op)
	return nil
}

// fits reports whether a stanza is of the kind that an op is about.
func fits(op uint8, st *stanza.Stanza) bool {
	switch op {
	case opMessage:
		return st.Kind() == stanza.Message
	case opArrives:
		return st.Kind() == stanza.Presence
	case opAccount:
		return st.Kind() == stanza.IQ && st.NumChildren() == 1
	}
	return true
}

// atHome runs f if this node is the user's home, and else passes the message on. It does so too at the home while what
// this message comes behind is on its way round by an earlier one.
func (sv *Service) atHome(p *Session, user stanza.Addr, m Message, f func() error) error {
	was := m.Term
	m = Message{Op: m.Op, Term: max(was, TermPassed), Payload: m.Payload}
	if p.heir {
		m.Term = TermHome
	}
	for {
		o := p.origin()
		node, term, err := sv.cluster.Forward(user, m, o)
		if err != nil {
			return err
		}
		if node == sv.cluster.ID() {
			if err := f(); !errors.Is(err, ErrElsewhere) {
				return err
			}
			continue
		}
		if o.Session != 0 {
			p.recorded = true
		}
		if !sv.here(user) {
			p.passedOn(user, Move{Was: was, Node: node, Term: term})
		}
		return nil
	}
}

// tellSender sends something about a stanza to where it came from.
func (sv *Service) tellSender(from *Session, about *stanza.Stanza) error {
	switch {
	case about == nil:
		return nil
	case from == nil:
		sv.sendTo(about.To, about)
		return nil
	case from.peer != "":
		return sv.replyTo(from, about)
	}
	return from.send(nil, about)
}

// replyTo sends a stanza back to where another one came from. There, or on the way, its home is known.
func (sv *Service) replyTo(p *Session, reply *stanza.Stanza) error {
	to := reply.To.Bare()
	if sv.here(to) || p.heir {
		sv.sendTo(reply.To, reply)
		return nil
	}
	o := p.origin()
	err := sv.cluster.ForwardTo(p.peer, to, Message{Op: opReply, Payload: reply.Raw()}, o)
	if errors.Is(err, ErrUnlocated) { // it is dead and buried
		sv.sendTo(reply.To, reply)
		return nil
	}
	if err != nil {
		return err
	}
	if o.Session != 0 {
		p.recorded = true
	}
	return nil
}

// hear takes what may be lost.
func (sv *Service) hear(p *Session, user stanza.Addr, m Message) {
	switch m.Op {
	case opMoved:
		if move, ok := cutMove(m.Payload); ok {
			move.From = p.peer
			sv.cluster.Moved(user, move)
		}
	case opWant:
		sv.wanted(p.peer, user, m.Payload)
	case opStay:
		sv.wants.stay(user, string(m.Payload))
	case opTell, opShow, opProbe:
		st, err := stanza.Parse(append([]byte(nil), m.Payload...), stanza.ID{})
		if err != nil {
			sv.log.Error("stanza of another node not readable", "op", m.Op, "error", err)
			return
		}
		if !sv.here(user) {
			sv.errands.add(errand{user: user, op: m.Op, st: st})
			return
		}
		sv.doErrand(errand{user: user, op: m.Op, st: st})
	default:
		sv.proxied(p.peer, user, m)
	}
}

// append encodes all but From.
func (m *Move) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, m.Seq)
	dst = binary.LittleEndian.AppendUint64(dst, m.Was)
	dst = binary.LittleEndian.AppendUint64(dst, m.Term)
	return append(dst, m.Node...)
}

func cutMove(b []byte) (m Move, ok bool) {
	const fixed = 4 + 8 + 8
	if len(b) <= fixed {
		return m, false
	}
	m.Seq = binary.LittleEndian.Uint32(b)
	m.Was, m.Term = binary.LittleEndian.Uint64(b[4:]), binary.LittleEndian.Uint64(b[12:])
	m.Node = string(b[fixed:])
	return m, true
}
