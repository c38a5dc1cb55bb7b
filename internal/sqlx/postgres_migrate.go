package sqlx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

const (
	// migrationKey is the advisory lock under which migrations run: "holdfast" as a number.
	migrationKey = 0x686f6c6466617374
	// migrationTime is what a migration may take, and how long another gateway waits for it.
	migrationTime = 10 * time.Minute
	unlockTime    = 5 * time.Second
)

// Migrate brings the tables of room up to date with the SQL files at the root of fsys (goose's format,
// 00001_name.sql), one process at a time. Applied versions are kept in the table goose_<room>.
func (p *Postgres) Migrate(ctx context.Context, room string, fsys fs.FS) error {
	if !roomName.MatchString(room) {
		return fmt.Errorf("sqlx: migrate: %q is not a room's name", room)
	}
	ctx, cancel := context.WithTimeout(ctx, migrationTime)
	defer cancel()
	// A pool of its own: a migration, and waiting for that of another process, may take longer than a query may.
	pool := stdlib.OpenDB(*p.connect)
	pool.SetMaxOpenConns(1)
	defer func() { _ = pool.Close() }()
	provider, err := goose.NewProvider(goose.DialectPostgres, pool, fsys, goose.WithSessionLocker(advisoryLock{}),
		goose.WithTableName("goose_"+room), goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("sqlx: migrate %s: %w", room, err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("sqlx: migrate %s: %w", room, err)
	}
	return nil
}

// advisoryLock is goose's lock around a migration. The server lets go of it when the connection ends, however it ends.
type advisoryLock struct{}

// SessionLock waits for the lock until ctx ends.
func (advisoryLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	// A time limit that the database sets for everybody is not meant for those who wait here.
	for _, statement := range []string{"SET statement_timeout = 0", "SET lock_timeout = 0"} {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	_, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", int64(migrationKey))
	return err
}

// SessionUnlock lets go, also when ctx has ended.
func (advisoryLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTime)
	defer cancel()
	var held bool
	if err := conn.QueryRowContext(ctx, "SELECT pg_advisory_unlock($1)", int64(migrationKey)).Scan(&held); err != nil {
		return err
	}
	if !held {
		return errors.New("the lock of migrations was lost")
	}
	return nil
}
