package sqlx

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"holdfast/internal/testkit/postgresproc"
)

// TestFence refuses what a gateway writes after it was fenced, and waits for what it is writing.
func TestFence(t *testing.T) {
	url := postgresproc.New(t)
	open := func(node string) *Postgres {
		cfg := DefaultPostgresConfig()
		cfg.URL = url
		p, err := OpenPostgres(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		if node != "" {
			if err := p.Join(t.Context(), node); err != nil {
				t.Fatal(err)
			}
		}
		return p
	}
	slow, heir, operator := open("slow"), open("heir"), open("")
	if _, err := operator.Exec(t.Context(), `CREATE TABLE written (by TEXT)`); err != nil {
		t.Fatal(err)
	}
	write := func(p *Postgres, by string) error {
		return p.InTx(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO written (by) VALUES ($1)`, by)
			return err
		})
	}
	if err := errors.Join(slow.Stands(t.Context()), heir.Stands(t.Context())); err != nil {
		t.Errorf("before the fence: %v", err)
	}
	fenced := make(chan error, 1)
	err := slow.InTx(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO written (by) VALUES ('before')`); err != nil {
			return err
		}
		go func() { fenced <- heir.Fence(t.Context(), "slow") }()
		select {
		case err := <-fenced:
			t.Errorf("the fence (%v) did not wait for a transaction under way", err)
		case <-time.After(200 * time.Millisecond): // long enough for a statement that does not wait
		}
		return nil
	})
	if err != nil {
		t.Fatalf("a transaction from before the fence: %v", err)
	}
	if err := <-fenced; err != nil {
		t.Fatal(err)
	}
	if err := slow.Stands(t.Context()); !errors.Is(err, ErrFenced) {
		t.Errorf("after the fence it stands: %v, want ErrFenced", err)
	}
	if err := heir.Stands(t.Context()); err != nil {
		t.Errorf("the heir: %v", err)
	}
	if err := write(slow, "after"); !errors.Is(err, ErrFenced) {
		t.Errorf("a transaction after the fence: %v, want ErrFenced", err)
	}
	if _, err := slow.Exec(t.Context(), `INSERT INTO written (by) VALUES ('after')`); !errors.Is(err, ErrFenced) {
		t.Errorf("a statement after the fence: %v, want ErrFenced", err)
	}
	if err := errors.Join(write(heir, "heir"), write(operator, "operator")); err != nil {
		t.Errorf("the others: %v", err)
	}
	var n int
	err = operator.Query(t.Context(), `SELECT count(*) FROM written WHERE by = 'after'`, func(rows *sql.Rows) (bool, error) {
		return true, rows.Scan(&n)
	})
	if err != nil || n != 0 {
		t.Errorf("%d rows were written after the fence, %v", n, err)
	}
}

// TestSilentDatabase lets one caller wait for a database that does not answer; the others hear of it at once, until it
// answers again.
func TestSilentDatabase(t *testing.T) {
	server := postgresproc.Get(t)
	cfg := DefaultPostgresConfig()
	cfg.URL = postgresproc.New(t)
	p, err := OpenPostgres(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ask := func() error {
		return p.Query(t.Context(), `SELECT 1`, func(*sql.Rows) (bool, error) { return false, nil })
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	p.timeout = 500 * time.Millisecond // not before there is a connection, which may take its time
	server.Freeze(t)
	if err := ask(); err == nil || errors.Is(err, errSilent) || !Transient(err) {
		t.Errorf("the first to ask: %v, want a time-out of its own", err)
	}
	if err := ask(); !errors.Is(err, errSilent) || !Transient(err) {
		t.Errorf("the second to ask: %v, want errSilent", err)
	}
	if err := p.InTx(t.Context(), func(context.Context, *sql.Tx) error { return nil }); !errors.Is(err, errSilent) {
		t.Errorf("a transaction: %v, want errSilent", err)
	}
	server.Thaw(t)
	for ask() != nil {
		if t.Context().Err() != nil {
			t.Fatal("the database answers and is not asked")
		}
		time.Sleep(10 * time.Millisecond)
	}
}
