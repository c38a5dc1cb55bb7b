package packetcache

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"time"

	"holdfast/internal/sqlx"
	"holdfast/stanza"
)

//go:embed migrations/*.sql
var migrations embed.FS

// SQLite is the Store of a gateway on one machine.
type SQLite struct{ db *sqlx.DB }

// NewSQLite brings the tables up to date and returns the Store in db.
func NewSQLite(ctx context.Context, db *sqlx.DB) (*SQLite, error) {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, fmt.Errorf("packetcache: migrations: %w", err)
	}
	if err := db.Migrate(ctx, "packetcache", dir); err != nil {
		return nil, fmt.Errorf("packetcache: %w", err)
	}
	return &SQLite{db: db}, nil
}

const (
	sqlLoad = `SELECT id, sender, recipient, msgid, stanza, deadline, step FROM packetcache ORDER BY deadline, id`
	sqlDel  = `DELETE FROM packetcache WHERE id = ?`
	sqlPut  = `INSERT INTO packetcache (id, sender, recipient, msgid, stanza, deadline, step) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET sender = excluded.sender, recipient = excluded.recipient, msgid = excluded.msgid,
stanza = excluded.stanza, deadline = excluded.deadline, step = excluded.step`
)

// Load implements Store.
func (s *SQLite) Load(ctx context.Context, yield func(Entry) error) error {
	rows, err := s.db.Read.QueryContext(ctx, sqlLoad)
	if err != nil {
		return fmt.Errorf("packetcache: load: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		e, err := scanEntry(rows)
		if err != nil {
			return fmt.Errorf("packetcache: load: %w", err)
		}
		if err := yield(e); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("packetcache: load: %w", err)
	}
	return nil
}

func scanEntry(rows *sql.Rows) (Entry, error) {
	var (
		e        Entry
		id, raw  []byte
		from, to string
		deadline int64
		err      error
	)
	if err := rows.Scan(&id, &from, &to, &e.MsgID, &raw, &deadline, &e.Step); err != nil {
		return e, err
	}
	if e.ID, err = stanza.IDFromBytes(id); err != nil {
		return e, err
	}
	if deadline != 0 {
		e.Deadline = time.UnixMicro(deadline)
	}
	if e.From, err = stanza.ParseAddr(from); err != nil {
		return e, fmt.Errorf("entry %v: sender: %w", e.ID, err)
	}
	if e.To, err = stanza.ParseAddr(to); err != nil {
		return e, fmt.Errorf("entry %v: recipient: %w", e.ID, err)
	}
	if raw == nil {
		return e, nil
	}
	if e.Stanza, err = stanza.Parse(raw, e.ID); err != nil {
		return e, fmt.Errorf("entry %v: %w", e.ID, err)
	}
	return e, nil
}

// Apply implements Store.
func (s *SQLite) Apply(ctx context.Context, put []Entry, del []stanza.ID) error {
	err := s.db.Tx(ctx, func(tx *sql.Tx) error {
		if err := s.delete(ctx, tx, del); err != nil {
			return err
		}
		return s.put(ctx, tx, put)
	})
	if err != nil {
		return fmt.Errorf("packetcache: store: %w", err)
	}
	return nil
}

func (s *SQLite) delete(ctx context.Context, tx *sql.Tx, ids []stanza.ID) error {
	if len(ids) == 0 {
		return nil
	}
	st, err := s.db.TxStmt(ctx, tx, sqlDel)
	if err != nil {
		return err
	}
	for i := range ids {
		if _, err := st.ExecContext(ctx, ids[i][:]); err != nil {
			return err
		}
	}
	return nil
}

func (s *SQLite) put(ctx context.Context, tx *sql.Tx, entries []Entry) error {
	if len(entries) == 0 {
		return nil
	}
	st, err := s.db.TxStmt(ctx, tx, sqlPut)
	if err != nil {
		return err
	}
	for i := range entries {
		e := &entries[i]
		var raw any // stays NULL for what is in offline storage
		if e.Stanza != nil {
			raw = e.Stanza.Raw()
		}
		if _, err := st.ExecContext(ctx, e.ID[:], e.From.String(), e.To.String(), e.MsgID, raw,
			micro(e.Deadline), e.Step); err != nil {
			return err
		}
	}
	return nil
}

// micro is how a deadline is stored: 0 is none.
func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}
