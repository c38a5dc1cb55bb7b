package sqlx

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"

	"github.com/pressly/goose/v3"
)

var roomName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)

// Migrate brings the tables of room up to date with the SQL files at the root of fsys (goose's format,
// 00001_name.sql). Applied versions are kept in the table goose_<room>.
func (db *DB) Migrate(ctx context.Context, room string, fsys fs.FS) error {
	if !roomName.MatchString(room) {
		return fmt.Errorf("sqlx: migrate: %q is not a room's name", room)
	}
	// goose reads the version and then writes: two processes that start together would both run a migration.
	lock, err := waitLock(ctx, filepath.Join(db.dir, "migrate.lock"))
	if err != nil {
		return fmt.Errorf("sqlx: migrate %s: %w", room, err)
	}
	defer lock.Release()
	p, err := goose.NewProvider(goose.DialectSQLite3, db.Write, fsys,
		goose.WithTableName("goose_"+room), goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("sqlx: migrate %s: %w", room, err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("sqlx: migrate %s: %w", room, err)
	}
	return nil
}
