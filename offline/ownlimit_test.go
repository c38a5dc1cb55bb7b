package offline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/internal/testkit/postgresproc"
	"holdfast/offline"
	"holdfast/stanza"
)

func chosen(n int) offline.OwnLimit { return offline.OwnLimit{Chosen: true, Messages: n} }

var lift = offline.OwnLimit{Chosen: true, Lifted: true}

// testLimit: a Backend keeps what users choose, beside messages and without any.
func testLimit(t *testing.T, s offline.Backend) {
	choice := func(user string, want offline.OwnLimit) {
		t.Helper()
		if got, err := s.Totals(t.Context(), user); err != nil || got.Own != want {
			t.Errorf("%s chose %+v, %v, want %+v", user, got.Own, err, want)
		}
	}
	choosers := func(after string, n int, want ...string) {
		t.Helper()
		if got, err := s.Choosers(t.Context(), after, n); err != nil || !slices.Equal(got, want) {
			t.Errorf("up to %d choosers after %q: %v, %v, want %v", n, after, got, err, want)
		}
	}
	set := func(user string, l offline.OwnLimit) offline.Change {
		return offline.Change{Op: offline.OpLimit, User: user, Limit: l}
	}
	choice(juliet, offline.OwnLimit{})
	choosers("", 10)
	apply(t, s, set(juliet, chosen(7)), put(juliet, 1), set(nurse, chosen(1)), set(nurse, lift))
	choice(juliet, chosen(7))
	choice(nurse, lift)
	choosers("", 10, juliet, nurse)
	choosers("", 1, juliet)
	choosers(juliet, 10, nurse)
	want(t, s, juliet, 1)
	want(t, s, nurse)
	// The last one counts, again and again, and a purge is about messages.
	apply(t, s, set(juliet, offline.OwnLimit{}), offline.Change{Op: offline.OpPurge, User: juliet}, set(juliet, chosen(0)))
	choice(juliet, chosen(0))
	apply(t, s, set(juliet, chosen(3)), offline.Change{Op: offline.OpPurge, User: juliet})
	choice(juliet, chosen(3))
	for range 2 {
		apply(t, s, set(juliet, chosen(4)), set(juliet, offline.OwnLimit{}))
		choice(juliet, offline.OwnLimit{})
		choosers("", 10, nurse)
	}
	wantStored(t, s, 0)
}

// TestOwnLimit: what a user chose counts in place of OFFLINE_LIMIT, at once and after it was read from the store.
func TestOwnLimit(t *testing.T) {
	each(t, func(t *testing.T, cfg offline.Config, s offline.Backend) {
		cfg.Limit, cfg.OwnLimit = 3, true
		m := open(t, cfg, s)
		n := 0
		// fits puts messages until one is refused, and takes them out again.
		fits := func(want int, why offline.Reason) {
			t.Helper()
			var in []stanza.ID
			for {
				n++
				v, err := m.Put(t.Context(), julietAddr(), from(t, romeo, id(n), "x"))
				if err == nil {
					in = append(in, id(n))
				}
				if err != nil || len(in) > 20 {
					if len(in) != want || v.Reason != why {
						t.Errorf("%d messages fit and the next has %v, want %d and %v", len(in), v.Reason, want, why)
					}
					break
				}
			}
			if err := m.Remove(t.Context(), julietAddr(), in...); err != nil {
				t.Error(err)
			}
		}
		choose := func(l offline.OwnLimit) {
			t.Helper()
			if err := m.Choose(t.Context(), julietAddr(), l); err != nil {
				t.Error(err)
			}
			got, limited, err := m.PairLimit(t.Context(), julietAddr())
			if err != nil || limited == l.Lifted || limited && got != l.Messages {
				t.Errorf("limit %d %v, %v, want %+v", got, limited, err, l)
			}
		}
		fits(3, offline.PairFull)
		choose(chosen(5))
		fits(5, offline.PairFull)
		choose(chosen(0))
		fits(0, offline.Declined)
		choose(lift)
		fits(21, offline.HasBody)
		choose(chosen(1))
		mustPut(t, m, nurseAddr(), from(t, romeo, id(n+1), "x")) // somebody else's limit is what it was
		mustPut(t, m, nurseAddr(), from(t, romeo, id(n+2), "x"))
		for range 2 {
			if err := m.Release(t.Context(), julietAddr()); err != nil {
				t.Error(err)
			}
			fits(1, offline.PairFull)
		}
		// It is committed when Choose returns: another process finds it.
		checkpoint(t, m)
		choose(chosen(2))
		m = open(t, cfg, s)
		fits(2, offline.PairFull)
		choose(chosen(4))
		if err := m.Forget(t.Context(), julietAddr()); err != nil {
			t.Error(err)
		}
		fits(3, offline.PairFull)
		checkpoint(t, m)
		m = open(t, cfg, s)
		fits(3, offline.PairFull)
	})
}

// TestOwnLimitKeepsWhatIsThere: messages that are stored already stay, and a limit that was lifted comes back.
func TestOwnLimitKeepsWhatIsThere(t *testing.T) {
	cfg := lifted()
	cfg.OwnLimit, cfg.UserLimit = true, 4
	m := open(t, cfg, newMemory())
	for n := 1; n <= 3; n++ {
		mustPut(t, m, julietAddr(), from(t, romeo, id(n), "x"))
	}
	if err := m.Choose(t.Context(), julietAddr(), chosen(1)); err != nil {
		t.Fatal(err)
	}
	holds(t, m, julietAddr(), id(1), id(2), id(3))
	if _, err := m.Put(t.Context(), julietAddr(), from(t, romeo, id(4), "x")); !errors.Is(err, offline.ErrFull) {
		t.Errorf("over the limit: %v", err)
	}
	mustPut(t, m, julietAddr(), from(t, romeo, id(3), "x")) // there already
	mustPut(t, m, julietAddr(), from(t, nurse, id(5), "x"))
	// The limits for all senders together stay the operator's.
	if err := m.Choose(t.Context(), julietAddr(), lift); err != nil {
		t.Fatal(err)
	}
	v, err := m.Put(t.Context(), julietAddr(), from(t, romeo, id(6), "x"))
	if !errors.Is(err, offline.ErrFull) || v.Reason != offline.MessagesFull {
		t.Errorf("%v for %v, %v", v.Action, v.Reason, err)
	}
}

// TestOwnLimitAllowed: what the operator does not want is refused, also when it was chosen before.
func TestOwnLimitAllowed(t *testing.T) {
	s := newMemory()
	for _, tt := range []struct {
		allowed   bool
		most      int
		l         offline.OwnLimit
		condition mstanza.Condition // "" when it is allowed
		n         int               // what counts then, -1 for no limit
	}{
		{true, 0, chosen(50), "", 50},
		{false, 0, chosen(5), mstanza.NotAllowed, 10},
		{true, 30, chosen(31), mstanza.NotAcceptable, 30}, // 50 was chosen
		{true, 30, chosen(30), "", 30},
		{true, 30, lift, mstanza.NotAcceptable, 30},
		{true, 30, chosen(0), "", 0},
		{true, 0, chosen(-1), mstanza.BadRequest, 0},
		{true, 0, chosen(1_000_000_001), mstanza.NotAcceptable, 0},
		{true, 0, lift, "", -1},
		{true, 30, lift, mstanza.NotAcceptable, 30},
	} {
		cfg := lifted()
		cfg.Limit, cfg.OwnLimit, cfg.OwnLimitMax = 10, tt.allowed, tt.most
		m := open(t, cfg, s)
		err := m.Choose(t.Context(), julietAddr(), tt.l)
		var told mstanza.Error
		if (err == nil) != (tt.condition == "") || err != nil && (!errors.As(err, &told) || told.Condition != tt.condition) {
			t.Errorf("%+v: %v", tt, err)
		}
		n, isLimited, err := m.PairLimit(t.Context(), julietAddr())
		if err != nil || isLimited != (tt.n >= 0) || isLimited && n != tt.n {
			t.Errorf("%+v: limit %d %v, %v", tt, n, isLimited, err)
		}
		if m.MayChoose() != tt.allowed {
			t.Errorf("%+v: may choose: %v", tt, m.MayChoose())
		}
	}
}

// TestOwnLimitExact: while the user chooses and the home moves, of many writers none gets in above the limit that holds,
// and none is refused below it.
func TestOwnLimitExact(t *testing.T) {
	const writers, puts, first, last = 32, 20, 10, 100
	url := postgresproc.New(t)
	cfg := lifted()
	cfg.Limit, cfg.OwnLimit, cfg.Shared = 1000, true, true
	nodes := []*offline.Mailbox{open(t, cfg, openPostgres(t, url)), open(t, cfg, openPostgres(t, url))}
	if err := nodes[0].Choose(t.Context(), julietAddr(), chosen(first)); err != nil {
		t.Fatal(err)
	}
	var home sync.RWMutex // as the user's lock does it
	at := 0
	var stored atomic.Int64
	run := func() {
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				for range puts {
					home.RLock()
					v, err := nodes[at].Put(context.Background(), julietAddr(), from(t, romeo, stanza.NewID(), "x"))
					home.RUnlock()
					switch {
					case v.Action == offline.Store && err == nil:
						stored.Add(1)
					case !errors.Is(err, offline.ErrFull) || v.Reason != offline.PairFull:
						t.Errorf("%v for %v, %v", v.Action, v.Reason, err)
					}
				}
			})
		}
		for range 3 {
			home.Lock()
			if err := nodes[at].Release(t.Context(), julietAddr()); err != nil {
				t.Error(err)
			}
			at = 1 - at
			home.Unlock()
		}
		wg.Wait()
	}
	run()
	if n := stored.Load(); n != first {
		t.Errorf("%d stored, want %d", n, first)
	}
	if err := nodes[at].Choose(t.Context(), julietAddr(), chosen(last)); err != nil {
		t.Fatal(err)
	}
	run()
	if n := stored.Load(); n != last {
		t.Errorf("%d stored, want %d", n, last)
	}
	if n := len(ids(t, nodes[at], julietAddr(), 50, 0)); n != last {
		t.Errorf("%d in the mailbox", n)
	}
}

// TestOwnLimitQueries: a choice costs who has chosen nothing no query, and is remembered within the bound of OFFLINE_KNOWN.
func TestOwnLimitQueries(t *testing.T) {
	s := newMemory()
	cfg := lifted()
	cfg.OwnLimit, cfg.Known = true, 2
	m := open(t, cfg, s)
	for n := range 3 {
		if err := m.Choose(t.Context(), stanza.MustParseAddr(fmt.Sprintf("u%d@example.com", n)), chosen(0)); err != nil {
			t.Fatal(err)
		}
	}
	before := s.scans
	m = open(t, cfg, s)
	v, err := m.Put(t.Context(), stanza.MustParseAddr("u2@example.com"), from(t, romeo, id(1), "x"))
	if !errors.Is(err, offline.ErrFull) || v.Reason != offline.Declined {
		t.Errorf("%v for %v, %v", v.Action, v.Reason, err)
	}
	if s.scans != before+1 {
		t.Errorf("%d queries", s.scans-before)
	}
	if err := m.Forget(t.Context(), stanza.MustParseAddr("u1@example.com")); err != nil {
		t.Fatal(err)
	}
	before = s.scans
	m = open(t, cfg, s) // two of them fit
	mustPut(t, m, julietAddr(), from(t, romeo, id(1), "x"))
	if s.scans != before {
		t.Errorf("%d queries for a user without mail and choice", s.scans-before)
	}
}
