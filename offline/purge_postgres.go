package offline

import (
	"context"
	"database/sql"
	"time"

	"holdfast/stanza"
)

var _ Purges = (*Postgres)(nil)

// AskPurge implements [Purges].
func (s *Postgres) AskPurge(ctx context.Context, user string, to stanza.ID) (seq int64, err error) {
	err = s.db.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `INSERT INTO offline_purge (recipient, upto, at) VALUES ($1, $2, $3) RETURNING seq`,
			user, to[:], time.Now().Unix()).Scan(&seq)
	})
	return seq, failed(err)
}

// PendingPurges implements [Purges].
func (s *Postgres) PendingPurges(ctx context.Context, after int64, n int) (all []Purge, err error) {
	const pending = `SELECT seq, recipient, upto FROM offline_purge WHERE NOT done AND seq > $1 ORDER BY seq LIMIT $2`
	err = s.db.Query(ctx, pending, func(rows *sql.Rows) (bool, error) {
		p, err := scanPurge(rows)
		all = append(all, p)
		return true, err
	}, after, n)
	return all, failed(err)
}

// Purged implements [Purges].
func (s *Postgres) Purged(ctx context.Context, seq int64, removed int, done bool) error {
	return failed(s.db.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error { // not Exec, which may run it twice
		_, err := tx.ExecContext(ctx, `UPDATE offline_purge SET removed = removed + $2, done = done OR $3 WHERE seq = $1`, seq, removed, done)
		return err
	}))
}

// PurgeOutcome implements [Purges].
func (s *Postgres) PurgeOutcome(ctx context.Context, seq int64) (removed int, done bool, err error) {
	found := false
	err = s.db.Query(ctx, `SELECT removed, done FROM offline_purge WHERE seq = $1`, func(rows *sql.Rows) (bool, error) {
		found = true
		return false, rows.Scan(&removed, &done)
	}, seq)
	if err == nil && !found {
		err = ErrNoPurge
	}
	return removed, done, failed(err)
}

// PrunePurges implements [Purges].
func (s *Postgres) PrunePurges(ctx context.Context, before time.Time) error {
	_, err := s.db.Exec(ctx, `DELETE FROM offline_purge WHERE done AND at < $1`, before.Unix())
	return failed(err)
}
