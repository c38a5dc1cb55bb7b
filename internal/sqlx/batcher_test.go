package sqlx_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/internal/sqlx"
)

func insert(db *sqlx.DB) func(context.Context, *sql.Tx, []int) error {
	pos := 0
	return func(ctx context.Context, tx *sql.Tx, ops []int) error {
		st, err := db.TxStmt(ctx, tx, "INSERT INTO op (n, pos) VALUES (?, ?)")
		if err != nil {
			return err
		}
		for _, n := range ops {
			pos++
			if _, err := st.ExecContext(ctx, n, pos); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestBatcherCommitsInOrder(t *testing.T) {
	db := migrated(t)
	var committed []int
	b := sqlx.NewBatcher(db, sqlx.Batch[int]{
		Queue: 16, Max: 7, Apply: insert(db),
		Committed: func(ops []int) { committed = append(committed, ops...) },
	})
	var wg sync.WaitGroup
	const writers, each = 8, 100
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := b.Add(context.Background(), w*each+i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n != writers*each {
		t.Errorf("%d rows after Flush, want %d", n, writers*each)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := db.Read.Query("SELECT n FROM op ORDER BY pos")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var stored []int
	next := make([]int, writers)
	for rows.Next() {
		var n int
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
		stored = append(stored, n)
		if n%each != next[n/each] {
			t.Fatalf("writer %d: %d came where %d was due", n/each, n%each, next[n/each])
		}
		next[n/each]++
	}
	if !slices.Equal(stored, committed) {
		t.Error("Committed heard of another order than the table's")
	}
	if err := b.Add(t.Context(), 1); !errors.Is(err, sqlx.ErrClosed) {
		t.Errorf("Add after Close: %v", err)
	}
}

func TestBatcherRejectsOnlyTheOneThatFails(t *testing.T) {
	db := migrated(t)
	var rejected []int
	b := sqlx.NewBatcher(db, sqlx.Batch[int]{
		Window: time.Hour, Apply: insert(db),
		Rejected: func(op int, err error) {
			rejected = append(rejected, op)
			if !sqlx.Conflict(err) {
				t.Errorf("rejected for %v", err)
			}
		},
	})
	for _, n := range []int{1, 2, 1, 3} {
		if err := b.Add(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Flush(t.Context()); err == nil {
		t.Error("Flush did not tell of the rejection")
	}
	if err := b.Flush(t.Context()); err != nil {
		t.Errorf("second Flush: %v", err)
	}
	if n := count(t, db); n != 3 || !slices.Equal(rejected, []int{1}) {
		t.Errorf("%d rows, rejected %v", n, rejected)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// fakeTx counts transactions and fails the first few.
type fakeTx struct {
	mu    sync.Mutex
	fail  int
	err   error
	takes time.Duration
}

func (f *fakeTx) Tx(_ context.Context, fn func(*sql.Tx) error) error {
	time.Sleep(f.takes)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != 0 {
		f.fail--
		return f.err
	}
	return fn(nil)
}

// record keeps what each transaction wrote.
type record struct {
	mu  sync.Mutex
	got [][]int
}

func (r *record) apply(_ context.Context, _ *sql.Tx, ops []int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, slices.Clone(ops))
	return nil
}

func (r *record) transactions() [][]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func TestBatcherGroupsWhatComesMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wrote record
		b := sqlx.NewBatcher(&fakeTx{takes: 10 * time.Millisecond}, sqlx.Batch[int]{Apply: wrote.apply})
		_ = b.Add(t.Context(), 1)
		time.Sleep(5 * time.Millisecond)
		for i := 2; i <= 5; i++ {
			_ = b.Add(t.Context(), i)
		}
		if err := b.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := wrote.transactions(); len(got) != 2 || !slices.Equal(got[1], []int{2, 3, 4, 5}) {
			t.Errorf("transactions: %v", got)
		}
		_ = b.Close(t.Context())
	})
}

func TestBatcherWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wrote record
		b := sqlx.NewBatcher(&fakeTx{}, sqlx.Batch[int]{Window: 50 * time.Millisecond, Apply: wrote.apply})
		start := time.Now()
		for i := range 4 {
			_ = b.Add(t.Context(), i)
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		if got := wrote.transactions(); len(got) != 0 {
			t.Fatalf("written before the window was over: %v", got)
		}
		time.Sleep(11 * time.Millisecond)
		synctest.Wait()
		if got := wrote.transactions(); len(got) != 1 || len(got[0]) != 4 {
			t.Fatalf("after %v: %v", time.Since(start), got)
		}
		// Flush does not wait for the window.
		_ = b.Add(t.Context(), 9)
		start = time.Now()
		if err := b.Flush(t.Context()); err != nil || time.Since(start) != 0 {
			t.Errorf("Flush took %v: %v", time.Since(start), err)
		}
		// Nor do those that come after, when one transaction does not take all.
		m := sqlx.NewBatcher(&fakeTx{}, sqlx.Batch[int]{Max: 2, Window: 50 * time.Millisecond, Apply: (&record{}).apply})
		for i := range 9 {
			_ = m.Add(t.Context(), i)
		}
		if err := m.Flush(t.Context()); err != nil || time.Since(start) != 0 {
			t.Errorf("Flush of more than Max took %v: %v", time.Since(start), err)
		}
		_ = m.Close(t.Context())
		// Nor does Close.
		_ = b.Add(t.Context(), 10)
		if err := b.Close(t.Context()); err != nil || time.Since(start) != 0 {
			t.Errorf("Close took %v: %v", time.Since(start), err)
		}
		if got := wrote.transactions(); len(got) != 3 {
			t.Errorf("transactions: %v", got)
		}
	})
}

// TestBatcherWindowAfterFlush: a Flush that finds a transaction running hurries those before it, not what comes later.
func TestBatcherWindowAfterFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wrote record
		b := sqlx.NewBatcher(&fakeTx{takes: 10 * time.Millisecond},
			sqlx.Batch[int]{Window: 50 * time.Millisecond, Apply: wrote.apply})
		_ = b.Add(t.Context(), 1)
		time.Sleep(55 * time.Millisecond)
		_ = b.Add(t.Context(), 2)
		if err := b.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		_ = b.Add(t.Context(), 3)
		time.Sleep(49 * time.Millisecond)
		_ = b.Add(t.Context(), 4)
		time.Sleep(20 * time.Millisecond)
		if got := wrote.transactions(); len(got) != 3 || !slices.Equal(got[2], []int{3, 4}) {
			t.Errorf("transactions: %v", got)
		}
		_ = b.Close(t.Context())
	})
}

func TestBatcherRetriesAndPushesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wrote record
		// ErrBadConn stands for every transient error; Transient has its own test.
		db := &fakeTx{fail: 20, err: driver.ErrBadConn}
		b := sqlx.NewBatcher(db, sqlx.Batch[int]{Queue: 2, Apply: wrote.apply})
		for i := range 3 { // one in flight, two waiting
			_ = b.Add(t.Context(), i)
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Add(ctx, 3); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Add to a full queue: %v", err)
		}
		if err := b.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Flush while the database fails: %v", err)
		}
		if err := b.Flush(t.Context()); err != nil {
			t.Errorf("Flush once it works again: %v", err)
		}
		if got := wrote.transactions(); !slices.Equal(slices.Concat(got...), []int{0, 1, 2}) {
			t.Errorf("written: %v", got)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestBatcherCloseGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sqlx.NewBatcher(&fakeTx{fail: -1, err: driver.ErrBadConn}, sqlx.Batch[int]{
			Apply: func(context.Context, *sql.Tx, []int) error { return nil },
		})
		_ = b.Add(t.Context(), 1)
		synctest.Wait()
		flushed := make(chan error, 1)
		go func() { flushed <- b.Flush(context.Background()) }()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := b.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
		if err := <-flushed; !errors.Is(err, sqlx.ErrClosed) {
			t.Errorf("Flush: %v", err)
		}
	})
}

func BenchmarkBatcher(b *testing.B) {
	db := benchDB(b)
	bat := sqlx.NewBatcher(db, sqlx.Batch[int]{Queue: 4096, Apply: insert(db)})
	for i := range b.N {
		if err := bat.Add(b.Context(), i); err != nil {
			b.Fatal(err)
		}
	}
	if err := bat.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}
