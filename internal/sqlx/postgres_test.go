package sqlx_test

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/internal/sqlx"
	"holdfast/internal/sqlx/sqlxtest"
	"holdfast/internal/testkit/postgresproc"
)

func migratedPostgres(t *testing.T, db *sqlx.Postgres) {
	t.Helper()
	if err := db.Migrate(t.Context(), "room", files("CREATE TABLE op (n integer PRIMARY KEY);")); err != nil {
		t.Fatal(err)
	}
}

// countPostgres asks again while the error is one that passes: a busy machine may be late with the answer.
func countPostgres(t *testing.T, db *sqlx.Postgres) (n int) {
	t.Helper()
	err := untilAnswered(func() error {
		return db.Query(t.Context(), "SELECT count(*) FROM op", func(rows *sql.Rows) (bool, error) {
			return false, rows.Scan(&n)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func untilAnswered(ask func() error) error {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := ask(); !sqlx.Transient(err) || time.Now().After(deadline) {
			return err
		}
	}
}

// hasty is how long a query may take where the test waits for the end of it. A busy machine may not even make a
// connection within it.
const hasty = 300 * time.Millisecond

// soon bounds what ends after such times. It is below the times that hold when nothing is set.
const soon = 8 * time.Second

func openHasty(t *testing.T, cfg sqlx.PostgresConfig) (db *sqlx.Postgres) {
	t.Helper()
	cfg.Timeout = hasty
	err := untilAnswered(func() (err error) {
		db, err = sqlx.OpenPostgres(t.Context(), cfg)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestPostgresValidateNamesTheVariable(t *testing.T) {
	for name, change := range map[string]func(*sqlx.PostgresConfig){
		"DATABASE_CONNS":           func(c *sqlx.PostgresConfig) { c.Conns = -1 },
		"DATABASE_CONNECT_TIMEOUT": func(c *sqlx.PostgresConfig) { c.ConnectTimeout = -1 },
		"DATABASE_TIMEOUT":         func(c *sqlx.PostgresConfig) { c.Timeout = -1 },
		"DATABASE_URL":             func(c *sqlx.PostgresConfig) { c.URL = "mysql://localhost" },
		"DATABASE_URL:":            func(c *sqlx.PostgresConfig) { c.URL = "postgres://u:geheim@h:port/db" },
	} {
		cfg := sqlx.DefaultPostgresConfig()
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRedactURL(t *testing.T) {
	for url, want := range map[string]string{
		"":                                    "",
		"sqlite:/var/lib/p@th":                "sqlite:/var/lib/p@th",
		"postgres://h/db":                     "postgres://h/db",
		"postgres://u@h/db":                   "postgres://u@h/db",
		"postgres://u:p@h:5432/db":            "postgres://u:xxxxx@h:5432/db",
		"postgres://u:p@ss:w/rd@h/db":         "postgres://u:xxxxx@h/db",
		"postgres://h/db?password=p&a=b":      "postgres://h/db?password=xxxxx&a=b",
		"postgres://h/db?a=b&sslpassword=p#x": "postgres://h/db?a=b&sslpassword=xxxxx#x",
		"postgres://:p@h1:1,h2:2/db":          "postgres://:xxxxx@h1:1,h2:2/db",
		"rediss://u:p@h:6379/0":               "rediss://u:xxxxx@h:6379/0",
	} {
		if got := sqlx.RedactURL(url); got != want {
			t.Errorf("%s became %s, want %s", url, got, want)
		}
	}
}

func TestPostgresMigrateRoomsApart(t *testing.T) {
	url := postgresproc.New(t)
	db := sqlxtest.OpenPostgres(t, url)
	ctx := t.Context()
	steps := []string{"CREATE TABLE a (n integer);", "ALTER TABLE a ADD COLUMN m integer;"}
	if err := db.Migrate(ctx, "first", files(steps[:1]...)); err != nil {
		t.Fatal(err)
	}
	if err := db.Migrate(ctx, "second", files("CREATE TABLE b (n integer);")); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(ctx, "INSERT INTO a VALUES (7)"); err != nil {
		t.Fatal(err)
	}
	// A later version of the program, in another process: only the new step runs, and what is there stays.
	other := sqlxtest.OpenPostgres(t, url)
	for range 2 {
		if err := other.Migrate(ctx, "first", files(steps...)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := db.Exec(ctx, "UPDATE a SET m = 1 WHERE n = 7"); n != 1 || err != nil {
		t.Errorf("%d rows, %v", n, err)
	}
	if err := db.Migrate(ctx, "third", files("CREATE TABLE (;")); err == nil {
		t.Error("bad SQL was accepted")
	}
	if err := db.Migrate(ctx, "no such; room", files(steps...)); err == nil {
		t.Error("bad room name was accepted")
	}
}

func TestPostgresMigrateFromTwoProcessesAtOnce(t *testing.T) {
	url := postgresproc.New(t)
	errs := make(chan error)
	const gateways = 4
	for range gateways {
		db := sqlxtest.OpenPostgres(t, url)
		go func() {
			errs <- db.Migrate(context.Background(), "room", files("CREATE TABLE op (n integer);", "INSERT INTO op VALUES (1);"))
		}()
	}
	for range gateways {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := countPostgres(t, sqlxtest.OpenPostgres(t, url)); n != 1 {
		t.Errorf("the migration ran %d times", n)
	}
}

// A migration takes longer than a query may, and another gateway waits for it as long.
func TestPostgresMigrateOutlivesTheTimeout(t *testing.T) {
	cfg := sqlx.DefaultPostgresConfig()
	// A new connection, which on a busy machine takes its time, has to fit in.
	cfg.URL, cfg.Timeout = postgresproc.New(t), 2*time.Second
	var wg sync.WaitGroup
	for range 2 {
		db := sqlxtest.OpenPostgresWith(t, cfg)
		wg.Go(func() {
			if err := db.Migrate(context.Background(), "room", files("SELECT pg_sleep(2.4);", "CREATE TABLE op (n integer);")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestPostgresTxRollsBack(t *testing.T) {
	db := sqlxtest.OpenPostgres(t, postgresproc.New(t))
	migratedPostgres(t, db)
	boom := errors.New("boom")
	err := db.Tx(t.Context(), func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(t.Context(), "INSERT INTO op (n) VALUES (1)"); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("Tx: %v", err)
	}
	if n := countPostgres(t, db); n != 0 {
		t.Errorf("%d rows after a rollback", n)
	}
}

func TestPostgresErrorClasses(t *testing.T) {
	cfg := sqlx.DefaultPostgresConfig()
	cfg.URL = postgresproc.New(t)
	db := sqlxtest.OpenPostgresWith(t, cfg)
	migratedPostgres(t, db)
	execBy := func(db *sqlx.Postgres, statement string) error {
		_, err := db.Exec(t.Context(), statement)
		return err
	}
	exec := func(statement string) error { return execBy(db, statement) }
	if err := exec("INSERT INTO op VALUES (1), (1)"); !sqlx.Conflict(err) || sqlx.Transient(err) {
		t.Errorf("conflict: %v", err)
	}
	if err := exec("INSERT INTO op VALUES ('x')"); sqlx.Conflict(err) || sqlx.Transient(err) {
		t.Errorf("nonsense: %v", err)
	}
	for name, statement := range map[string]string{
		"connection terminated": "SELECT pg_terminate_backend(pg_backend_pid())",
		"serialization":         "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$",
		"deadlock":              "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END $$",
		"lock":                  "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '55P03'; END $$",
		"disk full":             "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '53100'; END $$",
		"starting":              "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '57P03'; END $$",
		"read only":             "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '25006'; END $$",
	} {
		if err := exec(statement); !sqlx.Transient(err) || sqlx.Conflict(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := execBy(openHasty(t, cfg), "SELECT pg_sleep(30)"); !sqlx.Transient(err) || sqlx.Conflict(err) {
		t.Errorf("too slow: %v", err)
	}
	// A transaction that nobody goes on with loses its locks.
	err := openHasty(t, cfg).Tx(t.Context(), func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(t.Context(), "INSERT INTO op VALUES (2)"); err != nil {
			return err
		}
		time.Sleep(2 * hasty)
		_, err := tx.ExecContext(t.Context(), "INSERT INTO op VALUES (3)")
		return err
	})
	if !sqlx.Transient(err) {
		t.Errorf("a transaction over its time: %v", err)
	}
	if n := countPostgres(t, db); n != 0 {
		t.Errorf("%d rows", n)
	}
}

// stalled accepts connections and never answers.
func stalled(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return l.Addr().String()
}

func TestPostgresThatNeverAnswers(t *testing.T) {
	cfg := sqlx.DefaultPostgresConfig()
	cfg.URL, cfg.ConnectTimeout = "postgres://u:p@"+stalled(t)+"/db?sslmode=disable", 200*time.Millisecond
	start := time.Now()
	_, err := sqlx.OpenPostgres(t.Context(), cfg)
	if took := time.Since(start); err == nil || took > soon || !sqlx.Transient(err) {
		t.Errorf("Open: %v after %v", err, took)
	}
	if strings.Contains(err.Error(), "u:p@") {
		t.Errorf("the password is in the error: %v", err)
	}
}

// A database that stops answering makes everything fail within its time, and goes on when it answers again.
func TestPostgresThatAnswersNoMore(t *testing.T) {
	cfg := sqlx.DefaultPostgresConfig()
	cfg.URL = postgresproc.New(t)
	migratedPostgres(t, sqlxtest.OpenPostgresWith(t, cfg))
	cfg.ConnectTimeout, cfg.Conns = hasty, 2
	db := openHasty(t, cfg)
	postgresproc.Get(t).Freeze(t)
	for name, do := range map[string]func() error{
		"Ping": func() error { return db.Ping(t.Context()) },
		"Exec": func() error {
			_, err := db.Exec(t.Context(), "INSERT INTO op VALUES (1)")
			return err
		},
		"Query": func() error {
			return db.Query(t.Context(), "SELECT 1", func(*sql.Rows) (bool, error) { return true, nil })
		},
		"Tx": func() error {
			return db.InTx(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, "INSERT INTO op VALUES (1)")
				return err
			})
		},
	} {
		start := time.Now()
		err := do()
		if took := time.Since(start); err == nil || took > soon || !sqlx.Transient(err) {
			t.Errorf("%s: %v after %v", name, err, took)
		}
	}
	postgresproc.Get(t).Thaw(t)
	err := untilAnswered(func() error {
		_, err := db.Exec(t.Context(), "INSERT INTO op VALUES (2) ON CONFLICT DO NOTHING")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The server is killed and stopped while writers go on: what was committed stays, in order, and every write comes to
// its end.
func TestPostgresBatcherOutlivesTheServer(t *testing.T) {
	cfg := sqlx.DefaultPostgresConfig()
	cfg.URL, cfg.Timeout = postgresproc.New(t), 2*time.Second
	db := sqlxtest.OpenPostgresWith(t, cfg)
	migratedPostgres(t, db)
	var mu sync.Mutex
	committed := 0
	b := sqlx.NewBatcher(db, sqlx.Batch[int]{
		Queue: 64, Max: 32,
		Apply: func(ctx context.Context, tx *sql.Tx, ops []int) error {
			ctx, cancel := db.Bound(ctx)
			defer cancel()
			_, err := tx.ExecContext(ctx, "INSERT INTO op SELECT unnest($1::integer[]) ON CONFLICT DO NOTHING", ops)
			return err
		},
		Committed: func(ops []int) {
			mu.Lock()
			defer mu.Unlock()
			committed += len(ops)
		},
		Rejected: func(op int, err error) { t.Errorf("%d was rejected: %v", op, err) },
	})
	stop := make(chan struct{})
	added := 0
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := b.Add(context.Background(), added); err != nil {
				t.Error(err)
				return
			}
			added++
		}
	})
	s := postgresproc.Get(t)
	soFar := func() int {
		mu.Lock()
		defer mu.Unlock()
		return committed
	}
	for _, end := range []func(testing.TB){s.Kill, s.Stop, s.Kill} {
		for before := soFar(); soFar() < before+200; {
			time.Sleep(time.Millisecond)
		}
		end(t)
		told := soFar()
		s.Start(t)
		if n := countPostgres(t, db); n < told {
			t.Errorf("%d rows after a restart, %d were committed", n, told)
		}
	}
	close(stop)
	writer.Wait()
	if err := b.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if n := countPostgres(t, db); n != added {
		t.Errorf("%d rows, want %d", n, added)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// After a restart nobody meets a connection that is dead.
func TestPostgresReconnects(t *testing.T) {
	db := sqlxtest.OpenPostgres(t, postgresproc.New(t))
	migratedPostgres(t, db)
	var wg sync.WaitGroup
	for range 8 { // fills the pool
		wg.Go(func() {
			if _, err := db.Exec(context.Background(), "SELECT pg_sleep(0.1)"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s := postgresproc.Get(t)
	s.Stop(t)
	if err := db.Ping(t.Context()); !sqlx.Transient(err) {
		t.Errorf("Ping of a server that is away: %v", err)
	}
	s.Start(t)
	for i := range 10 {
		err := db.InTx(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO op VALUES ($1)", i)
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}
