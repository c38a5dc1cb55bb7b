package offline_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"holdfast/internal/sqlx"
	"holdfast/internal/sqlx/sqlxtest"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/offline"
	"holdfast/stanza"
)

// TestCrashAfterCheckpoint copies the database as a killed process leaves it and opens the copy.
func TestCrashAfterCheckpoint(t *testing.T) {
	dir := t.TempDir()
	s := openSQLite(t, dir)
	cfg := lifted()
	cfg.Window = time.Hour
	m := open(t, cfg, s)
	for n := 1; n <= 5; n++ {
		mustPut(t, m, julietAddr(), from(t, romeo, id(n), "x"))
	}
	checkpoint(t, m)
	if err := m.Remove(t.Context(), julietAddr(), id(1), id(2)); err != nil {
		t.Fatal(err)
	}
	checkpoint(t, m)
	copied := t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, sqlx.File+suffix))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(copied, sqlx.File+suffix), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// these are the journal's alone
	mustPut(t, m, julietAddr(), from(t, romeo, id(6), "x"))
	if err := m.Remove(t.Context(), julietAddr(), id(3)); err != nil {
		t.Fatal(err)
	}

	after := openSQLite(t, copied)
	m2 := open(t, lifted(), after)
	holds(t, m2, julietAddr(), id(3), id(4), id(5))
	// The journal is replayed, from before the last checkpoint too.
	for n := 4; n <= 6; n++ {
		if err := m2.Force(t.Context(), julietAddr(), from(t, romeo, id(n), "x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := m2.Remove(t.Context(), julietAddr(), id(2), id(3)); err != nil {
		t.Fatal(err)
	}
	holds(t, m2, julietAddr(), id(4), id(5), id(6))
	checkpoint(t, m2)
	want(t, after, juliet, 4, 5, 6)
	wantStored(t, after, 3)
}

const childPlace = "HOLDFAST_TEST_OFFLINE_PLACE" // a directory, or the URL of a PostgreSQL database

// childMain stores messages for two users, always both or none in one go, and says after each Checkpoint how many,
// until it is killed.
func childMain() {
	place := os.Getenv(childPlace)
	if place == "" {
		return
	}
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	ctx := context.Background()
	s, err := childBackend(ctx, place)
	fail(err)
	m, err := offline.New(ctx, offline.Config{Window: time.Hour}, s, slog.New(slog.DiscardHandler), nil)
	fail(err)
	raw := []byte("<message xmlns='jabber:client' from='romeo@example.net/o' to='juliet@example.com'><body>x</body></message>")
	var out [4]byte
	for n := 1; ; n++ {
		for _, user := range []stanza.Addr{julietAddr(), nurseAddr()} {
			st, err := stanza.Parse(raw, id(n))
			fail(err)
			fail(m.Force(ctx, user, st))
			if n > 20 { // and the mailbox stays 20 long
				fail(m.Remove(ctx, user, id(n-20)))
			}
		}
		if n%10 == 0 {
			fail(m.Checkpoint(ctx))
			binary.BigEndian.PutUint32(out[:], uint32(n))
			_, err := os.Stdout.Write(out[:])
			fail(err)
		}
	}
}

func childBackend(ctx context.Context, place string) (offline.Backend, error) {
	if sqlx.IsPostgresURL(place) {
		cfg := sqlx.DefaultPostgresConfig()
		cfg.URL = place
		db, err := sqlx.OpenPostgres(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return offline.OpenPostgres(ctx, db)
	}
	cfg := sqlx.DefaultConfig()
	cfg.Dir = place
	db, err := sqlx.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return offline.OpenSQLite(ctx, db)
}

// TestKill kills a process at any moment of its writing: what it checkpointed is there, whole and in order, and no
// transaction is there by half.
func TestKill(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		kill(t, func() string { return t.TempDir() }, func(dir string) offline.Backend { return openSQLite(t, dir) })
	})
	t.Run("postgres", func(t *testing.T) {
		kill(t, func() string { return postgresproc.New(t) }, func(url string) offline.Backend {
			awaitAlone(t, url)
			return openPostgres(t, url)
		})
	})
}

// awaitAlone waits until the server has noticed that a killed process is gone, and ended its last transaction.
func awaitAlone(t *testing.T, url string) {
	t.Helper()
	db := sqlxtest.OpenPostgres(t, url)
	for others := 1; others > 0; time.Sleep(time.Millisecond) {
		err := db.Query(t.Context(), `SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`,
			func(rows *sql.Rows) (bool, error) { return false, rows.Scan(&others) })
		if err != nil {
			t.Fatal(err)
		}
	}
}

func kill(t *testing.T, newPlace func() string, openAt func(place string) offline.Backend) {
	for round := range 4 {
		place := newPlace()
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), childPlace+"="+place)
		cmd.Stderr = os.Stderr
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(stdout)
		last := 0
		var b [4]byte
		for last < 100+round*37 {
			if _, err := io.ReadFull(in, b[:]); err != nil {
				t.Fatal(err)
			}
			last = int(binary.BigEndian.Uint32(b[:]))
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := io.ReadFull(in, b[:]); err != nil {
				break
			}
			last = int(binary.BigEndian.Uint32(b[:]))
		}
		_ = cmd.Wait()

		s := openAt(place)
		m := open(t, lifted(), s)
		got := ids(t, m, julietAddr(), 7, 0)
		// A message and the removal that makes room for it may be in two transactions.
		if len(got) < 20 || len(got) > 21 || got[len(got)-1].Compare(id(last)) < 0 {
			t.Fatalf("checkpoint said %d, %d messages there, up to %v", last, len(got), got[len(got)-1])
		}
		for i := 1; i < len(got); i++ {
			if got[i-1].Compare(got[i]) >= 0 {
				t.Fatalf("out of order: %v", got)
			}
		}
		// The other mailbox was written beside it, at most one step behind.
		other := ids(t, m, nurseAddr(), 7, 0)
		if len(other) < 20 || len(other) > 21 || other[len(other)-1].Compare(id(last)) < 0 {
			t.Fatalf("checkpoint said %d, %d messages in the other mailbox", last, len(other))
		}
		wantStored(t, s, int64(len(got)+len(other)))
	}
}
