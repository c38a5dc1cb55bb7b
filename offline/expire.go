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
)

// expireAll removes what is over its lifetime, from time to time, until ctx ends.
func (m *Mailbox) expireAll(ctx context.Context) {
	defer close(m.stopped)
	if m.cfg.Lifetime == 0 {
		return
	}
	t := time.NewTicker(min(max(m.cfg.Lifetime/expiriesALifetime, expiryShortest), expiryLongest))
	defer t.Stop()
	for {
		if _, err := m.Expire(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("expiry of mailboxes failed and will be tried again", slog.Any("error", err))
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// Expire removes the messages whose lifetime is over and returns how many they were. It is done periodically
// without being asked. It costs one seek for each recipient with mail, since the ids of a mailbox are in the order
// of time.
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

// expireUser removes the messages up to the id to.
func (m *Mailbox) expireUser(ctx context.Context, name string, to stanza.ID) (removed int, err error) {
	user, err := stanza.ParseAddr(name)
	if err != nil {
		m.log.Error("stored recipient is not an address", slog.Any("error", err))
		return 0, nil
	}
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
		n, err := m.remove(ctx, user, ids)
		removed += n
		if err != nil || len(ids) < expiryBatch {
			return removed, err
		}
		in.After = ids[len(ids)-1]
	}
}

// idAt is less than every id made at t or later, and greater than those made a millisecond before.
func idAt(t time.Time) stanza.ID {
	var id stanza.ID
	binary.BigEndian.PutUint64(id[:8], uint64(max(t.UnixMilli(), 1))<<16)
	return id
}
