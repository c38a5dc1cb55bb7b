package auth

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"holdfast/stanza"
)

// logged is one change of accounts: a transaction that holds the lock of the log.
type logged struct {
	ctx  context.Context
	tx   *sql.Tx
	last int64 // the last Seq given out, by this transaction too
}

// change runs fn in a transaction that holds the lock of the log. The lock comes before anything else is changed, so
// no two transactions wait for each other.
func (s *Postgres) change(ctx context.Context, fn func(*logged) error) error {
	return s.db.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		l := &logged{ctx: ctx, tx: tx}
		if err := tx.QueryRowContext(ctx, `SELECT last FROM auth_log FOR UPDATE`).Scan(&l.last); err != nil {
			return err
		}
		if err := fn(l); err != nil {
			return err
		}
		return l.exec(`UPDATE auth_log SET last = $1`, l.last)
	})
}

// log adds one entry and returns its Seq.
func (l *logged) log(user stanza.Addr, pending bool) (int64, error) {
	l.last++
	err := l.exec(`INSERT INTO auth_change (seq, addr, at, pending) VALUES ($1, $2, $3, $4)`,
		l.last, user.String(), time.Now().Unix(), pending)
	return l.last, err
}

func (l *logged) exec(statement string, args ...any) error {
	_, err := l.tx.ExecContext(l.ctx, statement, args...)
	return err
}

// find is exec for the statement that changes the account itself: without one it is ErrNotFound.
func (l *logged) find(statement string, args ...any) error {
	res, err := l.tx.ExecContext(l.ctx, statement, args...)
	return affected(res, err)
}

func (l *logged) numbers(query string, args ...any) (all []int64, err error) {
	rows, err := l.tx.QueryContext(l.ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, rows.Err()
}

// Changes implements Log.
func (s *Postgres) Changes(ctx context.Context, after int64, limit int) ([]Change, error) {
	return s.changes(ctx, `SELECT seq, addr FROM auth_change WHERE seq > $1 ORDER BY seq LIMIT $2`, after, limit)
}

// Last implements Log.
func (s *Postgres) Last(ctx context.Context) (seq int64, err error) {
	err = s.db.Query(ctx, `SELECT last FROM auth_log`, func(rows *sql.Rows) (bool, error) {
		return false, rows.Scan(&seq)
	})
	return seq, failed("log of changes", err)
}

// Pending implements Log.
func (s *Postgres) Pending(ctx context.Context, limit int) ([]Change, error) {
	return s.changes(ctx, `SELECT seq, addr FROM auth_change WHERE pending ORDER BY seq LIMIT $1`, limit)
}

func (s *Postgres) changes(ctx context.Context, query string, args ...any) ([]Change, error) {
	var list []Change
	err := s.db.Query(ctx, query, func(rows *sql.Rows) (bool, error) {
		var c Change
		var addr string
		if err := rows.Scan(&c.Seq, &addr); err != nil {
			return false, err
		}
		var err error
		c.Addr, err = stanza.ParseAddr(addr)
		list = append(list, c)
		return true, err
	}, args...)
	return list, failed("log of changes", err)
}

// Claim implements Log. The database's clock counts, so that those of the gateways may differ.
func (s *Postgres) Claim(ctx context.Context, seq int64, claimant string, lease time.Duration) (bool, error) {
	// Of two at once the second waits for the first's row, looks at it again and finds it taken.
	n, err := s.db.Exec(ctx, `UPDATE auth_change SET claimant = $2, claim_end = now() + $3 * interval '1 second'
WHERE seq = $1 AND pending AND (claimant IS NULL OR claimant = $2 OR claim_end < now())`, seq, claimant, lease.Seconds())
	if err != nil {
		return false, fmt.Errorf("auth: log of changes: %w", err)
	}
	return n == 1, nil
}

// Handled implements Log.
func (s *Postgres) Handled(ctx context.Context, seq int64) error {
	err := s.change(ctx, func(l *logged) error {
		err := l.exec(`UPDATE auth_change SET pending = false WHERE seq = $1`, seq)
		if err != nil {
			return err
		}
		// Only one who was made anew meanwhile is there.
		err = l.find(`INSERT INTO auth_change (seq, addr, at)
SELECT $2::bigint, addr, $3::bigint FROM auth_account WHERE addr = (SELECT addr FROM auth_change WHERE seq = $1)`, seq, l.last+1, time.Now().Unix())
		switch {
		case errors.Is(err, ErrNotFound):
			return nil
		case err != nil:
			return err
		}
		l.last++
		return nil
	})
	return failed("log of changes", err)
}

// Prune implements Log.
func (s *Postgres) Prune(ctx context.Context, before time.Time) error {
	_, err := s.db.Exec(ctx, `DELETE FROM auth_change WHERE NOT pending AND at < $1`, before.Unix())
	return failed("log of changes", err)
}
