package session

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// What a dead node leaves: this node builds its sessions and links, makes sure that its own stores have them, and only
// then lets them be found.

// Inheritance is what a dead node had, built and not yet to be found.
type Inheritance struct {
	sv       *Service
	dead     string
	sessions []*Session
}

// Inherit builds the sessions of a dead node, and its links. They are in the next checkpoint, and nobody finds them
// before Publish. mark is called so that no checkpoint has one without the other.
func (sv *Service) Inherit(dead string, all []Restored, mark func()) (*Inheritance, error) {
	h := &Inheritance{sv: sv, dead: dead}
	shared := make(map[stanza.ID]*copies)
	sv.enter()
	defer sv.leave()
	for i := range all {
		r := &all[i]
		if r.State.Flags&journal.FlagLink != 0 {
			sv.inheritLink(dead, r)
			continue
		}
		s, err := sv.build(*r, shared)
		if err != nil {
			return nil, fmt.Errorf("session %s: %w", r.State.Addr, err)
		}
		sv.renumber(s, r.State, r.Queue)
		s.stored, s.kept = false, s.out.acked
		h.sessions = append(h.sessions, s)
	}
	mark()
	for _, s := range h.sessions {
		sv.add(s)
	}
	return h, nil
}

// inheritLink goes on counting where a dead node was with what another one sent it, or sent to one that was dead before.
func (sv *Service) inheritLink(dead string, r *Restored) {
	link := r.State.Addr.Domain() + "/" + dead
	if of := r.State.Addr.Resource(); of != "" {
		link = r.State.Addr.Domain() + "/" + of
	}
	addr, err := stanza.ParseAddr("link@" + link)
	if err != nil {
		sv.log.Error("link of a dead node not readable", "error", err)
		return
	}
	sv.mu.Lock()
	defer sv.mu.Unlock()
	p := sv.peers[link]
	if p == nil {
		p = &Session{sv: sv, ord: sv.ords.Add(1), addr: addr, peer: r.State.Addr.Domain(), heir: true, managed: true, created: time.Now(), log: sv.log}
		sv.peers[link] = p
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if int32(r.Handled-p.handled) > 0 {
		p.handled = r.Handled
	}
	p.dirty = true
}

// Discard takes back what was not published, and unmark the mark.
func (h *Inheritance) Discard(unmark func()) {
	h.sv.enter()
	defer h.sv.leave()
	unmark()
	for _, s := range h.sessions {
		s.mu.Lock()
		s.ended = true
		s.mu.Unlock()
		h.sv.forget(s, "", true)
	}
}

// PassOn brings the receipts that are awaited for messages to a user to the user's home, which is this node when there
// is none. They came here with what a dead node left. Nothing may be locked.
func (sv *Service) PassOn(ctx context.Context, user stanza.Addr) error {
	for wait := retryFirst; ; wait = min(2*wait, retryLast) {
		err := sv.cluster.Locate(ctx, user, true)
		if err == nil {
			err = sv.passOn(user)
		}
		if !retryable(err) {
			return err
		}
		if !sv.sleep(wait) {
			return sv.ctx.Err()
		}
	}
}

func (sv *Service) passOn(user stanza.Addr) (err error) {
	sv.enter()
	defer sv.leave()
	sv.router.Locked(user, func(Table) {
		if sv.here(user) {
			return
		}
		u := journal.User{Addr: user, Awaited: sv.moving.TakeOut(user)}
		if len(u.Awaited) == 0 {
			return
		}
		var node string
		node, _, err = sv.cluster.Forward(user, Message{Op: opAwaits, Term: TermHome, Payload: u.Append(nil)}, Origin{})
		if err != nil || node == sv.cluster.ID() {
			sv.moving.PutIn(u.Awaited)
			return
		}
		ids := make([]stanza.ID, len(u.Awaited))
		for i := range u.Awaited {
			ids[i] = u.Awaited[i].ID
		}
		err = sv.journal.IDs(journal.KindProved, stanza.Addr{}, ids)
	})
	return err
}

// takeAwaited takes in what PassOn sent.
func (sv *Service) takeAwaited(p *Session, user stanza.Addr, m Message) (err error) {
	u, err := journal.DecodeUser(m.Payload)
	if err != nil {
		sv.log.Error("awaited receipts of another node not readable", "from", p.peer, "error", err)
		return nil
	}
	sv.router.Locked(user, func(Table) {
		if !sv.here(user) {
			err = ErrElsewhere
			return
		}
		o := p.origin()
		rec := journal.Taken{Origin: o.Session, N: o.N, User: u}
		if err = sv.journal.Append(journal.KindTaken, rec.AppendHead(nil), u.Append(nil)); err != nil {
			return
		}
		p.recorded = true
		sv.moving.PutIn(u.Awaited)
	})
	return err
}

// Publish makes this node the home of the sessions' users, and returns them. Sessions whose time is over end.
func (h *Inheritance) Publish() []stanza.Addr {
	sv := h.sv
	sv.enter()
	defer sv.leave()
	byUser := make(map[stanza.Addr][]*Session)
	for _, s := range h.sessions {
		byUser[s.addr.Bare()] = append(byUser[s.addr.Bare()], s)
	}
	users := slices.Collect(maps.Keys(byUser))
	for _, user := range users {
		sv.router.Locked(user, func(t Table) {
			if !sv.here(user) {
				sv.cluster.Take(user, h.dead, 0, TermUnknown)
			}
			for _, s := range byUser[user] {
				sv.publishLocked(t, s)
			}
			sv.restorePassedLocked(t)
		})
		sv.wants.came(user)
	}
	sv.metrics.restored.Add(float64(len(h.sessions)))
	now := time.Now()
	for _, s := range h.sessions {
		sv.startClock(s, now)
	}
	return users
}
