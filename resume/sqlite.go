package resume

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"holdfast/internal/journal"
	"holdfast/internal/sqlx"
)

//go:embed migrations
var migrations embed.FS

// Change is what one checkpoint writes of one session: its state and counters, and the part of its queue that is not
// stored yet.
type Change struct {
	State   *journal.Session
	Handled uint32
	Acked   uint64
	Queue   []*journal.Stanza
}

// checkpoints is the checkpoint store in SQLite.
type checkpoints struct{ db *sqlx.DB }

func openCheckpoints(ctx context.Context, db *sqlx.DB) (*checkpoints, error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx, "resume", sub); err != nil {
		return nil, fmt.Errorf("resume: %w", err)
	}
	return &checkpoints{db}, nil
}

// write is one checkpoint, all of it or nothing.
func (c *checkpoints) write(ctx context.Context, changed []Change, gone []uint64, ended []endedSession, forget time.Time) error {
	return c.db.Tx(ctx, func(tx *sql.Tx) error {
		put, err := c.db.TxStmt(ctx, tx, `INSERT INTO resume_sessions (ord, handled, acked, state) VALUES (?, ?, ?, ?)
			ON CONFLICT (ord) DO UPDATE SET handled = excluded.handled, acked = excluded.acked, state = excluded.state`)
		if err != nil {
			return err
		}
		trim, err := c.db.TxStmt(ctx, tx, `DELETE FROM resume_queue WHERE session = ? AND last <= ?`)
		if err != nil {
			return err
		}
		queue, err := c.db.TxStmt(ctx, tx, `INSERT OR REPLACE INTO resume_queue (session, last, records) VALUES (?, ?, ?)`)
		if err != nil {
			return err
		}
		var state, records []byte
		for _, ch := range changed {
			state = ch.State.Append(state[:0])
			if _, err := put.ExecContext(ctx, int64(ch.State.Ord), int64(ch.Handled), int64(ch.Acked), state); err != nil {
				return err
			}
			if ch.Acked > 0 {
				if _, err := trim.ExecContext(ctx, int64(ch.State.Ord), int64(ch.Acked)); err != nil {
					return err
				}
			}
			if len(ch.Queue) == 0 {
				continue
			}
			// One row for all of it: SQLite costs by the row.
			records = records[:0]
			for _, q := range ch.Queue {
				records = q.Append(records)
			}
			last := ch.Queue[len(ch.Queue)-1].Targets[0].Pos
			if _, err := queue.ExecContext(ctx, int64(ch.State.Ord), int64(last), records); err != nil {
				return err
			}
		}
		return c.remove(ctx, tx, gone, ended, forget)
	})
}

func (c *checkpoints) remove(ctx context.Context, tx *sql.Tx, gone []uint64, ended []endedSession, forget time.Time) error {
	for _, query := range []string{`DELETE FROM resume_sessions WHERE ord = ?`, `DELETE FROM resume_queue WHERE session = ?`} {
		stmt, err := c.db.TxStmt(ctx, tx, query)
		if err != nil {
			return err
		}
		for _, ord := range gone {
			if _, err := stmt.ExecContext(ctx, int64(ord)); err != nil {
				return err
			}
		}
	}
	stmt, err := c.db.TxStmt(ctx, tx, `INSERT OR REPLACE INTO resume_ended (token, user, handled, at) VALUES (?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	for _, e := range ended {
		if _, err := stmt.ExecContext(ctx, e.token, e.user.String(), int64(e.handled), e.at.Unix()); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM resume_ended WHERE at < ?`, forget.Unix())
	return err
}

// sync puts what was committed on the disk, so that the journal may forget it: a checkpoint of SQLite's own log syncs
// that log first. It does neither where a reader still needs what the log would replace, or where another process is at
// it; then the log is synced here.
func (c *checkpoints) sync(ctx context.Context) error {
	var busy, logged, done int
	if err := c.db.Write.QueryRowContext(ctx, `PRAGMA wal_checkpoint(PASSIVE)`).Scan(&busy, &logged, &done); err != nil {
		return err
	}
	if busy == 0 && done == logged {
		return nil
	}
	f, err := os.Open(filepath.Join(c.db.Dir(), sqlx.File+"-wal"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (c *checkpoints) load(ctx context.Context, yield func(*Session)) error {
	rows, err := c.db.Read.QueryContext(ctx, `SELECT handled, acked, state FROM resume_sessions ORDER BY ord`)
	if err != nil {
		return fmt.Errorf("resume: load sessions: %w", err)
	}
	defer rows.Close()
	byOrd := make(map[uint64]*Session)
	for rows.Next() {
		var handled, acked int64
		var state []byte
		if err := rows.Scan(&handled, &acked, &state); err != nil {
			return fmt.Errorf("resume: load session: %w", err)
		}
		st, err := journal.DecodeSession(state)
		if err != nil {
			return fmt.Errorf("resume: load session: %w", err)
		}
		s := &Session{State: st, Handled: uint32(handled), Acked: uint64(acked)}
		byOrd[st.Ord] = s
		yield(s)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("resume: load sessions: %w", err)
	}
	return c.loadQueues(ctx, byOrd)
}

func (c *checkpoints) loadQueues(ctx context.Context, byOrd map[uint64]*Session) error {
	rows, err := c.db.Read.QueryContext(ctx, `SELECT session, records FROM resume_queue ORDER BY session, last`)
	if err != nil {
		return fmt.Errorf("resume: load queues: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var ord int64
		var records []byte
		if err := rows.Scan(&ord, &records); err != nil {
			return fmt.Errorf("resume: load queue: %w", err)
		}
		s := byOrd[uint64(ord)]
		if s == nil {
			continue
		}
		for len(records) > 0 {
			var q *journal.Stanza
			if q, records, err = journal.CutStanza(records); err != nil {
				return fmt.Errorf("resume: stored queue: %w", err)
			}
			s.queue(q.Targets[0].Pos, q)
		}
	}
	return rows.Err()
}

// recall finds a session that is over.
func (c *checkpoints) recall(ctx context.Context, token string) (user string, handled uint32, ok bool) {
	var h int64
	err := c.db.Read.QueryRowContext(ctx, `SELECT user, handled FROM resume_ended WHERE token = ?`, token).Scan(&user, &h)
	return user, uint32(h), err == nil
}
