package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"holdfast/amp"
	"holdfast/auth"
	"holdfast/internal/journal"
	"holdfast/internal/sqlx"
	"holdfast/offline"
	"holdfast/packetcache"
	"holdfast/receipts"
	"holdfast/resume"
	"holdfast/roster"
	"holdfast/route"
	"holdfast/session"
	"holdfast/stanza"
)

// This file fits the rooms together: each type here makes one of them look as session wants to see it.

// authenticator is auth for session.
type authenticator struct{ *auth.Service }

func (a authenticator) Begin(mechanism, domain string, from netip.Addr, secure bool) (session.Exchange, error) {
	return a.Service.Begin(mechanism, domain, from, secure)
}

// accounts is auth's accounts and registration for session.
type accounts struct{ *auth.Service }

func (a accounts) Exists(ctx context.Context, user stanza.Addr) (bool, error) {
	ok, err := a.Accounts().Exists(ctx, user)
	return ok, busy(err)
}

// busy marks errors that pass as such: what they are about is tried again, while the client waits.
func busy(err error) error {
	if err != nil && (errors.Is(err, offline.ErrBusy) || sqlx.Transient(err)) {
		return errors.Join(session.ErrBusy, err)
	}
	return err
}

// router is route for session.
type router struct {
	*route.Hub[*session.Session, session.Verdict]
}

func newRouter(sv *session.Service) session.Router {
	return router{route.New[*session.Session, session.Verdict](sv)}
}

// newGatedRouter routes to the users whose home this node is.
func newGatedRouter(here func(stanza.Addr) bool) func(*session.Service) session.Router {
	return func(sv *session.Service) session.Router {
		hub := route.New[*session.Session, session.Verdict](sv)
		hub.Gate(here)
		return router{hub}
	}
}

func (r router) Message(from *session.Session, st *stanza.Stanza) error {
	return elsewhere(r.Hub.Message(from, st))
}

func (r router) Direct(to stanza.Addr, from *session.Session, st *stanza.Stanza) (bool, error) {
	ok, err := r.Hub.Direct(to, from, st)
	return ok, elsewhere(err)
}

func elsewhere(err error) error {
	if err == route.ErrElsewhere { //nolint:errorlint // returned as it is
		return session.ErrElsewhere
	}
	return err
}

func (r router) Locked(user stanza.Addr, f func(session.Table)) {
	r.Hub.Locked(user, func(t route.Table[*session.Session]) { f(t) })
}

// contacts is roster for session.
type contacts struct{ *roster.Service }

func (c contacts) Items(ctx context.Context, user stanza.Addr, has string, versioned bool) ([]session.Contact, string, bool, error) {
	if versioned && has != "" {
		changes, version, ok, err := c.Since(ctx, user, has)
		if err != nil {
			return nil, "", false, err
		}
		if ok {
			return pushes(changes), version, true, nil
		}
	}
	items, version, err := c.Get(ctx, user)
	if err != nil {
		return nil, "", false, err
	}
	out := make([]session.Contact, len(items))
	for i, it := range items {
		out[i] = contact(it)
	}
	return out, version, false, nil
}

func (c contacts) Set(ctx context.Context, user stanza.Addr, item session.Contact) (session.Contact, error) {
	ch, err := c.Service.Set(ctx, user, roster.Item{Contact: item.Addr, Name: item.Name, Groups: item.Groups})
	return push(ch), err
}

func (c contacts) Remove(ctx context.Context, user, who stanza.Addr) (session.Contact, session.Parting, error) {
	ch, gone, err := c.Service.Remove(ctx, user, who)
	return push(ch), parting(gone), err
}

func (c contacts) Forget(ctx context.Context, user stanza.Addr) (map[stanza.Addr]session.Parting, error) {
	gone, err := c.RemoveUser(ctx, user)
	owed := make(map[stanza.Addr]session.Parting, len(gone))
	for _, r := range gone {
		owed[r.Contact] = parting(r)
	}
	return owed, err
}

func (c contacts) Change(ctx context.Context, user, who stanza.Addr, inbound bool, st *stanza.Stanza) (session.Outcome, error) {
	kind, _ := roster.ParseKind(st.TypeRaw())
	var out roster.Outcome
	var err error
	if inbound {
		out, err = c.Inbound(ctx, user, who, kind, st.Raw())
	} else {
		out, err = c.Outbound(ctx, user, who, kind)
	}
	o := session.Outcome{
		Route: out.Route, SendPresence: out.SendPresence, SendUnavailable: out.SendUnavailable, AskAgain: out.AskAgain,
	}
	if out.Push != nil {
		p := push(*out.Push)
		o.Push = &p
	}
	if out.AutoReply != roster.NoKind {
		o.AutoReply = out.AutoReply.String()
	}
	return o, busy(err)
}

func (c contacts) Watchers(ctx context.Context, user stanza.Addr) ([]stanza.Addr, error) {
	all, err := c.Subscribers(ctx, user)
	return all, busy(err)
}

func (c contacts) Watched(ctx context.Context, user stanza.Addr) ([]stanza.Addr, error) {
	all, err := c.Subscriptions(ctx, user)
	return all, busy(err)
}

func (c contacts) Pending(ctx context.Context, user stanza.Addr) ([][]byte, error) {
	all, err := c.PendingRequests(ctx, user)
	return all, busy(err)
}

func contact(it roster.Item) session.Contact {
	return session.Contact{
		Addr: it.Contact, Name: it.Name, Groups: it.Groups, Subscription: it.Subscription.String(),
		Ask: it.Ask, Approved: it.Approved,
	}
}

func push(ch roster.Change) session.Contact {
	c := contact(ch.Item)
	c.Version = ch.Version
	if ch.Removed {
		c.Subscription = "remove"
	}
	return c
}

func pushes(changes []roster.Change) []session.Contact {
	out := make([]session.Contact, len(changes))
	for i, ch := range changes {
		out[i] = push(ch)
	}
	return out
}

func parting(r roster.Removed) session.Parting {
	return session.Parting{Unavailable: r.SendUnavailable, Unsubscribe: r.Unsubscribe, Unsubscribed: r.Unsubscribed}
}

// mailbox is offline for session. Its queries are short, and the lock they are made under is one user's.
type mailbox struct {
	*offline.Mailbox
	ctx    context.Context
	policy offline.Policy
	log    *slog.Logger
}

func (m mailbox) Storable(st *stanza.Stanza) bool {
	return offline.Decide(st, m.policy).Action == offline.Store
}

func (m mailbox) Store(user stanza.Addr, st *stanza.Stanza, force bool) (session.Verdict, error) {
	var v offline.Verdict
	var err error
	if force {
		if v = m.Decide(st); v.Action == offline.Store {
			err = m.Force(m.ctx, user, st)
		}
	} else {
		v, err = m.Put(m.ctx, user, st)
	}
	switch {
	case err == offline.ErrFull: //nolint:errorlint // returned as it is
	case err != nil:
		return session.Verdict{Fate: session.Refused}, busy(err)
	}
	switch v.Action {
	case offline.Store:
		return session.Verdict{Fate: session.Kept}, nil
	case offline.Drop:
		return session.Verdict{Fate: session.Dropped}, nil
	case offline.Bounce:
	}
	return session.Verdict{Fate: session.Refused, Why: v.Text()}, nil
}

func (m mailbox) Page(user stanza.Addr, after stanza.ID, count, bytes int) ([]*stanza.Stanza, bool, error) {
	page, more, err := m.Mailbox.Page(m.ctx, user, after, count, bytes)
	if err != nil {
		return nil, false, err
	}
	out, err := m.stanzas(user, page)
	return out, more, err
}

func (m mailbox) Peek(user stanza.Addr, after stanza.ID, count, bytes int) ([]*stanza.Stanza, bool, error) {
	page, more, err := m.Mailbox.Peek(m.ctx, user, after, count, bytes)
	if err != nil {
		return nil, false, err
	}
	out, err := m.stanzas(user, page)
	return out, more, err
}

// stanzas reads messages, and removes those that nobody can read.
func (m mailbox) stanzas(user stanza.Addr, page []offline.Message) ([]*stanza.Stanza, error) {
	out := make([]*stanza.Stanza, 0, len(page))
	for _, msg := range page {
		st, err := msg.Stanza(user)
		if err != nil {
			// It can never be delivered, and those behind it should be.
			m.log.Error("stored message not readable, it is removed", "id", msg.ID, "error", err)
			if err := m.Discard(user, msg.ID); err != nil {
				return nil, err
			}
			continue
		}
		out = append(out, st)
	}
	return out, nil
}

func (m mailbox) Remove(user stanza.Addr, ids ...stanza.ID) error {
	return m.Mailbox.Remove(m.ctx, user, ids...)
}

func (m mailbox) Empty(user stanza.Addr) (bool, error) { return m.Mailbox.Empty(m.ctx, user) }

func (m mailbox) Count(user stanza.Addr) (int, error) { return m.Mailbox.Count(m.ctx, user) }

func (m mailbox) Purge(user stanza.Addr) error { return m.Mailbox.Purge(m.ctx, user) }

func (m mailbox) PairLimit(user stanza.Addr) (n int, limited bool, err error) {
	return m.Mailbox.PairLimit(m.ctx, user)
}

// limitPatience is how long a user waits for the store to take a new limit. Tests wait longer.
var limitPatience = time.Second

func (m mailbox) Choose(user stanza.Addr, n int, limited bool) error {
	ctx, cancel := context.WithTimeout(m.ctx, limitPatience)
	defer cancel()
	return m.Mailbox.Choose(ctx, user, offline.OwnLimit{Lifted: !limited, Messages: n})
}

func (m mailbox) Forget(user stanza.Addr) error {
	ctx, cancel := context.WithTimeout(m.ctx, limitPatience)
	defer cancel()
	return m.Mailbox.Forget(ctx, user)
}

func (m mailbox) Upto(user stanza.Addr, to stanza.ID, most int) ([]stanza.ID, error) {
	return m.Mailbox.Upto(m.ctx, user, to, most)
}

func (m mailbox) Discard(user stanza.Addr, ids ...stanza.ID) error {
	return m.Mailbox.Discard(m.ctx, user, ids...)
}

func (m mailbox) Room(ctx context.Context) error { return m.Mailbox.Room(ctx) }

// expireAt is when a message with rules expires by them.
func expireAt(st *stanza.Stanza) time.Time {
	if rules, _, _ := amp.Of(st); rules != nil {
		if at, ok := rules.Expires(); ok {
			return at
		}
	}
	return time.Time{}
}

// expired has session take out of the mailbox what is over its own time.
func expired(sv *session.Service, box *offline.Mailbox, log *slog.Logger) offline.Expired {
	return func(ctx context.Context, user stanza.Addr, due []offline.Message) ([]stanza.ID, error) {
		all := make([]*stanza.Stanza, 0, len(due))
		var unreadable []stanza.ID
		for _, msg := range due {
			st, err := stanza.Parse(msg.Raw, msg.ID)
			if err != nil {
				log.Error("stored message not readable, it is removed", "id", msg.ID, "error", err)
				unreadable = append(unreadable, msg.ID)
				continue
			}
			all = append(all, st)
		}
		if err := box.Discard(ctx, user, unreadable...); err != nil {
			return nil, err
		}
		gone, err := sv.Expired(user, all)
		gone = append(gone, unreadable...)
		if errors.Is(err, session.ErrElsewhere) {
			return gone, nil // it is the other node's
		}
		return gone, err
	}
}

// proofs is receipts and packetcache for session.
type proofs struct {
	cache  *packetcache.Cache
	policy receipts.Policy
}

func (p proofs) Awaits(st *stanza.Stanza) bool { return receipts.Asks(st) }

func (p proofs) Waits(id stanza.ID) bool {
	_, ok := p.cache.Get(id)
	return ok
}

func (p proofs) Room(ctx context.Context) error { return p.cache.Room(ctx) }

func (p proofs) Open(st *stanza.Stanza) { p.cache.Open(st) }

func (p proofs) Received(st *stanza.Stanza) (closed []stanza.ID, stored bool) {
	for by, id := range p.policy.Proved(st) {
		find := p.cache.Receipt
		if by == receipts.ByMarker {
			find = p.cache.Marker
		}
		ids, offline := find(st.From, st.To, id)
		closed, stored = append(closed, ids...), stored || offline
	}
	return closed, stored
}

func (p proofs) Proved(id stanza.ID) (closed, stored bool) {
	if !p.policy.Ack(receipts.Unsupported) {
		return false, false
	}
	return p.cache.Proved(id)
}

// actions is what the packet cache does when no receipt came, done by session.
type actions struct{ sv *session.Service }

func (a *actions) Resend(_ context.Context, e packetcache.Entry) (bool, error) {
	n, err := a.sv.Resend(e.Stanza)
	return n > 0, err
}

func (a *actions) Offline(_ context.Context, e packetcache.Entry) error {
	kept, err := a.sv.Fallback(e.Stanza)
	if err == nil && !kept {
		return packetcache.ErrRefused
	}
	return err
}

func (a *actions) Bounce(_ context.Context, e packetcache.Entry) error { return a.sv.Bounce(e.Stanza) }

func (a *actions) Withdraw(_ context.Context, e packetcache.Entry) error {
	a.sv.Withdraw(e.To.Bare(), e.ID)
	return nil
}

// live is session's checkpoints for resume.
type live struct{ sv *session.Service }

func (l live) Collect(boundary func()) (changed []resume.Change, gone []uint64, commit, abort func()) {
	cp := l.sv.Checkpoint(boundary)
	changed = make([]resume.Change, len(cp.Changed))
	for i, c := range cp.Changed {
		changed[i] = resume.Change(c)
	}
	return changed, cp.Gone, cp.Commit, cp.Abort
}

// TouchAll has the next checkpoint write everything.
func (l live) TouchAll() { l.sv.TouchAll() }

// restore gives every room what an earlier process left for it.
func restore(ctx context.Context, rec *resume.Recovered, sv *session.Service, box *offline.Mailbox, cache *packetcache.Cache) error {
	for _, e := range rec.Effects {
		switch e.Kind {
		case journal.KindStanza:
			st := e.Stanza.Stanza
			if e.Stanza.Flags&journal.Stored != 0 {
				if err := box.Room(ctx); err != nil { // Force does not wait for it
					return err
				}
				if err := box.Force(ctx, st.To.Bare(), st); err != nil {
					return err
				}
			}
			if entry, ok := awaitedBy(e.Stanza); ok {
				cache.Restore(entry)
			}
		case journal.KindUnstored:
			if err := unstore(ctx, box, e); err != nil {
				return err
			}
		case journal.KindProved:
			for _, id := range e.IDs {
				cache.Close(id)
			}
		}
	}
	all := make([]session.Restored, len(rec.Sessions))
	for i, s := range rec.Sessions {
		all[i] = session.Restored{State: s.State, Handled: s.Handled, Acked: s.Acked, Queue: s.Queue}
	}
	return sv.Restore(all)
}

// awaitedBy is the packet-cache entry that a journal record tells of, if it does.
func awaitedBy(rec *journal.Stanza) (packetcache.Entry, bool) {
	st := rec.Stanza
	entry := packetcache.Entry{ID: st.ID, From: st.From, To: st.To, MsgID: st.Attr("id"), Stanza: st}
	if rec.Flags&journal.Stored != 0 {
		entry.Stanza = nil // it went offline; a late receipt is still worth something
	}
	return entry, rec.Flags&journal.Awaits != 0
}

// unstore takes out of a mailbox what the journal says is out of it.
func unstore(ctx context.Context, box *offline.Mailbox, e resume.Effect) error {
	if len(e.IDs) == 0 {
		return box.Purge(ctx, e.User)
	}
	return box.Discard(ctx, e.User, e.IDs...)
}
