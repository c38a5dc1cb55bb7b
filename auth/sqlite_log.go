package auth

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"holdfast/stanza"
)

const selectChanges = `SELECT seq, addr FROM auth_change WHERE seq > ? ORDER BY seq LIMIT ?`

// Changes implements Log.
func (s *SQLite) Changes(ctx context.Context, after int64, limit int) ([]Change, error) {
	ctx = context.WithoutCancel(ctx) // as in Load
	st, err := s.db.Stmt(ctx, selectChanges)
	if err != nil {
		return nil, err
	}
	rows, err := st.QueryContext(ctx, after, limit)
	return changes(rows, err)
}

// Last implements Log.
func (s *SQLite) Last(ctx context.Context) (seq int64, err error) {
	// sqlite_sequence knows it also when the log was pruned.
	err = s.db.Read.QueryRowContext(ctx,
		`SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'auth_change'`).Scan(&seq)
	if err != nil {
		return 0, fmt.Errorf("auth: log of changes: %w", err)
	}
	return seq, nil
}

// Pending implements Log.
func (s *SQLite) Pending(ctx context.Context, limit int) ([]Change, error) {
	rows, err := s.db.Read.QueryContext(ctx, `SELECT seq, addr FROM auth_change WHERE pending = 1 ORDER BY seq LIMIT ?`, limit)
	return changes(rows, err)
}

// Claim implements Log: one gateway works on the database, so nobody else claims anything.
func (s *SQLite) Claim(context.Context, int64, string, time.Duration) (bool, error) { return true, nil }

// Handled implements Log.
func (s *SQLite) Handled(ctx context.Context, seq int64) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE auth_change SET pending = 0 WHERE seq = ?`, seq); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO auth_change (addr, at, pending)
SELECT addr, ?, 0 FROM auth_account WHERE addr = (SELECT addr FROM auth_change WHERE seq = ?)`, time.Now().Unix(), seq)
		return err
	})
}

// Prune implements Log.
func (s *SQLite) Prune(ctx context.Context, before time.Time) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM auth_change WHERE pending = 0 AND at < ?`, before.Unix())
		return err
	})
}

func (s *SQLite) write(ctx context.Context, fn func(*sql.Tx) error) error {
	if err := s.db.Tx(ctx, fn); err != nil {
		return fmt.Errorf("auth: log of changes: %w", err)
	}
	return nil
}

func changes(rows *sql.Rows, err error) ([]Change, error) {
	if err != nil {
		return nil, fmt.Errorf("auth: log of changes: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var list []Change
	for rows.Next() {
		var c Change
		var addr string
		if err := rows.Scan(&c.Seq, &addr); err != nil {
			return nil, fmt.Errorf("auth: log of changes: %w", err)
		}
		if c.Addr, err = stanza.ParseAddr(addr); err != nil {
			return nil, fmt.Errorf("auth: log of changes: %w", err)
		}
		list = append(list, c)
	}
	return list, rows.Err()
}
