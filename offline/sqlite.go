package offline

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"holdfast/internal/sqlx"
	"holdfast/stanza"
)

//go:embed migrations/sqlite/*.sql migrations/purge/sqlite/*.sql
var migrations embed.FS

// SQLite is the [Backend] of a gateway on one machine. What a commit survives is the database's setting.
type SQLite struct {
	db *sqlx.DB
}

var _ Backend = (*SQLite)(nil)

// OpenSQLite brings the mailboxes' tables in db up to date. The caller closes db, after the Mailbox.
func OpenSQLite(ctx context.Context, db *sqlx.DB) (*SQLite, error) {
	for room, path := range map[string]string{"offline": "migrations/sqlite", "offline_purge": "migrations/purge/sqlite"} {
		dir, err := fs.Sub(migrations, path)
		if err == nil {
			err = db.Migrate(ctx, room, dir)
		}
		if err != nil {
			return nil, fmt.Errorf("offline: %w", err)
		}
	}
	return &SQLite{db: db}, nil
}

// Several rows in one INSERT were measured to gain nothing here: the time goes into the pages, not the statements.
const (
	sqlitePut    = `INSERT OR IGNORE INTO offline_message (user, id, sender, raw, expires, mark) VALUES (?, ?, ?, ?, ?, ?)`
	sqliteRemove = `DELETE FROM offline_message WHERE user = ? AND id = ?`
	sqliteRun    = `DELETE FROM offline_message WHERE user = ? AND id BETWEEN ? AND ?`
	sqlitePurge  = `DELETE FROM offline_message WHERE user = ?`
	sqliteCount  = `UPDATE offline_stored SET messages = messages + ?`

	sqliteLimit = `INSERT INTO offline_limit (user, messages) VALUES (?, ?)
ON CONFLICT (user) DO UPDATE SET messages = excluded.messages`
	sqliteUnlimit = `DELETE FROM offline_limit WHERE user = ?`

	sqliteTotals = `SELECT sender, count(*), sum(length(raw)), max(id) FROM offline_message WHERE user = ?1 GROUP BY sender
UNION ALL SELECT NULL, messages, NULL, NULL FROM offline_limit WHERE user = ?1`
	sqliteBodies = `SELECT id, sender, length(raw), raw, expires FROM offline_message WHERE user = ? AND id > ? AND id <= ? ORDER BY id`
	sqliteHeads  = `SELECT id, sender, length(raw), NULL, 0 FROM offline_message WHERE user = ? AND id > ? AND id <= ? ORDER BY id`
	// One seek for each user; DISTINCT would read every row.
	sqliteUsers = `WITH RECURSIVE u (user) AS (
	SELECT min(user) FROM offline_message WHERE user > ?1
	UNION ALL
	SELECT (SELECT min(m.user) FROM offline_message AS m WHERE m.user > u.user) FROM u WHERE u.user IS NOT NULL
	LIMIT ?2
) SELECT user FROM u WHERE user IS NOT NULL`
	sqliteMarks = `SELECT id, length(raw), mark FROM offline_message
WHERE user = ? AND sender = ? AND mark IS NOT NULL AND mark BETWEEN ? AND ?`
	sqliteDue = `SELECT expires, user, id FROM offline_message
WHERE expires > 0 AND expires <= ? AND (expires, user, id) > (?, ?, ?) ORDER BY expires, user, id LIMIT ?`
	sqliteChoosers = `SELECT user FROM offline_limit WHERE user > ? ORDER BY user LIMIT ?`
	sqliteStored   = `SELECT messages FROM offline_stored`
)

// Tx implements [Backend].
func (s *SQLite) Tx(ctx context.Context, fn func(tx *sql.Tx) error) error { return s.db.Tx(ctx, fn) }

// Apply implements [Backend].
func (s *SQLite) Apply(ctx context.Context, tx *sql.Tx, batch []Change) error {
	w := sqliteWriter{ctx: ctx, db: s.db, tx: tx}
	for i := range batch {
		c := &batch[i]
		switch c.Op {
		case OpPut:
			w.exec(sqlitePut, &w.put, 1, c.User, c.ID[:], c.Sender, c.Raw, c.Expires, c.Mark.row())
		case OpRemove:
			if last := len(c.IDs) - 1; c.Run && last > 0 {
				w.exec(sqliteRun, &w.run, -1, c.User, c.IDs[0][:], c.IDs[last][:])
				continue
			}
			for k := range c.IDs {
				w.exec(sqliteRemove, &w.remove, -1, c.User, c.IDs[k][:])
			}
		case OpPurge:
			w.exec(sqlitePurge, &w.purge, -1, c.User)
		case OpLimit:
			if c.Limit.Chosen {
				w.exec(sqliteLimit, &w.limit, 0, c.User, c.Limit.row())
			} else {
				w.exec(sqliteUnlimit, &w.unlimit, 0, c.User)
			}
		}
	}
	if w.delta != 0 {
		w.exec(sqliteCount, &w.count, 0, w.delta)
	}
	return w.err
}

// sqliteWriter runs statements until one fails.
type sqliteWriter struct {
	ctx context.Context
	db  *sqlx.DB
	tx  *sql.Tx

	put, remove, run, purge, count *sql.Stmt
	limit, unlimit                 *sql.Stmt
	delta                          int64 // messages more than before
	err                            error
}

func (w *sqliteWriter) exec(query string, st **sql.Stmt, sign int64, args ...any) {
	if w.err != nil {
		return
	}
	if *st == nil {
		if *st, w.err = w.db.TxStmt(w.ctx, w.tx, query); w.err != nil {
			return
		}
	}
	var res sql.Result
	if res, w.err = (*st).ExecContext(w.ctx, args...); w.err != nil {
		return
	}
	var n int64
	n, w.err = res.RowsAffected()
	w.delta += sign * n
}

// Totals implements [Backend].
func (s *SQLite) Totals(ctx context.Context, user string) (t Totals, err error) {
	err = s.query(ctx, sqliteTotals, func(rows *sql.Rows) (bool, error) {
		var sender sql.NullString // none in the row that has the limit
		var messages int64
		var bytes sql.NullInt64
		var last sql.RawBytes
		if err := rows.Scan(&sender, &messages, &bytes, &last); err != nil {
			return false, err
		}
		if !sender.Valid {
			t.Own = ownLimit(messages)
			return true, nil
		}
		if t.Senders == nil {
			t.Senders = make(map[string]int)
		}
		t.Senders[sender.String] = int(messages)
		t.Messages += int(messages)
		t.Bytes += bytes.Int64
		id, err := readID(last)
		if id.Compare(t.Last) > 0 {
			t.Last = id
		}
		return true, err
	}, user)
	return t, err
}

// maxID is the end of every mailbox.
var maxID = stanza.ID{
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
}

// Scan implements [Backend].
func (s *SQLite) Scan(ctx context.Context, user string, in Range, yield func(Row) bool) error {
	if in.To.IsZero() {
		in.To = maxID
	}
	query := sqliteHeads
	if in.Bodies {
		query = sqliteBodies
	}
	var id sql.RawBytes
	return s.query(ctx, query, func(rows *sql.Rows) (bool, error) {
		var r Row
		var err error
		if err = rows.Scan(&id, &r.Sender, &r.Bytes, &r.Raw, &r.Expires); err != nil {
			return false, err
		}
		if r.ID, err = readID(id); err != nil {
			return false, err
		}
		return yield(r), nil
	}, user, in.After[:], in.To[:])
}

// Users implements [Backend].
func (s *SQLite) Users(ctx context.Context, after string, n int) ([]string, error) {
	return s.names(ctx, sqliteUsers, after, n)
}

// Marks implements [Backend].
func (s *SQLite) Marks(ctx context.Context, user, sender string, thread [16]byte) (found []Row, err error) {
	least, most := markRange(thread)
	err = s.query(ctx, sqliteMarks, func(rows *sql.Rows) (bool, error) {
		r, err := readMarked(rows)
		r.Sender = sender
		found = append(found, r)
		return true, err
	}, user, sender, least, most)
	return found, err
}

// markRange is the least and the greatest of all marks in a thread.
func markRange(thread [16]byte) (least, most []byte) {
	return append(thread[:len(thread):len(thread)], 0), append(thread[:len(thread):len(thread)], 0xff)
}

func readMarked(rows *sql.Rows) (r Row, err error) {
	var id, mark sql.RawBytes
	if err = rows.Scan(&id, &r.Bytes, &mark); err == nil {
		r.Mark = readMark(mark)
		r.ID, err = readID(id)
	}
	return r, err
}

// Due implements [Backend].
func (s *SQLite) Due(ctx context.Context, now int64, after Due, n int) (due []Due, err error) {
	err = s.query(ctx, sqliteDue, func(rows *sql.Rows) (bool, error) {
		d, err := readDue(rows)
		due = append(due, d)
		return true, err
	}, now, after.Expires, after.User, after.ID[:], n)
	return due, err
}

func readDue(rows *sql.Rows) (d Due, err error) {
	var id sql.RawBytes
	if err = rows.Scan(&d.Expires, &d.User, &id); err == nil {
		d.ID, err = readID(id)
	}
	return d, err
}

// Choosers implements [Backend].
func (s *SQLite) Choosers(ctx context.Context, after string, n int) ([]string, error) {
	return s.names(ctx, sqliteChoosers, after, n)
}

func (s *SQLite) names(ctx context.Context, query, after string, n int) (users []string, err error) {
	err = s.query(ctx, query, func(rows *sql.Rows) (bool, error) {
		var user string
		err := rows.Scan(&user)
		users = append(users, user)
		return true, err
	}, after, n)
	return users, err
}

// Stored implements [Backend].
func (s *SQLite) Stored(ctx context.Context) (n int64, err error) {
	err = s.query(ctx, sqliteStored, func(rows *sql.Rows) (bool, error) {
		return true, rows.Scan(&n)
	})
	return n, err
}

// query runs each over the rows until it returns false or an error.
func (s *SQLite) query(ctx context.Context, query string, each func(*sql.Rows) (bool, error), args ...any) (err error) {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("offline: %w", err)
	}
	// The driver starts a goroutine for each statement whose context can end, which costs more than a short query.
	ctx = context.WithoutCancel(ctx)
	st, err := s.db.Stmt(ctx, query)
	if err != nil {
		return fmt.Errorf("offline: %w", err)
	}
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return fmt.Errorf("offline: query: %w", err)
	}
	defer func() {
		if cerr := errors.Join(rows.Err(), rows.Close()); err == nil && cerr != nil {
			err = fmt.Errorf("offline: query: %w", cerr)
		}
	}()
	for rows.Next() {
		more, err := each(rows)
		if err != nil {
			return fmt.Errorf("offline: query: %w", err)
		}
		if !more {
			return nil
		}
	}
	return nil
}

var errBadID = errors.New("offline: stored id is not 16 bytes long")

func readID(b []byte) (stanza.ID, error) {
	if len(b) != len(stanza.ID{}) {
		return stanza.ID{}, errBadID
	}
	return stanza.ID(b), nil
}
