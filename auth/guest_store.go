package auth

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"holdfast/stanza"
)

// Guests is a store's part for guests.
type Guests interface {
	// Guest notes that a guest is there, and makes the account when it is not there. Errors: ErrExists when an account
	// of that name is nobody's guest, ErrGuests when there are limit of them (0 for no limit).
	Guest(ctx context.Context, user stanza.Addr, limit int) error
	// IdleGuests returns up to limit guests who were not there since before, the longest gone first.
	IdleGuests(ctx context.Context, before time.Time, limit int) ([]stanza.Addr, error)
}

// Guest implements Store.
func (s *SQLite) Guest(ctx context.Context, user stanza.Addr, limit int) error {
	err := s.db.Tx(ctx, func(tx *sql.Tx) error {
		now := time.Now().Unix()
		res, err := s.exec(ctx, tx, `UPDATE auth_guest SET seen = ? WHERE addr = ?`, now, user.String())
		if err = affected(res, err); err != ErrNotFound { //nolint:errorlint // returned as it is
			return err
		}
		var guests int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM auth_guest`).Scan(&guests); err != nil {
			return err
		}
		if limit > 0 && guests >= limit {
			return ErrGuests
		}
		res, err = s.exec(ctx, tx, insertAccount, user.String(), 0, now)
		if err = affected(res, err); err != nil {
			return taken(err)
		}
		if err := s.changed(ctx, tx, user, now); err != nil {
			return err
		}
		_, err = s.exec(ctx, tx, `INSERT INTO auth_guest (addr, seen) VALUES (?, ?)`, user.String(), now)
		return err
	})
	return guestFailed(err)
}

// IdleGuests implements Store.
func (s *SQLite) IdleGuests(ctx context.Context, before time.Time, limit int) ([]stanza.Addr, error) {
	rows, err := s.db.Read.QueryContext(ctx, `SELECT 0, addr FROM auth_guest WHERE seen < ? ORDER BY seen LIMIT ?`, before.Unix(), limit)
	list, err := changes(rows, err)
	return addrs(list), err
}

// Guest implements Store. The lock of the log is only taken for a guest who is new.
func (s *Postgres) Guest(ctx context.Context, user stanza.Addr, limit int) error {
	now := time.Now().Unix()
	const seen = `UPDATE auth_guest SET seen = $2 WHERE addr = $1`
	if n, err := s.db.Exec(ctx, seen, user.String(), now); err != nil || n == 1 {
		return failed("guest", err)
	}
	err := s.change(ctx, func(l *logged) error {
		// Another gateway may have been quicker.
		if err := l.find(seen, user.String(), now); err != ErrNotFound { //nolint:errorlint // returned as it is
			return err
		}
		counts, err := l.numbers(`SELECT count(*) FROM auth_guest`)
		if err != nil {
			return err
		}
		if limit > 0 && counts[0] >= int64(limit) {
			return ErrGuests
		}
		err = l.find(`INSERT INTO auth_account (addr, version, created) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, user.String(), l.last+1, now)
		if err != nil {
			return taken(err)
		}
		if _, err := l.log(user, false); err != nil {
			return err
		}
		return l.exec(`INSERT INTO auth_guest (addr, seen) VALUES ($1, $2)`, user.String(), now)
	})
	return guestFailed(err)
}

// IdleGuests implements Store.
func (s *Postgres) IdleGuests(ctx context.Context, before time.Time, limit int) ([]stanza.Addr, error) {
	list, err := s.changes(ctx, `SELECT 0::bigint, addr FROM auth_guest WHERE seen < $1 ORDER BY seen LIMIT $2`, before.Unix(), limit)
	return addrs(list), err
}

// taken is what an insert that changed nothing means.
func taken(err error) error {
	if err == ErrNotFound { //nolint:errorlint // returned as it is
		return ErrExists
	}
	return err
}

func addrs(list []Change) []stanza.Addr {
	all := make([]stanza.Addr, len(list))
	for i, c := range list {
		all[i] = c.Addr
	}
	return all
}

// guestFailed says what failed, but for the two errors that are answers.
func guestFailed(err error) error {
	if err == nil || err == ErrExists || err == ErrGuests { //nolint:errorlint // returned as they are
		return err
	}
	return fmt.Errorf("auth: guest: %w", err)
}
