package muc

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

//go:embed migrations/sqlite/*.sql
var migrations embed.FS

// SQLite is the [Store] of a gateway on one machine.
type SQLite struct{ db *sqlx.DB }

var _ Store = (*SQLite)(nil)

// NewSQLite brings the rooms' tables in db up to date and returns the Store over them. The caller closes db.
func NewSQLite(ctx context.Context, db *sqlx.DB) (*SQLite, error) {
	dir, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		return nil, fmt.Errorf("muc: %w", err)
	}
	if err := db.Migrate(ctx, "muc", dir); err != nil {
		return nil, fmt.Errorf("muc: %w", err)
	}
	return &SQLite{db: db}, nil
}

const (
	sqliteLoad = `SELECT room, name, creator, public, persistent, state FROM muc_room WHERE room = ?`

	sqliteSave = `INSERT INTO muc_room (room, host, name, creator, public, persistent, state) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (room) DO UPDATE SET name = excluded.name, creator = excluded.creator, public = excluded.public,
	persistent = excluded.persistent, state = excluded.state`

	sqliteRemove = `DELETE FROM muc_room WHERE room = ?`

	sqlitePublic = `SELECT room, name, creator, public, persistent, NULL FROM muc_room
WHERE host = ? AND public = 1 AND room > ? ORDER BY room LIMIT ?`

	sqlitePersistent = `SELECT count(*) FROM muc_room WHERE creator = ? AND persistent = 1`
)

// Load implements [Store].
func (s *SQLite) Load(ctx context.Context, room stanza.Addr) (k Kept, ok bool, err error) {
	row, err := s.row(ctx, sqliteLoad, room.String())
	if err != nil {
		return Kept{}, false, failed("load", err)
	}
	k, err = scan(row)
	if errors.Is(err, sql.ErrNoRows) {
		return Kept{}, false, nil
	}
	return k, err == nil, failed("load", err)
}

// Save implements [Store].
func (s *SQLite) Save(ctx context.Context, k Kept) error {
	return failed("save", s.exec(ctx, sqliteSave, k.Room.String(), k.Room.Domain(), k.Name, k.Creator.String(), k.Public,
		k.Persistent, k.State))
}

// Remove implements [Store].
func (s *SQLite) Remove(ctx context.Context, room stanza.Addr) error {
	return failed("remove", s.exec(ctx, sqliteRemove, room.String()))
}

// Public implements [Store].
func (s *SQLite) Public(ctx context.Context, host, after string, count int) ([]Kept, error) {
	list, err := s.list(ctx, sqlitePublic, host, after, max(count, 0))
	return list, failed("list", err)
}

// Persistent implements [Store].
func (s *SQLite) Persistent(ctx context.Context, creator stanza.Addr) (n int, err error) {
	row, err := s.row(ctx, sqlitePersistent, creator.String())
	if err == nil {
		err = row.Scan(&n)
	}
	return n, failed("count", err)
}

// row asks for one row. The driver starts a goroutine for each statement whose context can end, which costs more than
// these queries; they wait for nobody.
func (s *SQLite) row(ctx context.Context, query string, args ...any) (*sql.Row, error) {
	ctx = context.WithoutCancel(ctx)
	st, err := s.db.Stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	return st.QueryRowContext(ctx, args...), nil
}

func (s *SQLite) list(ctx context.Context, query string, args ...any) (list []Kept, err error) {
	ctx = context.WithoutCancel(ctx) // see row
	st, err := s.db.Stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		k, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, k)
	}
	return list, rows.Err()
}

// exec runs one statement in a transaction of its own, which is on the disk when it returns: the journal forgets what a
// room was once that is saved.
func (s *SQLite) exec(ctx context.Context, statement string, args ...any) error {
	err := s.db.Tx(ctx, func(tx *sql.Tx) error {
		ctx := context.WithoutCancel(ctx) // only the beginning can wait; see row
		st, err := s.db.TxStmt(ctx, tx, statement)
		if err != nil {
			return err
		}
		_, err = st.ExecContext(ctx, args...)
		return err
	})
	if err != nil {
		return err
	}
	return s.db.Sync()
}

// scan reads one room from the columns room, name, creator, public, persistent and state.
func scan(row interface{ Scan(...any) error }) (k Kept, err error) {
	var room, creator string
	if err := row.Scan(&room, &k.Name, &creator, &k.Public, &k.Persistent, &k.State); err != nil {
		return Kept{}, err
	}
	if k.Room, err = stanza.ParseAddr(room); err != nil {
		return Kept{}, err
	}
	if creator == "" {
		return k, nil
	}
	k.Creator, err = stanza.ParseAddr(creator)
	return k, err
}

// failed says what failed.
func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("muc: %s: %w", what, err)
}
