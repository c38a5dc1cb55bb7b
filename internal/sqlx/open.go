package sqlx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// File is the name of the database in the data directory.
const File = "holdfast.db"

// walLimit is what the write-ahead log is cut down to after a checkpoint that emptied it, in bytes.
const walLimit = 64 << 20

// DB is the open database. It is safe for concurrent use.
type DB struct {
	// Write is the one connection that writes.
	Write *sql.DB
	// Read has connections that cannot write.
	Read *sql.DB

	dir string

	mu     sync.RWMutex
	reads  map[string]*sql.Stmt // on Read; guarded by mu
	writes map[string]*sql.Stmt // on Write; guarded by mu
	wanted map[string]struct{}  // asked for in a transaction and not yet in writes; guarded by mu
}

// Open opens the database in cfg.Dir and makes both when they are missing, readable by the owner alone.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("sqlx: %w", err)
	}
	path, err := create(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("sqlx: %w", err)
	}
	db := &DB{
		dir:    filepath.Dir(path),
		reads:  make(map[string]*sql.Stmt),
		writes: make(map[string]*sql.Stmt),
		wanted: make(map[string]struct{}),
	}
	if db.Write, err = sql.Open("sqlite", dsn(path, cfg, false)); err != nil {
		return nil, fmt.Errorf("sqlx: open %s: %w", path, err)
	}
	db.Write.SetMaxOpenConns(1)
	if db.Read, err = sql.Open("sqlite", dsn(path, cfg, true)); err != nil {
		_ = db.Write.Close()
		return nil, fmt.Errorf("sqlx: open %s: %w", path, err)
	}
	db.Read.SetMaxOpenConns(cfg.Readers)
	db.Read.SetMaxIdleConns(max(cfg.Readers, 4))
	// The writer goes first: it turns WAL mode on, which a query_only connection may not.
	for _, pool := range []*sql.DB{db.Write, db.Read} {
		if err := pool.PingContext(ctx); err != nil {
			_ = db.Close()
			return nil, fmt.Errorf("sqlx: open %s: %w", path, err)
		}
	}
	return db, nil
}

// Dir is the data directory, absolute.
func (db *DB) Dir() string { return db.dir }

// Sync returns when what was committed is on the disk. It is in the write-ahead log; what is there no more is in the
// database since a checkpoint, which waited for the disk.
func (db *DB) Sync() error {
	f, err := os.Open(filepath.Join(db.dir, File+"-wal"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Close closes both pools. Batchers are closed before.
func (db *DB) Close() error {
	// The last connection to leave a database checkpoints it and removes the log; one that is query_only cannot.
	return errors.Join(db.Read.Close(), db.Write.Close())
}

// Tx runs fn in one transaction of Write and commits it when fn returns nil. fn must use nothing but tx.
func (db *DB) Tx(ctx context.Context, fn func(tx *sql.Tx) error) error {
	tx, err := db.Write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("sqlx: begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // says ErrTxDone after a commit
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("sqlx: commit: %w", err)
	}
	db.prepareWanted(ctx)
	return nil
}

func create(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(dir, File)
	// Made here for its mode, which the log and the shared memory file inherit. Only when it is new: POSIX drops
	// all locks of a process on a file with any descriptor closed, also those of a DB that is open already.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return path, nil
	case err != nil:
		return "", err
	}
	return path, f.Close()
}

func dsn(path string, cfg Config, readOnly bool) string {
	q := url.Values{}
	q.Set("_busy_timeout", strconv.FormatInt(cfg.BusyTimeout.Milliseconds(), 10))
	q.Set("_foreign_keys", "1")
	q.Set("_synchronous", cfg.Synchronous)
	if readOnly {
		q.Set("_query_only", "1")
	} else {
		q.Set("_journal_mode", "WAL")
		q.Add("_pragma", "journal_size_limit("+strconv.Itoa(walLimit)+")")
		q.Set("_txlock", "immediate")
	}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}
