package postgresproc_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"holdfast/internal/testkit/postgresproc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(postgresproc.Main(m)) }

// A committed row is there after each way of ending the server.
func TestServerEndsAndStarts(t *testing.T) {
	url := postgresproc.New(t)
	s := postgresproc.Get(t)
	query := func(sql string) (n int) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(context.Background()) }()
		if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), "CREATE TABLE a (n integer)"); err != nil {
		t.Fatal(err)
	}
	for i, end := range []func(testing.TB){s.Stop, s.Kill, s.Kill} {
		query("INSERT INTO a VALUES (1) RETURNING n")
		end(t)
		if _, err := pgx.Connect(t.Context(), url); err == nil {
			t.Error("it still answers")
		}
		s.Start(t)
		if n := query("SELECT count(*) FROM a"); n != i+1 {
			t.Errorf("%d rows after %d restarts", n, i+1)
		}
	}
}

func TestFrozenServerAnswersNothing(t *testing.T) {
	url := postgresproc.New(t)
	s := postgresproc.Get(t)
	s.Freeze(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := pgx.Connect(ctx, url); err == nil {
		t.Error("it answers")
	}
	s.Thaw(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDatabasesAreApart(t *testing.T) {
	for range 2 {
		conn, err := pgx.Connect(t.Context(), postgresproc.New(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "CREATE TABLE a (n integer)"); err != nil {
			t.Error(err)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
