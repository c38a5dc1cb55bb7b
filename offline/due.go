package offline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"holdfast/stanza"
)

// This file is about messages that say themselves when they are not worth anything any more. expire.go is about the
// lifetime that the operator gives to all.

const (
	dueEvery = 2 * time.Second // how often it is looked for messages whose time is over
	dueBatch = 500             // of them at a time
	duePage  = 256 << 10       // bytes of messages in memory, for one user

	// maxSeconds bounds <x xmlns='jabber:x:expire'/>: what is longer is for ever.
	maxSeconds = 100 * 366 * 24 * 60 * 60
)

// Due is a message whose time is over.
type Due struct {
	Expires int64 // milliseconds since 1970, UTC
	User    string
	ID      stanza.ID
}

// Expired is what RunExpiry calls with messages of one user whose time is over, in the order of their ids. It takes them
// out by Remove, as far as they are not on their way to the user already, and returns those that are out, also beside an
// error.
type Expired func(ctx context.Context, user stanza.Addr, due []Message) (gone []stanza.ID, err error)

// expiresAt is when st expires by its own word, in milliseconds since 1970; 0 for never.
func (m *Mailbox) expiresAt(st *stanza.Stanza) int64 {
	has := st.Payloads() & (stanza.Expire | stanza.AMP)
	if has == 0 {
		return 0
	}
	at := int64(0)
	if has&stanza.Expire != 0 {
		at = secondsOf(st)
	}
	if has&stanza.AMP != 0 && m.cfg.ExpireAt != nil {
		if t := m.cfg.ExpireAt(st); !t.IsZero() {
			if ms := max(t.UnixMilli(), 1); at == 0 || ms < at {
				at = ms
			}
		}
	}
	return at
}

// secondsOf is when the seconds of jabber:x:expire are over, which count from when the gateway took the message.
func secondsOf(st *stanza.Stanza) int64 {
	x, ok := st.Find(stanza.NSExpire, "x")
	if !ok {
		return 0
	}
	seconds, err := strconv.ParseUint(x.Attr("seconds"), 10, 64)
	if err != nil || seconds > maxSeconds {
		return 0
	}
	return max(st.ID.Time().UnixMilli()+int64(seconds)*1000, 1)
}

// secondsLeft is the element for a message that has waited: so that its recipient does not count anew from 0.
func secondsLeft(st *stanza.Stanza, now time.Time) []byte {
	at := secondsOf(st)
	if at == 0 {
		return nil
	}
	left := max((at-now.UnixMilli()+999)/1000, 0)
	return []byte("<x xmlns='" + stanza.NSExpire + "' seconds='" + strconv.FormatInt(left, 10) + "'/>")
}

// over reports whether the time of a message with these milliseconds is over.
func over(expires int64, now time.Time) bool { return expires > 0 && expires <= now.UnixMilli() }

// Overdue reports whether the time of a message is over by its own word.
func (m *Mailbox) Overdue(st *stanza.Stanza) bool { return over(m.expiresAt(st), time.Now()) }

// RunExpiry has expired take out what says itself that its time is over, until ctx ends: some seconds later at most,
// where no store is slow. Until then nobody is given it. Users that are not Config.Mine are left to others.
func (m *Mailbox) RunExpiry(ctx context.Context, expired Expired) {
	t := time.NewTicker(dueEvery)
	defer t.Stop()
	for {
		if _, err := m.ExpireDue(ctx, expired); err != nil && ctx.Err() == nil {
			m.log.Warn("messages whose time is over were not removed and will be tried again", slog.Any("error", err))
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// ExpireDue does once what RunExpiry does, in batches, and returns how many messages are gone. An error with one user
// does not keep it from the others. It costs one seek when there is nothing to do.
func (m *Mailbox) ExpireDue(ctx context.Context, expired Expired) (removed int, err error) {
	now := time.Now().UnixMilli()
	for after := (Due{}); ; {
		batch, derr := m.store.Due(ctx, now, after, dueBatch)
		if derr != nil {
			return removed, errors.Join(err, derr)
		}
		byUser := make(map[string][]stanza.ID)
		var users []string
		for _, d := range batch {
			if byUser[d.User] == nil {
				users = append(users, d.User)
			}
			byUser[d.User] = append(byUser[d.User], d.ID)
		}
		for _, name := range users {
			n, uerr := m.expireDueOf(ctx, name, byUser[name], expired)
			removed += n
			if err = errors.Join(err, uerr); ctx.Err() != nil {
				return removed, err
			}
		}
		if len(batch) < dueBatch {
			return removed, err
		}
		after = batch[len(batch)-1]
	}
}

// expireDueOf has messages of one user taken out.
func (m *Mailbox) expireDueOf(ctx context.Context, name string, ids []stanza.ID, expired Expired) (removed int, err error) {
	user, ok := m.ownUser(ctx, name)
	if !ok {
		return 0, nil
	}
	defer func() {
		// One who went to another node just now has a box again that nobody keeps up to date.
		if !m.mine(ctx, user) {
			err = errors.Join(err, m.Release(ctx, user))
		}
	}()
	for len(ids) > 0 {
		var due []Message
		if due, ids, err = m.read(ctx, user, ids); err != nil || len(due) == 0 {
			return removed, err
		}
		gone, err := expired(ctx, user, due)
		removed += len(gone)
		m.countExpired(due, gone)
		if err != nil {
			return removed, fmt.Errorf("offline: expiry: %w", err)
		}
	}
	return removed, nil
}

// countExpired counts what is gone by what it said.
func (m *Mailbox) countExpired(due []Message, gone []stanza.ID) {
	for _, msg := range due {
		for _, id := range gone {
			if id != msg.ID {
				continue
			}
			c := m.metrics.expiredRule
			if st, err := stanza.Parse(msg.Raw, msg.ID); err == nil && secondsOf(st) == msg.expires {
				c = m.metrics.expiredSeconds
			}
			c.Inc()
		}
	}
}

// read returns those of ids that are there, up to duePage bytes of them, and the rest of ids.
func (m *Mailbox) read(ctx context.Context, user stanza.Addr, ids []stanza.ID) (found []Message, rest []stanza.ID, err error) {
	size := 0
	err = m.with(ctx, user, func(b *box) error {
		for len(ids) > 0 && size < duePage {
			id := ids[0]
			msg, ok, err := m.readLocked(ctx, b, id)
			if err != nil {
				return err
			}
			if ids = ids[1:]; ok {
				found, size = append(found, msg), size+len(msg.Raw)
			}
		}
		return nil
	})
	return found, ids, err
}

func (m *Mailbox) readLocked(ctx context.Context, b *box, id stanza.ID) (msg Message, ok bool, err error) {
	if i, put := b.find(id); put {
		c := &b.puts[i].change
		return Message{ID: id, At: id.Time(), Raw: c.Raw, expires: c.Expires}, true, nil
	}
	if b.inStore() == 0 || b.removing[id] > 0 {
		return Message{}, false, nil
	}
	err = m.store.Scan(ctx, b.name, Range{After: before(id), To: id, Bodies: true}, func(r Row) bool {
		msg, ok = Message{ID: id, At: id.Time(), Raw: r.Raw, expires: r.Expires}, true
		return false
	})
	return msg, ok, err
}
