package roster

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"holdfast/stanza"
)

// Store is where rosters are kept. Calls for one user come one at a time; those of different users do not wait for
// each other. Users and contacts are bare JIDs as stanza.Addr prints them.
type Store interface {
	// Load reads a whole roster; one that was never saved is the zero Record.
	Load(ctx context.Context, user string) (Record, error)
	// Save changes a roster as a whole or not at all, and is durable when it returns nil. After an error the
	// change may or may not have been made.
	Save(ctx context.Context, user string, d Delta) error
	// Remove deletes a roster, durably and as a whole.
	Remove(ctx context.Context, user string) error
}

// Record is a stored roster.
type Record struct {
	Version, Floor uint64
	Rows           []Row // in any order
}

// Delta is a change of a stored roster: its new version and floor, the rows that are new or changed, and the contacts
// whose rows go. No contact is in both.
type Delta struct {
	Version, Floor uint64
	Put            []Row
	Delete         []string
}

// Row is what is stored of one contact: an Item, whether it is part of the roster, and its version.
type Row struct {
	Contact      string
	Name         string
	Groups       []string
	Subscription Subscription
	Ask          bool
	Approved     bool
	PendingIn    bool
	Request      []byte
	Listed       bool
	Version      uint64
}

func (e *entry) row() Row {
	return Row{
		Contact: e.Contact.String(), Name: e.Name, Groups: e.Groups,
		Subscription: e.Subscription, Ask: e.Ask, Approved: e.Approved,
		PendingIn: e.PendingIn, Request: e.Request,
		Listed: e.listed, Version: e.version,
	}
}

func (r Row) entry() (*entry, error) {
	contact, err := stanza.ParseAddr(r.Contact)
	if err != nil {
		return nil, err
	}
	return &entry{
		Item: Item{
			Contact: contact, Name: r.Name, Groups: r.Groups,
			Subscription: r.Subscription & Both, Ask: r.Ask, Approved: r.Approved,
			PendingIn: r.PendingIn, Request: r.Request,
		},
		listed:  r.Listed,
		version: r.Version,
	}, nil
}

// snapshot makes a roster of what was stored. A contact whose address is none any more (the rules of addresses follow
// Unicode) is left out of it and stays in the store.
func (rec Record) snapshot(log *slog.Logger) *snapshot {
	if rec.Version == 0 && len(rec.Rows) == 0 {
		return empty
	}
	entries := make([]*entry, 0, len(rec.Rows))
	for _, row := range rec.Rows {
		e, err := row.entry()
		if err != nil {
			log.Warn("stored contact left out: not an address", "error", err)
			continue
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b *entry) int { return strings.Compare(a.Contact.String(), b.Contact.String()) })
	// An address may also have become the equal of another. The later change stands.
	distinct := entries[:0]
	for _, e := range entries {
		last := len(distinct) - 1
		switch {
		case last < 0 || distinct[last].Contact != e.Contact:
			distinct = append(distinct, e)
		case distinct[last].version < e.version:
			distinct[last] = e
		}
	}
	return newSnapshot(rec.Version, rec.Floor, distinct)
}

// load returns a user's roster. The caller has the user's turn.
func (s *Service) load(ctx context.Context, user stanza.Addr) (*snapshot, error) {
	if r, ok := s.cache.get(user); ok {
		return r, nil
	}
	mark := s.cache.mark()
	timed := s.metrics.begin(opLoad)
	rec, err := s.store.Load(ctx, user.String())
	timed(err)
	if err != nil {
		return nil, fmt.Errorf("roster: load: %w", err)
	}
	r := rec.snapshot(s.log)
	s.cache.put(user, r, mark)
	return r, nil
}

// save makes next the user's roster. The caller has the user's turn.
func (s *Service) save(ctx context.Context, user stanza.Addr, next *snapshot, d Delta) error {
	mark := s.cache.mark()
	timed := s.metrics.begin(opSave)
	err := s.store.Save(ctx, user.String(), d)
	timed(err)
	if err != nil {
		s.cache.drop(user) // nobody knows which of the two is stored
		return fmt.Errorf("roster: save: %w", err)
	}
	s.cache.put(user, next, mark)
	return nil
}
