package offline_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"holdfast/internal/testkit/postgresproc"
	"holdfast/offline"
	"holdfast/stanza"
)

func TestMain(m *testing.M) {
	childMain()                                              // does not return in the process that TestKill starts
	goleak.VerifyTestMain(postgresproc.Main(m, "fsync=off")) // the disk is not what is tested here
}

var (
	julietAddr = sync.OnceValue(func() stanza.Addr { return stanza.MustParseAddr(juliet) })
	nurseAddr  = sync.OnceValue(func() stanza.Addr { return stanza.MustParseAddr(nurse) })
)

// lifted is a Config without limits and without a window.
func lifted() offline.Config { return offline.Config{} }

func open(t testing.TB, cfg offline.Config, s offline.Backend) *offline.Mailbox {
	t.Helper()
	m, err := offline.New(t.Context(), cfg, s, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return m
}

// from makes a chat message with the given id.
func from(t testing.TB, sender string, id stanza.ID, text string) *stanza.Stanza {
	t.Helper()
	raw := fmt.Appendf(nil, "<message xmlns='jabber:client' from='%s/orchard' to='%s' type='chat' id='m1'><body>%s</body></message>",
		sender, juliet, text)
	st, err := stanza.Parse(raw, id)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func mustPut(t testing.TB, m *offline.Mailbox, to stanza.Addr, st *stanza.Stanza) {
	t.Helper()
	if v, err := m.Put(context.Background(), to, st); err != nil || v.Action != offline.Store {
		t.Fatalf("Put: %v for %v, %v", v.Action, v.Reason, err)
	}
}

func checkpoint(t testing.TB, m *offline.Mailbox) {
	t.Helper()
	if err := m.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// ids pages through a whole mailbox.
func ids(t testing.TB, m *offline.Mailbox, user stanza.Addr, limit, maxBytes int) []stanza.ID {
	t.Helper()
	all := []stanza.ID{}
	var after stanza.ID
	for {
		page, more, err := m.Page(context.Background(), user, after, limit, maxBytes)
		if err != nil {
			t.Fatal(err)
		}
		for _, msg := range page {
			all = append(all, msg.ID)
			after = msg.ID
		}
		if !more {
			return all
		}
		if len(page) == 0 {
			t.Fatal("an empty page says that there are more")
		}
	}
}

// holds checks everything that a Mailbox says of user.
func holds(t testing.TB, m *offline.Mailbox, user stanza.Addr, expect ...stanza.ID) {
	t.Helper()
	if got := ids(t, m, user, 3, 0); !slices.Equal(got, expect) {
		t.Errorf("%v has %v, want %v", user, got, expect)
	}
	n, err := m.Count(context.Background(), user)
	if err != nil || n != len(expect) {
		t.Errorf("%v counts %d, %v, want %d", user, n, err, len(expect))
	}
	if empty, err := m.Empty(context.Background(), user); err != nil || empty != (len(expect) == 0) {
		t.Errorf("%v empty: %v, %v", user, empty, err)
	}
	for _, id := range expect {
		if has, err := m.Contains(context.Background(), user, id); err != nil || !has {
			t.Errorf("%v does not contain %v: %v", user, id, err)
		}
	}
}

// each runs test on every Backend, with writes that are committed at once and with writes that wait for Checkpoint.
func each(t *testing.T, test func(t *testing.T, cfg offline.Config, s offline.Backend)) {
	for name, window := range map[string]time.Duration{"committed": 0, "pending": time.Hour} {
		cfg := lifted()
		cfg.Window = window
		t.Run(name+"/memory", func(t *testing.T) { test(t, cfg, newMemory()) })
		t.Run(name+"/sqlite", func(t *testing.T) { test(t, cfg, openSQLite(t, t.TempDir())) })
		t.Run(name+"/postgres", func(t *testing.T) {
			cfg.Shared = true
			test(t, cfg, openPostgres(t, postgresproc.New(t)))
		})
	}
}

func TestPutPageRemove(t *testing.T) {
	each(t, func(t *testing.T, cfg offline.Config, s offline.Backend) {
		m := open(t, cfg, s)
		holds(t, m, julietAddr())
		for n := 1; n <= 10; n++ {
			mustPut(t, m, julietAddr(), from(t, romeo, id(n), "hello"))
			if n == 5 {
				checkpoint(t, m)
			}
		}
		mustPut(t, m, nurseAddr(), from(t, romeo, id(3), "hello"))
		var all []stanza.ID
		for n := 1; n <= 10; n++ {
			all = append(all, id(n))
		}
		holds(t, m, julietAddr(), all...)
		holds(t, m, nurseAddr(), id(3))
		// the full JID is the same mailbox
		full, err := julietAddr().WithResource("balcony")
		if err != nil {
			t.Fatal(err)
		}
		holds(t, m, full, all...)

		// XEP-0160 §2: in order, and removed only when told to.
		if err := m.Remove(t.Context(), julietAddr(), all[:4]...); err != nil {
			t.Fatal(err)
		}
		holds(t, m, julietAddr(), all[4:]...)
		if err := m.Remove(t.Context(), julietAddr(), all[:6]...); err != nil { // some of them again
			t.Fatal(err)
		}
		holds(t, m, julietAddr(), all[6:]...)
		if had, err := m.RemoveID(t.Context(), julietAddr(), all[6]); err != nil || !had {
			t.Errorf("RemoveID: %v, %v", had, err)
		}
		if had, err := m.RemoveID(t.Context(), julietAddr(), all[6]); err != nil || had {
			t.Errorf("RemoveID again: %v, %v", had, err)
		}
		holds(t, m, julietAddr(), all[7:]...)
		checkpoint(t, m)
		holds(t, m, julietAddr(), all[7:]...)
		want(t, s, juliet, 8, 9, 10)
		want(t, s, nurse, 3)
		wantStored(t, s, 4)
		if err := m.Remove(t.Context(), julietAddr(), all...); err != nil {
			t.Fatal(err)
		}
		holds(t, m, julietAddr())
		checkpoint(t, m)
		want(t, s, juliet)
	})
}

// TestIdempotent replays what is there already, committed and not, and what was removed.
func TestIdempotent(t *testing.T) {
	each(t, func(t *testing.T, cfg offline.Config, s offline.Backend) {
		m := open(t, cfg, s)
		a, b, c := from(t, romeo, id(1), "a"), from(t, romeo, id(2), "b"), from(t, nurse, id(3), "c")
		for range 2 {
			for _, st := range []*stanza.Stanza{c, a, b, a} { // in any order
				mustPut(t, m, julietAddr(), st)
				if err := m.Force(t.Context(), julietAddr(), st); err != nil {
					t.Fatal(err)
				}
			}
			holds(t, m, julietAddr(), id(1), id(2), id(3))
			checkpoint(t, m)
			want(t, s, juliet, 1, 2, 3)
		}
		// Removed and put again, before and after the commit.
		for range 2 {
			if err := m.Remove(t.Context(), julietAddr(), id(2), id(2)); err != nil {
				t.Fatal(err)
			}
			holds(t, m, julietAddr(), id(1), id(3))
			mustPut(t, m, julietAddr(), b)
			holds(t, m, julietAddr(), id(1), id(2), id(3))
			if err := m.Remove(t.Context(), julietAddr(), id(2)); err != nil {
				t.Fatal(err)
			}
			mustPut(t, m, julietAddr(), b)
			mustPut(t, m, julietAddr(), b)
			holds(t, m, julietAddr(), id(1), id(2), id(3))
			checkpoint(t, m)
			holds(t, m, julietAddr(), id(1), id(2), id(3))
			want(t, s, juliet, 1, 2, 3)
			wantStored(t, s, 3)
		}
	})
}

// TestNeverWritten: what was removed before its transaction is not written at all.
func TestNeverWritten(t *testing.T) {
	cfg, s := lifted(), newMemory()
	cfg.Window = time.Hour
	m := open(t, cfg, s)
	for n := 1; n <= 100; n++ {
		mustPut(t, m, julietAddr(), from(t, romeo, id(n), "x"))
		if err := m.Remove(t.Context(), julietAddr(), id(n)); err != nil {
			t.Fatal(err)
		}
	}
	mustPut(t, m, julietAddr(), from(t, romeo, id(101), "x"))
	checkpoint(t, m)
	want(t, s, juliet, 101)
	if s.puts != 1 {
		t.Errorf("%d messages written, want 1", s.puts)
	}
}

func TestPurge(t *testing.T) {
	each(t, func(t *testing.T, cfg offline.Config, s offline.Backend) {
		m := open(t, cfg, s)
		mustPut(t, m, julietAddr(), from(t, romeo, id(1), "x"))
		checkpoint(t, m)
		mustPut(t, m, julietAddr(), from(t, romeo, id(2), "x"))
		if err := m.Purge(t.Context(), julietAddr()); err != nil {
			t.Fatal(err)
		}
		holds(t, m, julietAddr())
		// the account is made again at once
		mustPut(t, m, julietAddr(), from(t, romeo, id(3), "x"))
		mustPut(t, m, julietAddr(), from(t, romeo, id(1), "x"))
		holds(t, m, julietAddr(), id(1), id(3))
		checkpoint(t, m)
		holds(t, m, julietAddr(), id(1), id(3))
		want(t, s, juliet, 1, 3)
		wantStored(t, s, 2)
		if err := m.Purge(t.Context(), nurseAddr()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPageBounds(t *testing.T) {
	each(t, func(t *testing.T, cfg offline.Config, s offline.Backend) {
		m := open(t, cfg, s)
		var all []stanza.ID
		for n := 1; n <= 20; n++ {
			mustPut(t, m, julietAddr(), from(t, romeo, id(n), "0123456789"))
			all = append(all, id(n))
			if n%7 == 0 {
				checkpoint(t, m)
			}
		}
		one := len(from(t, romeo, id(1), "0123456789").Raw())
		for _, tt := range []struct{ limit, bytes, first int }{
			{0, 0, 20},
			{20, 0, 20},
			{21, 0, 20},
			{1, 0, 1},
			{7, 0, 7},
			{0, 1, 1},
			{0, one, 1},
			{0, 2*one + 1, 2},
			{3, 5 * one, 3},
			{5, 3 * one, 3},
		} {
			page, more, err := m.Page(t.Context(), julietAddr(), stanza.ID{}, tt.limit, tt.bytes)
			if err != nil || len(page) != tt.first || more != (tt.first < 20) {
				t.Errorf("limit %d, %d bytes: %d messages, more %v, %v", tt.limit, tt.bytes, len(page), more, err)
			}
			if got := ids(t, m, julietAddr(), tt.limit, tt.bytes); !slices.Equal(got, all) {
				t.Errorf("limit %d, %d bytes: %v", tt.limit, tt.bytes, got)
			}
		}
	})
}

func TestLimits(t *testing.T) {
	const text = "0123456789"
	one := int64(len(from(t, romeo, id(1), text).Raw()))
	each(t, func(t *testing.T, cfg offline.Config, s offline.Backend) {
		cfg.Limit, cfg.UserLimit, cfg.UserBytes = 3, 5, 0
		m := open(t, cfg, s)
		full := func(st *stanza.Stanza, why offline.Reason) {
			t.Helper()
			v, err := m.Put(t.Context(), julietAddr(), st)
			if !errors.Is(err, offline.ErrFull) || v != (offline.Verdict{Action: offline.Bounce, Reason: why}) {
				t.Errorf("%v for %v, %v, want a bounce for %v", v.Action, v.Reason, err, why)
			}
		}
		for n := 1; n <= 3; n++ {
			mustPut(t, m, julietAddr(), from(t, romeo, id(n), text))
		}
		full(from(t, romeo, id(4), text), offline.PairFull)
		mustPut(t, m, nurseAddr(), from(t, romeo, id(4), text)) // another pair
		mustPut(t, m, julietAddr(), from(t, nurse, id(5), text))
		mustPut(t, m, julietAddr(), from(t, nurse, id(6), text))
		full(from(t, "tybalt@example.net", id(7), text), offline.MessagesFull)
		checkpoint(t, m)
		full(from(t, romeo, id(8), text), offline.PairFull)
		mustPut(t, m, julietAddr(), from(t, romeo, id(2), text)) // there already, so not one more
		// room again, at once
		if err := m.Remove(t.Context(), julietAddr(), id(2)); err != nil {
			t.Fatal(err)
		}
		mustPut(t, m, julietAddr(), from(t, romeo, id(9), text))
		full(from(t, romeo, id(10), text), offline.PairFull)
		if err := m.Force(t.Context(), julietAddr(), from(t, romeo, id(11), text)); err != nil {
			t.Errorf("Force: %v", err)
		}
		holds(t, m, julietAddr(), id(1), id(3), id(5), id(6), id(9), id(11))

		// Counted again from the store.
		checkpoint(t, m)
		cfg.Limit, cfg.UserLimit, cfg.UserBytes = 0, 0, 7*one
		m = open(t, cfg, s)
		mustPut(t, m, julietAddr(), from(t, romeo, id(12), text))
		full(from(t, romeo, id(13), text), offline.BytesFull)
	})
}

// TestLimitExact: of many senders at once, none gets in above the limit and none is refused below it.
func TestLimitExact(t *testing.T) {
	const writers, each, limit = 32, 50, 37
	for _, shared := range []bool{true, false} {
		cfg := lifted()
		if shared {
			cfg.Limit = limit
		} else {
			cfg.UserLimit = limit
		}
		s := openSQLite(t, t.TempDir())
		m := open(t, cfg, s)
		mustPut(t, m, julietAddr(), from(t, romeo, stanza.NewID(), "first"))
		var stored, bounced atomic.Int64
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				sender := romeo
				if !shared {
					sender = fmt.Sprintf("u%d@example.net", w)
				}
				for range each {
					v, err := m.Put(context.Background(), julietAddr(), from(t, sender, stanza.NewID(), "x"))
					switch {
					case v.Action == offline.Store && err == nil:
						stored.Add(1)
					case v.Action == offline.Bounce && errors.Is(err, offline.ErrFull):
						bounced.Add(1)
					default:
						t.Errorf("%v, %v", v, err)
					}
				}
			})
		}
		wg.Wait()
		checkpoint(t, m)
		if stored.Load() != limit-1 || bounced.Load() != writers*each-limit+1 {
			t.Errorf("%d stored, %d bounced", stored.Load(), bounced.Load())
		}
		if n := len(ids(t, m, julietAddr(), 10, 0)); n != limit {
			t.Errorf("%d in the mailbox, want %d", n, limit)
		}
		wantStored(t, s, limit)
	}
}

func TestPutRefuses(t *testing.T) {
	m := open(t, lifted(), newMemory())
	st := from(t, romeo, id(1), "x")
	st.ID = stanza.ID{}
	if _, err := m.Put(t.Context(), julietAddr(), st); !errors.Is(err, offline.ErrNoID) {
		t.Errorf("message without an id: %v", err)
	}
	if v, err := m.Put(t.Context(), julietAddr(), typed(t, "chat", composing)); err != nil || v.Action != offline.Drop {
		t.Errorf("chat state: %v, %v", v, err)
	}
	holds(t, m, julietAddr())
}

// TestKnown: nobody without mail costs a query, until there are more recipients with mail than may be remembered.
func TestKnown(t *testing.T) {
	s := newMemory()
	for n := range 10 {
		apply(t, s, put(fmt.Sprintf("user%d@example.com", n), 1))
	}
	cfg := lifted()
	cfg.Known = 11
	m := open(t, cfg, s)
	holds(t, m, julietAddr())
	mustPut(t, m, julietAddr(), from(t, romeo, id(1), "x"))
	checkpoint(t, m)
	if s.scans != 0 {
		t.Errorf("%d queries for users who had no mail", s.scans)
	}
	holds(t, m, stanza.MustParseAddr("user3@example.com"), id(1))
	mustPut(t, m, nurseAddr(), from(t, romeo, id(1), "x")) // one too many
	before := s.scans
	holds(t, m, stanza.MustParseAddr("friar@example.com"))
	if s.scans == before {
		t.Error("the set of recipients is over its bound and was believed")
	}
	holds(t, m, julietAddr(), id(1))
	holds(t, m, nurseAddr(), id(1))
}

// TestCache: counters that were dropped from memory come back from the store.
func TestCache(t *testing.T) {
	cfg, s := lifted(), openSQLite(t, t.TempDir())
	cfg.Cache, cfg.Limit = 4, 3
	m := open(t, cfg, s)
	users := make([]stanza.Addr, 30)
	for u := range users {
		users[u] = stanza.MustParseAddr(fmt.Sprintf("user%d@example.com", u))
	}
	for n := 1; n <= 4; n++ {
		for _, user := range users {
			v, err := m.Put(t.Context(), user, from(t, romeo, id(n), "x"))
			if (v.Action == offline.Store) != (n <= 3) {
				t.Fatalf("message %d: %v, %v", n, v, err)
			}
		}
		checkpoint(t, m)
	}
	for _, user := range users {
		holds(t, m, user, id(1), id(2), id(3))
	}
}

func TestClose(t *testing.T) {
	s := newMemory()
	cfg := lifted()
	cfg.Window = time.Hour
	m := open(t, cfg, s)
	mustPut(t, m, julietAddr(), from(t, romeo, id(1), "x"))
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, s, juliet, 1)
	if _, err := m.Put(t.Context(), julietAddr(), from(t, romeo, id(2), "x")); !errors.Is(err, offline.ErrClosed) {
		t.Errorf("Put after Close: %v", err)
	}
	if err := m.Remove(t.Context(), julietAddr(), id(1)); !errors.Is(err, offline.ErrClosed) {
		t.Errorf("Remove after Close: %v", err)
	}
	if err := m.Checkpoint(t.Context()); err != nil {
		t.Errorf("Checkpoint after Close, with nothing to write: %v", err)
	}
}
