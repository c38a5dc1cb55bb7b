package offline

import (
	"context"
	"encoding/binary"
	"log/slog"
	"time"

	"holdfast/stanza"
)

const (
	expiryBatch       = 500         // messages removed at once
	expiryShortest    = time.Minute // between two rounds
	expiryLongest     = time.Hour
	expiriesALifetime = 20 // rounds in one lifetime, so that a message outlives it by 5% at most

	countEvery = time.Minute // how often a shared store is asked how much it has
)

// upkeep does what comes from time to time, until ctx ends: it removes what is over its lifetime, and counts a store
// that others change too.
func (m *Mailbox) upkeep(ctx context.Context) {
	defer close(m.stopped)
	var expire, count <-chan time.Time // nil: never
	if m.cfg.Lifetime > 0 {
		t := time.NewTicker(min(max(m.cfg.Lifetime/expiriesALifetime, expiryShortest), expiryLongest))
		defer t.Stop()
		expire = t.C
		m.expire(ctx)
	}
	if m.cfg.Shared {
		t := time.NewTicker(countEvery)
		defer t.Stop()
		count = t.C
	}
	if expire == nil && count == nil {
		return
	}
	for {
		select {
		case <-expire:
			m.expire(ctx)
		case <-count:
			if err := m.countStored(ctx); err != nil && ctx.Err() == nil {
				m.log.Warn("messages in the store were not counted", slog.Any("error", err))
			}
		case <-ctx.Done():
			return
		}
	}
}

func (m *Mailbox) expire(ctx context.Context) {
	if _, err := m.Expire(ctx); err != nil && ctx.Err() == nil {
		m.log.Warn("expiry of mailboxes failed and will be tried again", slog.Any("error", err))
	}
}

func (m *Mailbox) countStored(ctx context.Context) error {
	n, err := m.store.Stored(ctx)
	if err != nil {
		return err
	}
	m.stored.Store(n)
	return nil
}

// Expire removes the messages whose lifetime is over and returns how many they were. It is done periodically
// without being asked. It costs one seek for each recipient with mail, since the ids of a mailbox are in the order
// of time. Users that are not Config.Mine are left to others.
func (m *Mailbox) Expire(ctx context.Context) (removed int, err error) {
	if m.cfg.Lifetime == 0 {
		return 0, nil
	}
	to := before(idAt(time.Now().Add(-m.cfg.Lifetime)))
	for after := ""; ; {
		names, err := m.store.Users(ctx, after, usersPage)
		if err != nil {
			return removed, err
		}
		for _, name := range names {
			n, err := m.expireUser(ctx, name, to)
			removed += n
			m.metrics.expired.Add(float64(n))
			if err != nil {
				return removed, err
			}
		}
		if len(names) < usersPage {
			return removed, nil
		}
		after = names[len(names)-1]
	}
}

// ownUser is the user of whom a store says that there are messages, if this process may take some out.
func (m *Mailbox) ownUser(ctx context.Context, name string) (user stanza.Addr, mine bool) {
	user, err := stanza.ParseAddr(name)
	if err != nil {
		m.log.Error("stored recipient is not an address", slog.Any("error", err))
		return user, false
	}
	return user, m.mine(ctx, user)
}

// expireUser removes the messages up to the id to.
func (m *Mailbox) expireUser(ctx context.Context, name string, to stanza.ID) (removed int, err error) {
	user, ok := m.ownUser(ctx, name)
	if !ok {
		return 0, nil
	}
	defer func() {
		// One who went to another node just now has a box again that nobody keeps up to date.
		if removed > 0 && !m.mine(ctx, user) {
			if rerr := m.Release(ctx, user); rerr != nil && err == nil {
				err = rerr
			}
		}
	}()
	in := Range{To: to}
	for {
		ids := make([]stanza.ID, 0, 16)
		err := m.store.Scan(ctx, name, in, func(r Row) bool {
			ids = append(ids, r.ID)
			return len(ids) < expiryBatch
		})
		if err != nil || len(ids) == 0 {
			return removed, err
		}
		n, err := m.remove(ctx, user, ids, nil)
		removed += n
		if err != nil || len(ids) < expiryBatch {
			return removed, err
		}
		in.After = ids[len(ids)-1]
	}
}

func (m *Mailbox) mine(ctx context.Context, user stanza.Addr) bool {
	return m.cfg.Mine == nil || m.cfg.Mine(ctx, user)
}

// idAt is less than every id made at t or later, and greater than those made a millisecond before.
func idAt(t time.Time) stanza.ID {
	var id stanza.ID
	binary.BigEndian.PutUint64(id[:8], uint64(max(t.UnixMilli(), 1))<<16)
	return id
}
