package offline

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"holdfast/stanza"
)

var _ Purges = (*SQLite)(nil)

// AskPurge implements [Purges].
func (s *SQLite) AskPurge(ctx context.Context, user string, to stanza.ID) (seq int64, err error) {
	err = s.db.Tx(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `INSERT INTO offline_purge (recipient, upto, at) VALUES (?, ?, ?) RETURNING seq`,
			user, to[:], time.Now().Unix()).Scan(&seq)
	})
	return seq, failed(err)
}

// PendingPurges implements [Purges].
func (s *SQLite) PendingPurges(ctx context.Context, after int64, n int) (all []Purge, err error) {
	const pending = `SELECT seq, recipient, upto FROM offline_purge WHERE done = 0 AND seq > ? ORDER BY seq LIMIT ?`
	err = s.query(ctx, pending, func(rows *sql.Rows) (bool, error) {
		p, err := scanPurge(rows)
		all = append(all, p)
		return true, err
	}, after, n)
	return all, err
}

// Purged implements [Purges].
func (s *SQLite) Purged(ctx context.Context, seq int64, removed int, done bool) error {
	return s.exec(ctx, `UPDATE offline_purge SET removed = removed + ?, done = done OR ? WHERE seq = ?`, removed, done, seq)
}

// PurgeOutcome implements [Purges].
func (s *SQLite) PurgeOutcome(ctx context.Context, seq int64) (removed int, done bool, err error) {
	err = s.db.Read.QueryRowContext(ctx, `SELECT removed, done FROM offline_purge WHERE seq = ?`, seq).Scan(&removed, &done)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoPurge
	}
	return removed, done, failed(err)
}

// PrunePurges implements [Purges].
func (s *SQLite) PrunePurges(ctx context.Context, before time.Time) error {
	return s.exec(ctx, `DELETE FROM offline_purge WHERE done = 1 AND at < ?`, before.Unix())
}

func (s *SQLite) exec(ctx context.Context, statement string, args ...any) error {
	return failed(s.db.Tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, statement, args...)
		return err
	}))
}

// scanPurge reads a row of number, recipient and id.
func scanPurge(rows *sql.Rows) (p Purge, err error) {
	var to sql.RawBytes
	if err = rows.Scan(&p.Seq, &p.User, &to); err == nil {
		p.To, err = readID(to)
	}
	if err != nil {
		err = fmt.Errorf("request to purge: %w", err)
	}
	return p, err
}
