package muc

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"holdfast/internal/sqlx"
	"holdfast/stanza"
)

//go:embed migrations/postgres/*.sql
var postgresMigrations embed.FS

// Postgres is the [Store] of gateways that share a database. Each method is one statement, which may run twice. Once
// another node has fenced a gateway, its writes fail with [sqlx.ErrFenced].
type Postgres struct{ db *sqlx.Postgres }

var _ Store = (*Postgres)(nil)

// NewPostgres brings the rooms' tables in db up to date and returns the Store over them. The caller closes db.
func NewPostgres(ctx context.Context, db *sqlx.Postgres) (*Postgres, error) {
	dir, err := fs.Sub(postgresMigrations, "migrations/postgres")
	if err != nil {
		return nil, fmt.Errorf("muc: %w", err)
	}
	if err := db.Migrate(ctx, "muc", dir); err != nil {
		return nil, fmt.Errorf("muc: %w", err)
	}
	return &Postgres{db: db}, nil
}

const (
	postgresLoad = `SELECT room, name, creator, public, persistent, state FROM muc_room WHERE room = $1`

	postgresSave = `INSERT INTO muc_room (room, host, name, creator, public, persistent, state)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (room) DO UPDATE SET name = excluded.name, creator = excluded.creator, public = excluded.public,
	persistent = excluded.persistent, state = excluded.state`

	postgresRemove = `DELETE FROM muc_room WHERE room = $1`

	postgresPublic = `SELECT room, name, creator, public, persistent, NULL::bytea FROM muc_room
WHERE host = $1 AND public AND room > $2 ORDER BY room LIMIT $3`

	postgresPersistent = `SELECT count(*) FROM muc_room WHERE creator = $1 AND persistent`
)

// Load implements [Store].
func (s *Postgres) Load(ctx context.Context, room stanza.Addr) (k Kept, ok bool, err error) {
	err = s.db.Query(ctx, postgresLoad, func(rows *sql.Rows) (bool, error) {
		var err error
		k, err = scan(rows)
		ok = err == nil
		return false, err
	}, room.String())
	if err != nil {
		return Kept{}, false, failed("load", err)
	}
	return k, ok, nil
}

// Save implements [Store].
func (s *Postgres) Save(ctx context.Context, k Kept) error {
	_, err := s.db.Exec(ctx, postgresSave, k.Room.String(), k.Room.Domain(), k.Name, k.Creator.String(), k.Public,
		k.Persistent, k.State)
	return failed("save", err)
}

// Remove implements [Store].
func (s *Postgres) Remove(ctx context.Context, room stanza.Addr) error {
	_, err := s.db.Exec(ctx, postgresRemove, room.String())
	return failed("remove", err)
}

// Public implements [Store].
func (s *Postgres) Public(ctx context.Context, host, after string, count int) (list []Kept, err error) {
	err = s.db.Query(ctx, postgresPublic, func(rows *sql.Rows) (bool, error) {
		k, err := scan(rows)
		list = append(list, k)
		return true, err
	}, host, after, max(count, 0))
	if err != nil {
		return nil, failed("list", err)
	}
	return list, nil
}

// Persistent implements [Store].
func (s *Postgres) Persistent(ctx context.Context, creator stanza.Addr) (n int, err error) {
	err = s.db.Query(ctx, postgresPersistent, func(rows *sql.Rows) (bool, error) {
		return false, rows.Scan(&n)
	}, creator.String())
	return n, failed("count", err)
}
