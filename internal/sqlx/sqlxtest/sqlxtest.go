// Package sqlxtest gives tests a database of their own.
package sqlxtest

import (
	"context"
	"testing"

	"holdfast/internal/sqlx"
)

// Open opens a new database in a directory that goes with the test.
func Open(t testing.TB) *sqlx.DB {
	t.Helper()
	return OpenDir(t, t.TempDir())
}

// OpenDir opens the database in dir, for tests that open it more than once.
func OpenDir(t testing.TB, dir string) *sqlx.DB {
	t.Helper()
	cfg := sqlx.DefaultConfig()
	cfg.Dir = dir
	db, err := sqlx.Open(context.Background(), cfg)
	if err != nil {
		t.Fatalf("open database: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close database: %v", err)
		}
	})
	return db
}

// OpenPostgres opens the database at url, which internal/testkit/postgresproc gives to a test.
func OpenPostgres(t testing.TB, url string) *sqlx.Postgres {
	t.Helper()
	cfg := sqlx.DefaultPostgresConfig()
	cfg.URL = url
	return OpenPostgresWith(t, cfg)
}

// OpenPostgresWith is OpenPostgres with all settings.
func OpenPostgresWith(t testing.TB, cfg sqlx.PostgresConfig) *sqlx.Postgres {
	t.Helper()
	db, err := sqlx.OpenPostgres(context.Background(), cfg)
	if err != nil {
		t.Fatalf("open database: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close database: %v", err)
		}
	})
	return db
}
