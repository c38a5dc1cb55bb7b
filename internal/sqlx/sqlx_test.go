package sqlx_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"holdfast/internal/sqlx"
	"holdfast/internal/sqlx/sqlxtest"
	"holdfast/internal/testkit/postgresproc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(postgresproc.Main(m)) }

func files(sqls ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i, s := range sqls {
		fsys["0000"+string(rune('1'+i))+"_step.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + s + "\n")}
	}
	return fsys
}

func migrated(t *testing.T) *sqlx.DB {
	t.Helper()
	db := sqlxtest.Open(t)
	if err := db.Migrate(t.Context(), "room", files("CREATE TABLE op (n INTEGER PRIMARY KEY, pos INTEGER);")); err != nil {
		t.Fatal(err)
	}
	return db
}

func TestOpenIsPrivateAndCareful(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data with ? and %41")
	db := sqlxtest.OpenDir(t, dir)
	if err := db.Migrate(t.Context(), "room", files("CREATE TABLE a (n INTEGER);")); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v %v, want mode 0700", st.Mode(), err)
	}
	for _, name := range []string{sqlx.File, sqlx.File + "-wal", sqlx.File + "-shm"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if st.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, want 0600", name, st.Mode())
		}
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "1", "foreign_keys": "1", "busy_timeout": "10000"} {
		for pool, q := range map[string]*sql.DB{"write": db.Write, "read": db.Read} {
			var got string
			if err := q.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
				t.Errorf("%s of %s = %q (%v), want %q", pragma, pool, got, err, want)
			}
		}
	}
	if _, err := db.Read.Exec("INSERT INTO a VALUES (1)"); err == nil {
		t.Error("the reading pool wrote")
	}
}

func TestValidateNamesTheVariable(t *testing.T) {
	for name, change := range map[string]func(*sqlx.Config){
		"DATA_DIR":            func(c *sqlx.Config) { c.Dir = "" },
		"SQLITE_SYNCHRONOUS":  func(c *sqlx.Config) { c.Synchronous = "off" },
		"SQLITE_BUSY_TIMEOUT": func(c *sqlx.Config) { c.BusyTimeout = -1 },
		"SQLITE_READERS":      func(c *sqlx.Config) { c.Readers = -1 },
	} {
		cfg := sqlx.DefaultConfig()
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMigrateRoomsApart(t *testing.T) {
	dir := t.TempDir()
	db := sqlxtest.OpenDir(t, dir)
	ctx := t.Context()
	steps := []string{"CREATE TABLE a (n INTEGER);", "ALTER TABLE a ADD COLUMN m INTEGER;"}
	if err := db.Migrate(ctx, "first", files(steps[:1]...)); err != nil {
		t.Fatal(err)
	}
	if err := db.Migrate(ctx, "second", files("CREATE TABLE b (n INTEGER);")); err != nil {
		t.Fatal(err)
	}
	// A later version of the program, in another process: only the new step runs.
	other := sqlxtest.OpenDir(t, dir)
	for range 2 {
		if err := other.Migrate(ctx, "first", files(steps...)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Write.Exec("INSERT INTO a (n, m) VALUES (1, 2)"); err != nil {
		t.Error(err)
	}
	if err := db.Migrate(ctx, "third", files("CREATE TABLE (;")); err == nil {
		t.Error("bad SQL was accepted")
	}
	if err := db.Migrate(ctx, "no such; room", files(steps...)); err == nil {
		t.Error("bad room name was accepted")
	}
}

func TestMigrateFromTwoProcessesAtOnce(t *testing.T) {
	dir := t.TempDir()
	errs := make(chan error)
	for range 4 {
		db := sqlxtest.OpenDir(t, dir)
		go func() {
			errs <- db.Migrate(context.Background(), "room", files("CREATE TABLE a (n INTEGER);", "INSERT INTO a VALUES (1);"))
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestAcquireOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first, err := sqlx.Acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sqlx.Acquire(dir); !errors.Is(err, sqlx.ErrLocked) {
		t.Errorf("second Acquire: %v, want ErrLocked", err)
	}
	sqlxtest.OpenDir(t, dir) // the sub-commands work meanwhile
	first.Release()
	again, err := sqlx.Acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Release()
}

func TestTxRollsBack(t *testing.T) {
	db := migrated(t)
	boom := errors.New("boom")
	err := db.Tx(t.Context(), func(tx *sql.Tx) error {
		if _, err := tx.Exec("INSERT INTO op (n) VALUES (1)"); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("Tx: %v", err)
	}
	if n := count(t, db); n != 0 {
		t.Errorf("%d rows after a rollback", n)
	}
}

func TestStatements(t *testing.T) {
	db := migrated(t)
	const insert = "INSERT INTO op (n) VALUES (?)"
	for i := range 3 {
		err := db.Tx(t.Context(), func(tx *sql.Tx) error {
			st, err := db.TxStmt(t.Context(), tx, insert)
			if err != nil {
				return err
			}
			_, err = st.Exec(i)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	one, err := db.Stmt(t.Context(), "SELECT count(*) FROM op")
	if err != nil {
		t.Fatal(err)
	}
	two, _ := db.Stmt(t.Context(), "SELECT count(*) FROM op")
	if one != two {
		t.Error("Stmt prepared the same query twice")
	}
	var n int
	if err := two.QueryRow().Scan(&n); err != nil || n != 3 {
		t.Errorf("count = %d, %v", n, err)
	}
	if _, err := db.Stmt(t.Context(), "SELEC"); err == nil {
		t.Error("bad SQL was prepared")
	}
	_ = db.Tx(t.Context(), func(tx *sql.Tx) error {
		if _, err := db.TxStmt(t.Context(), tx, "SELEC"); err == nil {
			t.Error("bad SQL was prepared in a transaction")
		}
		return nil
	})
}

func TestErrorClasses(t *testing.T) {
	dir := t.TempDir()
	db := sqlxtest.OpenDir(t, dir)
	if err := db.Migrate(t.Context(), "room", files("CREATE TABLE op (n INTEGER PRIMARY KEY);")); err != nil {
		t.Fatal(err)
	}
	cfg := sqlx.DefaultConfig()
	cfg.Dir, cfg.BusyTimeout = dir, time.Millisecond
	other, err := sqlx.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	_ = db.Tx(t.Context(), func(*sql.Tx) error {
		err := other.Tx(t.Context(), func(*sql.Tx) error { return nil })
		if !sqlx.Transient(err) || sqlx.Conflict(err) {
			t.Errorf("busy: %v transient=%v", err, sqlx.Transient(err))
		}
		return nil
	})
	_, err = db.Write.Exec("INSERT INTO op VALUES (1), (1)")
	if !sqlx.Conflict(err) || sqlx.Transient(err) {
		t.Errorf("conflict: %v", err)
	}
}

func count(t *testing.T, db *sqlx.DB) (n int) {
	t.Helper()
	if err := db.Read.QueryRow("SELECT count(*) FROM op").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func benchDB(b *testing.B) *sqlx.DB {
	b.Helper()
	db := sqlxtest.Open(b)
	if err := db.Migrate(b.Context(), "room", files("CREATE TABLE op (n INTEGER PRIMARY KEY, pos INTEGER);")); err != nil {
		b.Fatal(err)
	}
	return db
}
