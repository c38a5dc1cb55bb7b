package offline_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"holdfast/internal/sqlx"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/offline"
	"holdfast/stanza"
)

// TestRelease: it waits for what was changed before, and what is released is read anew.
func TestRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		cfg := lifted()
		cfg.Shared, cfg.Window = true, time.Hour
		m, err := offline.New(t.Context(), cfg, s, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Release(t.Context(), julietAddr()); err != nil {
			t.Errorf("of a mailbox that nobody used: %v", err)
		}
		s.hold()
		mustPut(t, m, julietAddr(), from(t, romeo, id(1), "x"))
		released := make(chan error, 1)
		go func() { released <- m.Release(context.Background(), julietAddr()) }()
		synctest.Wait()
		select {
		case err := <-released:
			t.Fatalf("released before the commit: %v", err)
		default:
		}
		s.letGo()
		if err := <-released; err != nil {
			t.Error(err)
		}
		want(t, s, juliet, 1)
		// Another node writes.
		apply(t, s, put(juliet, 2), put(juliet, 3), remove(juliet, 1))
		holds(t, m, julietAddr(), id(2), id(3))

		// Nothing waits, so nothing is waited for.
		before := s.scans
		if err := m.Release(t.Context(), julietAddr()); err != nil || s.scans != before {
			t.Errorf("%v, %d queries", err, s.scans-before)
		}
		holds(t, m, julietAddr(), id(2), id(3))

		// A store that does not come to an end: whoever waits may give up, and nothing is dropped.
		s.hold()
		mustPut(t, m, julietAddr(), from(t, romeo, id(4), "x"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Release(ctx, julietAddr()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("of a store that is held: %v", err)
		}
		holds(t, m, julietAddr(), id(2), id(3), id(4))

		// Used again meanwhile.
		go func() { released <- m.Release(context.Background(), julietAddr()) }()
		synctest.Wait()
		mustPut(t, m, julietAddr(), from(t, romeo, id(5), "x"))
		held := s.held
		s.held = make(chan struct{}) // the transaction that runs ends, and the next is held
		close(held)
		if err := <-released; !errors.Is(err, offline.ErrInUse) {
			t.Errorf("of a mailbox in use: %v", err)
		}
		holds(t, m, julietAddr(), id(2), id(3), id(4), id(5))
		s.letGo()
		if err := m.Release(t.Context(), julietAddr()); err != nil {
			t.Error(err)
		}
		holds(t, m, julietAddr(), id(2), id(3), id(4), id(5))
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestReleaseOfRejected: what the store refuses is nowhere else, so it is not dropped; others are.
func TestReleaseOfRejected(t *testing.T) {
	s := newMemory()
	s.fail = func(batch []offline.Change) error {
		for _, c := range batch {
			if c.User == juliet {
				return errors.New("constraint")
			}
		}
		return nil
	}
	m := open(t, lifted(), s)
	mustPut(t, m, julietAddr(), from(t, romeo, id(1), "x"))
	mustPut(t, m, nurseAddr(), from(t, romeo, id(1), "x"))
	if err := m.Release(t.Context(), nurseAddr()); err != nil {
		t.Errorf("of a mailbox that is well: %v", err)
	}
	if err := m.Release(t.Context(), julietAddr()); err == nil {
		t.Error("a refused write was dropped")
	}
	holds(t, m, julietAddr(), id(1))
	if err := m.Checkpoint(t.Context()); err == nil {
		t.Error("the checkpoint does not tell of it")
	}
	s.fail = nil
	checkpoint(t, m)
}

// TestHandOver has the homes of users move between two nodes over one database, all the time, while messages come and
// go: nothing is lost or repeated, and every node counts exactly.
func TestHandOver(t *testing.T) {
	url := postgresproc.New(t)
	cfg := lifted()
	cfg.Shared, cfg.Window = true, 5*time.Millisecond
	nodes := []*offline.Mailbox{open(t, cfg, openPostgres(t, url)), open(t, cfg, openPostgres(t, url))}
	var wg sync.WaitGroup
	for u := range 6 {
		user := stanza.MustParseAddr(fmt.Sprintf("user%d@example.com", u))
		wg.Go(func() {
			var there []stanza.ID
			home := nodes[0]
			for n := 1; n <= 60; n++ {
				mustPut(t, home, user, from(t, romeo, id(n), "x"))
				there = append(there, id(n))
				switch {
				case n%5 == 0: // some are delivered
					if err := home.Remove(context.Background(), user, there[0], there[2]); err != nil {
						t.Error(err)
					}
					there = append(there[1:2:2], there[3:]...)
				case n%7 == u:
					holds(t, home, user, there...)
				}
				if n%3 == 0 { // the home moves
					if err := home.Release(context.Background(), user); err != nil {
						t.Error(err)
					}
					home = nodes[(n/3)%2]
				}
			}
			holds(t, home, user, there...)
		})
	}
	wg.Wait()
}

// TestExpireMine: each node removes what is over its lifetime for the users whose home it is.
func TestExpireMine(t *testing.T) {
	s := newMemory()
	apply(t, s, put(juliet, 1), put(nurse, 1)) // long ago
	cfg := lifted()
	cfg.Shared, cfg.Lifetime = true, time.Hour
	cfg.Mine = func(_ context.Context, user stanza.Addr) bool { return user == nurseAddr() }
	m := open(t, cfg, s)
	if _, err := m.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkpoint(t, m)
	want(t, s, juliet, 1)
	want(t, s, nurse)
}

// TestExpireOfOneWhoLeaves: a home that moves away while its messages expire keeps nothing in memory.
func TestExpireOfOneWhoLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		cfg := lifted()
		cfg.Shared, cfg.Lifetime = true, time.Hour
		mine := false
		cfg.Mine = func(context.Context, stanza.Addr) bool {
			was := mine
			mine = false
			return was
		}
		m := open(t, cfg, s)
		synctest.Wait() // it looks for what is over by itself
		fresh := stanza.NewID()
		apply(t, s, put(juliet, 1), offline.Change{Op: offline.OpPut, User: juliet, ID: fresh, Sender: romeo, Raw: []byte("<m/>")})
		mine = true
		if n, err := m.Expire(t.Context()); n != 1 || err != nil {
			t.Fatalf("%d expired, %v", n, err)
		}
		apply(t, s, offline.Change{Op: offline.OpRemove, User: juliet, IDs: []stanza.ID{fresh}}) // by the new home
		holds(t, m, julietAddr())
	})
}

// TestSharedCount: the gauge asks a shared store at most once a minute.
func TestSharedCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		cfg := lifted()
		cfg.Shared = true
		reg := prometheus.NewRegistry()
		m, err := offline.New(t.Context(), cfg, s, slog.New(slog.DiscardHandler), reg)
		if err != nil {
			t.Fatal(err)
		}
		gauge := func(n int) {
			t.Helper()
			text := fmt.Sprintf("# HELP holdfast_offline_messages Messages in all mailboxes; with a database that gateways share an estimate, of the last minute.\n"+
				"# TYPE holdfast_offline_messages gauge\nholdfast_offline_messages %d\n", n)
			if err := testutil.GatherAndCompare(reg, strings.NewReader(text), "holdfast_offline_messages"); err != nil {
				t.Error(err)
			}
		}
		gauge(0)
		apply(t, s, put(juliet, 1), put(nurse, 1)) // by another node
		gauge(0)
		time.Sleep(61 * time.Second)
		gauge(2)
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestPostgresKilledUnderLoad: what a Checkpoint said is there after the server was killed, and writing goes on.
func TestPostgresKilledUnderLoad(t *testing.T) {
	s := openPostgres(t, postgresproc.New(t))
	cfg := lifted()
	cfg.Shared, cfg.Window = true, time.Millisecond
	m := open(t, cfg, s)
	server := postgresproc.Get(t)
	stop := make(chan struct{})
	var writer sync.WaitGroup
	var mu sync.Mutex
	written, checkpointed := 0, 0
	writer.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			mustPut(t, m, julietAddr(), from(t, romeo, id(n), "x"))
			if n > 20 { // and the mailbox stays 20 long
				// It has to look the message up, so it says when the server is away.
				for err := m.Remove(context.Background(), julietAddr(), id(n-20)); err != nil; {
					if !sqlx.Transient(err) {
						t.Error(err)
						return
					}
					time.Sleep(time.Millisecond)
					err = m.Remove(context.Background(), julietAddr(), id(n-20))
				}
			}
			mu.Lock()
			written = n
			mu.Unlock()
			if n%10 == 0 {
				if err := m.Checkpoint(context.Background()); err != nil {
					t.Error(err)
				}
				mu.Lock()
				checkpointed = n
				mu.Unlock()
			}
		}
	})
	sofar := func() int {
		mu.Lock()
		defer mu.Unlock()
		return checkpointed
	}
	for _, end := range []func(testing.TB){server.Kill, server.Stop, server.Kill} {
		for before := sofar(); sofar() < before+50; {
			time.Sleep(time.Millisecond)
		}
		end(t)
		told := sofar()
		server.Start(t)
		totals, err := s.Totals(t.Context(), juliet)
		if err != nil || totals.Last.Compare(id(told)) < 0 {
			t.Errorf("%d were checkpointed, the last one there is %v: %v", told, totals.Last, err)
		}
	}
	close(stop)
	writer.Wait()
	checkpoint(t, m)
	var ns []int
	for n := written - 19; n <= written; n++ {
		ns = append(ns, n)
	}
	want(t, s, juliet, ns...)
	wantStored(t, s, 20)
}
