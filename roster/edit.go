package roster

import (
	"bytes"
	"context"
	"fmt"

	"holdfast/stanza"
)

// edit changes one contact of a user's roster. decide is given the entry as it is, a void one when there is none, and
// changes it in place; an error from it leaves everything as it was. push is nil when the change is not visible.
func (s *Service) edit(
	ctx context.Context, user, contact stanza.Addr, decide func(r *snapshot, e *entry) error,
) (after entry, push *Change, err error) {
	user, contact = user.Bare(), contact.Bare()
	done, err := s.turns.take(ctx, user)
	if err != nil {
		return entry{}, nil, err
	}
	defer done()
	r, err := s.load(ctx, user)
	if err != nil {
		return entry{}, nil, err
	}

	before := entry{Item: Item{Contact: detached(contact)}}
	if e := r.find(contact); e != nil {
		before = *e
	}
	after = before
	if err := decide(r, &after); err != nil {
		return entry{}, nil, err
	}
	if after.listed && !before.listed && over(r.items+1, s.cfg.Items) {
		return entry{}, nil, ErrManyItems
	}
	visible := !after.looks(&before)
	if !visible && after.state() == before.state() && bytes.Equal(after.Request, before.Request) {
		return after, nil, nil
	}

	next, d := r.with(after, visible, now(), s.cfg.History)
	if err := s.save(ctx, user, next, d); err != nil {
		return entry{}, nil, err
	}
	if visible {
		after.version = next.version
		c := after.change()
		s.metrics.changes[c.Removed].Inc()
		push = &c
	}
	return after, push, nil
}

// Set adds a contact to a user's roster or gives it another name and other groups (§2.3, §2.4). Of item only Contact,
// Name and Groups count; of the contact's address only the bare part. The Change is to be pushed, also when it says
// what was known.
func (s *Service) Set(ctx context.Context, user stanza.Addr, item Item) (Change, error) {
	if item.Contact.IsZero() {
		return Change{}, ErrBadContact
	}
	if user.Bare() == item.Contact.Bare() {
		return Change{}, ErrOwnContact
	}
	if err := s.cfg.checkNames(item.Name, item.Groups); err != nil {
		return Change{}, err
	}
	after, _, err := s.edit(ctx, user, item.Contact, func(_ *snapshot, e *entry) error {
		e.listed = true
		e.Name, e.Groups = item.Name, append([]string(nil), item.Groups...)
		return nil
	})
	if err != nil {
		return Change{}, err
	}
	return after.change(), nil
}

// Remove takes a contact out of a user's roster and ends the subscriptions (§2.5).
func (s *Service) Remove(ctx context.Context, user, contact stanza.Addr) (Change, Removed, error) {
	if contact.IsZero() {
		return Change{}, Removed{}, ErrBadContact
	}
	var owed Removed
	after, _, err := s.edit(ctx, user, contact, func(_ *snapshot, e *entry) error {
		if !e.listed {
			return ErrItemNotFound
		}
		owed = e.removed()
		*e = entry{Item: Item{Contact: e.Contact}}
		return nil
	})
	if err != nil {
		return Change{}, Removed{}, err
	}
	return after.change(), owed, nil
}

// RemoveUser forgets a user's roster, and returns what its contacts are owed.
func (s *Service) RemoveUser(ctx context.Context, user stanza.Addr) ([]Removed, error) {
	user = user.Bare()
	done, err := s.turns.take(ctx, user)
	if err != nil {
		return nil, err
	}
	defer done()
	r, err := s.load(ctx, user)
	if err != nil {
		return nil, err
	}
	timed := s.metrics.begin(opRemove)
	err = s.store.Remove(ctx, user.String())
	timed(err)
	s.cache.drop(user)
	if err != nil {
		return nil, fmt.Errorf("roster: remove: %w", err)
	}
	var owed []Removed
	for _, e := range r.entries {
		if o := e.removed(); o.Unsubscribe || o.Unsubscribed {
			owed = append(owed, o)
		}
	}
	return owed, nil
}

// Outbound decides on a presence stanza of the given kind that the user sends to the contact (§A.2). It goes out from
// the user's bare JID to the contact's. Nothing comes of one to the user itself.
func (s *Service) Outbound(ctx context.Context, user, contact stanza.Addr, kind Kind) (Outcome, error) {
	if contact.IsZero() {
		return Outcome{}, ErrBadContact
	}
	if user.Bare() == contact.Bare() {
		return Outcome{}, nil
	}
	var d decision
	_, push, err := s.edit(ctx, user, contact, func(_ *snapshot, e *entry) error {
		var next state
		next, d = e.state().outbound(kind)
		e.setState(next)
		// §3.1.2, §3.1.5 and §3.4.2 add the contact to the roster; giving up or denying does not.
		if next.sub != None || next.ask || next.approved {
			e.listed = true
		}
		return nil
	})
	if err != nil {
		return Outcome{}, err
	}
	return d.outcome(push), nil
}

// Inbound decides on a presence stanza of the given kind that the user gets from the contact (§A.3). request is the
// stanza itself, used when kind is Subscribe: it is kept until the user answers.
//
// A request over the limit of waiting ones is denied, so that the contact's own roster does not wait for ever.
func (s *Service) Inbound(ctx context.Context, user, contact stanza.Addr, kind Kind, request []byte) (Outcome, error) {
	if contact.IsZero() {
		return Outcome{}, ErrBadContact
	}
	if user.Bare() == contact.Bare() {
		return Outcome{}, nil
	}
	var d decision
	_, push, err := s.edit(ctx, user, contact, func(r *snapshot, e *entry) error {
		var next state
		next, d = e.state().inbound(kind)
		if next.pendingIn && !e.PendingIn {
			if over(r.waiting+1, s.cfg.Requests) {
				d = decision{reply: Unsubscribed}
				return nil
			}
			e.Request = s.request(user, e.Contact, request)
		}
		e.setState(next)
		return nil
	})
	if err != nil {
		return Outcome{}, err
	}
	return d.outcome(push), nil
}

func (d decision) outcome(push *Change) Outcome {
	return Outcome{
		Route: d.route, Push: push, AutoReply: d.reply, SendPresence: d.presence, SendUnavailable: d.unavailable,
		AskAgain: d.again,
	}
}

// request is the form in which a subscribe stanza waits for its answer: complete (§3.1.3), but from the bare address
// that the gateway vouches for. One that is too long is kept without its content.
func (s *Service) request(user, contact stanza.Addr, raw []byte) []byte {
	user, contact = user.Bare(), contact.Bare()
	if len(raw) > 0 && !over(len(raw), s.cfg.RequestSize) {
		var e stanza.Element
		err := e.Scan(raw, stanza.Limits{}) // Rewrite copies
		if err == nil && e.Kind() == stanza.Presence && string(e.TypeRaw()) == Subscribe.String() {
			return e.Rewrite(stanza.Edit{From: contact, To: user}).Raw()
		}
	}
	return stanza.New(stanza.Presence, Subscribe.String(), "", contact, user, nil).Raw()
}
