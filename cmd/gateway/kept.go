package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"holdfast/auth"
	"holdfast/internal/sqlx"
	"holdfast/muc"
	"holdfast/offline"
	"holdfast/roster"
)

// kept is what must stay, in the database that HOLDFAST_DATABASE_URL names.
type kept struct {
	accounts  auth.Store
	rosters   roster.Store
	mailboxes offline.Backend
	purges    offline.Purges
	rooms     muc.Store
	shared    bool // other gateways may use the database too

	ping  func(context.Context) error
	close func() error

	// join makes this process a node of a cluster, whose writes are refused once another has called fence for it.
	join, fence func(ctx context.Context, node string) error
	// stands says sqlx.ErrFenced when that has happened to this one.
	stands func(ctx context.Context) error
}

// Ping asks the database for an answer.
func (k *kept) Ping(ctx context.Context) error { return k.ping(ctx) }

// Close closes the database, after the rooms that use it.
func (k *kept) Close() error { return k.close() }

// openKept opens the stores and brings their tables up to date. local is the SQLite database of a gateway that serves,
// which the stores share when it is theirs too, and which the caller closes after Close; nil when there is none.
func openKept(ctx context.Context, cfg *Config, local *sqlx.DB) (*kept, error) {
	var k *kept
	var err error
	if cfg.DatabaseURL.Postgres() {
		k, err = openKeptPostgres(ctx, cfg)
	} else {
		k, err = openKeptSQLite(ctx, cfg, local)
	}
	if err != nil {
		return nil, fmt.Errorf("kept state: %w", err)
	}
	return k, nil
}

func openKeptPostgres(ctx context.Context, cfg *Config) (*kept, error) {
	db, err := sqlx.OpenPostgres(ctx, cfg.postgres())
	if err != nil {
		return nil, err
	}
	k := &kept{shared: true, ping: db.Ping, close: db.Close, join: db.Join, fence: db.Fence, stands: db.Stands}
	if err := k.inPostgres(ctx, db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return k, nil
}

func (k *kept) inPostgres(ctx context.Context, db *sqlx.Postgres) (err error) {
	if k.accounts, err = auth.OpenPostgres(ctx, db); err != nil {
		return err
	}
	if k.rosters, err = roster.OpenPostgres(ctx, db); err != nil {
		return err
	}
	if k.rooms, err = muc.NewPostgres(ctx, db); err != nil {
		return err
	}
	box, err := offline.OpenPostgres(ctx, db)
	k.mailboxes, k.purges = box, box
	return err
}

func openKeptSQLite(ctx context.Context, cfg *Config, local *sqlx.DB) (*kept, error) {
	db, closeDB, err := keptDB(ctx, cfg, local)
	if err != nil {
		return nil, err
	}
	k := &kept{ping: db.Read.PingContext, close: closeDB}
	if err := k.inSQLite(ctx, db); err != nil {
		return nil, errors.Join(err, closeDB())
	}
	return k, nil
}

func (k *kept) inSQLite(ctx context.Context, db *sqlx.DB) (err error) {
	if k.accounts, err = auth.OpenSQLite(ctx, db); err != nil {
		return err
	}
	if k.rosters, err = roster.OpenSQLite(ctx, db); err != nil {
		return err
	}
	if k.rooms, err = muc.NewSQLite(ctx, db); err != nil {
		return err
	}
	box, err := offline.OpenSQLite(ctx, db)
	k.mailboxes, k.purges = box, box
	return err
}

// keptDB is local where that is the database, else one of its own.
func keptDB(ctx context.Context, cfg *Config, local *sqlx.DB) (db *sqlx.DB, closeDB func() error, err error) {
	settings := cfg.SQLite
	settings.Dir = cfg.DatabaseURL.Dir(cfg.SQLite.Dir)
	dir, err := filepath.Abs(settings.Dir)
	if err != nil {
		return nil, nil, err
	}
	release := func() {}
	if local != nil {
		if dir == local.Dir() {
			return local, func() error { return nil }, nil
		}
		// A directory of its own is taken for serving like the data directory.
		lock, err := sqlx.Acquire(dir)
		if err != nil {
			return nil, nil, err
		}
		release = lock.Release
	}
	if db, err = sqlx.Open(ctx, settings); err != nil {
		release()
		return nil, nil, err
	}
	return db, func() error {
		defer release()
		return db.Close()
	}, nil
}
