package offline_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/internal/testkit/postgresproc"
	"holdfast/offline"
	"holdfast/stanza"
)

type purgingBackend interface {
	offline.Backend
	offline.Purges
}

// TestPurges is the contract of what keeps requests to purge.
func TestPurges(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) purgingBackend{
		"memory":   func(*testing.T) purgingBackend { return newPurging() },
		"sqlite":   func(t *testing.T) purgingBackend { return openSQLite(t, t.TempDir()) },
		"postgres": func(t *testing.T) purgingBackend { return openPostgres(t, postgresproc.New(t)) },
	} {
		t.Run(name, func(t *testing.T) { testPurges(t, open(t)) })
	}
}

func testPurges(t *testing.T, s purgingBackend) {
	ask := func(user string, to stanza.ID) int64 {
		t.Helper()
		seq, err := s.AskPurge(t.Context(), user, to)
		if err != nil {
			t.Fatal(err)
		}
		return seq
	}
	pending := func(after int64, n int, want ...offline.Purge) {
		t.Helper()
		if got, err := s.PendingPurges(t.Context(), after, n); err != nil || !slices.Equal(got, want) {
			t.Errorf("pending after %d: %v, %v, want %v", after, got, err, want)
		}
	}
	outcome := func(seq int64, removed int, done bool) {
		t.Helper()
		if n, d, err := s.PurgeOutcome(t.Context(), seq); n != removed || d != done || err != nil {
			t.Errorf("request %d: %d, %v, %v, want %d, %v", seq, n, d, err, removed, done)
		}
	}
	purged := func(seq int64, n int, done bool) {
		t.Helper()
		if err := s.Purged(t.Context(), seq, n, done); err != nil {
			t.Fatal(err)
		}
	}
	pending(0, 10)
	one, two, three := ask(juliet, id(3)), ask(juliet, id(4)), ask(nurse, id(5))
	pending(0, 2, offline.Purge{Seq: one, User: juliet, To: id(3)}, offline.Purge{Seq: two, User: juliet, To: id(4)})
	pending(two, 2, offline.Purge{Seq: three, User: nurse, To: id(5)})
	outcome(one, 0, false)
	purged(one, 2, false)
	outcome(one, 2, false)
	purged(one, 3, true)
	outcome(one, 5, true)
	purged(one, 0, false) // by a node that is late: what is done stays so
	outcome(one, 5, true)
	pending(0, 10, offline.Purge{Seq: two, User: juliet, To: id(4)}, offline.Purge{Seq: three, User: nurse, To: id(5)})
	if err := s.PrunePurges(t.Context(), time.Now().Add(-time.Minute)); err != nil {
		t.Error(err)
	}
	outcome(one, 5, true)
	if err := s.PrunePurges(t.Context(), time.Now().Add(time.Minute)); err != nil {
		t.Error(err)
	}
	if _, _, err := s.PurgeOutcome(t.Context(), one); !errors.Is(err, offline.ErrNoPurge) {
		t.Errorf("outcome of a request that was pruned: %v", err)
	}
	outcome(two, 0, false)
}

// purging is the memory Backend with requests.
type purging struct {
	*memory
	all []purgeState
}

type purgeState struct {
	offline.Purge
	removed int
	done    bool
	at      time.Time
}

func newPurging() *purging { return &purging{memory: newMemory()} }

func (p *purging) AskPurge(_ context.Context, user string, to stanza.ID) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seq := int64(1)
	if n := len(p.all); n > 0 {
		seq = p.all[n-1].Seq + 1
	}
	p.all = append(p.all, purgeState{Purge: offline.Purge{Seq: seq, User: user, To: to}, at: time.Now()})
	return seq, nil
}

func (p *purging) PendingPurges(_ context.Context, after int64, n int) (all []offline.Purge, _ error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.all {
		if s.Seq > after && !s.done && len(all) < n {
			all = append(all, s.Purge)
		}
	}
	return all, nil
}

func (p *purging) Purged(_ context.Context, seq int64, removed int, done bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.all {
		if s := &p.all[i]; s.Seq == seq {
			s.removed += removed
			s.done = s.done || done
		}
	}
	return nil
}

func (p *purging) PurgeOutcome(_ context.Context, seq int64) (int, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.all {
		if s.Seq == seq {
			return s.removed, s.done, nil
		}
	}
	return 0, false, offline.ErrNoPurge
}

func (p *purging) PrunePurges(_ context.Context, before time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = slices.DeleteFunc(p.all, func(s purgeState) bool { return s.done && s.at.Before(before) })
	return nil
}

// TestRunPurges: requests are carried out by the one whose user it is, within seconds, to the message that they name, and
// are done when the store shows it; a purge that fails is tried again, and holds up no other.
func TestRunPurges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPurging()
		var mu sync.Mutex
		mine, failures := map[string]bool{juliet: true, nurse: false}, 2
		cfg := lifted()
		cfg.Mine = func(_ context.Context, user stanza.Addr) bool {
			mu.Lock()
			defer mu.Unlock()
			return mine[user.String()]
		}
		m := open(t, cfg, s)
		for n := 1; n <= 5; n++ {
			mustPut(t, m, julietAddr(), from(t, romeo, id(n), "x"))
			mustPut(t, m, nurseAddr(), from(t, romeo, id(n), "x"))
		}
		checkpoint(t, m)
		mustPut(t, m, julietAddr(), from(t, romeo, id(6), "x"))
		purge := func(ctx context.Context, user stanza.Addr, to stanza.ID) (removed int, err error) {
			mu.Lock()
			defer mu.Unlock()
			if user == julietAddr() && failures > 0 {
				failures--
				return 0, errors.New("a journal that fails")
			}
			for {
				ids, err := m.Upto(ctx, user, to, 2)
				if err != nil || len(ids) == 0 {
					return removed, err
				}
				removed += len(ids)
				if err := m.Discard(ctx, user, ids...); err != nil {
					return removed, err
				}
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			m.RunPurges(ctx, s, purge)
		}()
		one, _ := s.AskPurge(ctx, juliet, id(4))
		two, _ := s.AskPurge(ctx, nurse, id(5))
		nobody, _ := s.AskPurge(ctx, "not an address@", id(5))
		settle := func(seq int64, removed int, done bool) {
			t.Helper()
			if n, d, err := s.PurgeOutcome(ctx, seq); n != removed || d != done || err != nil {
				t.Errorf("request %d: %d, %v, %v, want %d, %v", seq, n, d, err, removed, done)
			}
		}
		time.Sleep(1500 * time.Millisecond)
		settle(one, 0, false)
		settle(two, 0, false) // another's
		settle(nobody, 0, true)
		time.Sleep(2 * time.Second)
		settle(one, 4, true)
		holds(t, m, julietAddr(), id(5), id(6))
		mu.Lock()
		mine[nurse] = true
		mu.Unlock()
		time.Sleep(2 * time.Second)
		settle(two, 5, true)
		holds(t, m, nurseAddr())
		wantStored(t, s, 2)
		stop()
		<-ended
	})
}

// TestUpto finds what the store has and what it does not have yet.
func TestUpto(t *testing.T) {
	each(t, func(t *testing.T, cfg offline.Config, s offline.Backend) {
		m := open(t, cfg, s)
		for n := 1; n <= 6; n++ {
			mustPut(t, m, julietAddr(), from(t, romeo, id(n), "x"))
		}
		checkpoint(t, m)
		for n := 7; n <= 9; n++ {
			mustPut(t, m, julietAddr(), from(t, romeo, id(n), "x"))
		}
		if err := m.Remove(t.Context(), julietAddr(), id(2), id(8)); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct{ to, most, want int }{
			{1, 9, 1}, {2, 9, 1}, {6, 9, 5}, {7, 9, 6}, {8, 9, 6}, {9, 9, 7}, {99, 9, 7}, {99, 3, 3}, {99, 1, 1},
		} {
			ids, err := m.Upto(t.Context(), julietAddr(), id(tt.to), tt.most)
			seen := map[stanza.ID]bool{}
			for _, i := range ids {
				seen[i] = true
				if i.Compare(id(tt.to)) > 0 || i == id(2) || i == id(8) {
					t.Errorf("up to %d: %v", tt.to, i)
				}
			}
			if err != nil || len(ids) != tt.want || len(seen) != len(ids) {
				t.Errorf("up to %d, at most %d: %v, %v, want %d", tt.to, tt.most, ids, err, tt.want)
			}
		}
	})
}

// TestPurgeBound: a request is about what the clock says, and about what is there already whatever the clock says.
func TestPurgeBound(t *testing.T) {
	s := openSQLite(t, t.TempDir())
	made := stanza.NewID()
	to, err := offline.PurgeBound(t.Context(), s, juliet)
	if err != nil || made.Compare(to) > 0 {
		t.Errorf("%v is not up to %v, %v", made, to, err)
	}
	time.Sleep(2 * time.Millisecond)
	if later := stanza.NewID(); later.Compare(to) <= 0 {
		t.Errorf("%v is up to %v", later, to)
	}
	ahead := put(juliet, 1)
	ahead.ID = stanza.ID{0: 0x7f, 6: 0x70, 8: 0x80}
	apply(t, s, ahead)
	if to, err = offline.PurgeBound(t.Context(), s, juliet); err != nil || to != ahead.ID {
		t.Errorf("bound %v, %v, want %v", to, err, ahead.ID)
	}
}
