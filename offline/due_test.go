package offline_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"holdfast/offline"
	"holdfast/stanza"
)

// expiring is a message with an id and seconds to live (XEP-0023).
func expiring(t testing.TB, id stanza.ID, seconds string) *stanza.Stanza {
	t.Helper()
	raw := fmt.Appendf(nil, "<message xmlns='jabber:client' from='%s/orchard' to='%s' type='chat' id='m1'><body>x</body>"+
		"<x xmlns='jabber:x:expire' seconds='%s'/></message>", romeo, juliet, seconds)
	st, err := stanza.Parse(raw, id)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

const (
	longAgo = "1"          // counted from the ids that id makes, which are of 1970
	century = "3150000000" // likewise
)

// nowID is an id of this moment, in virtual time too.
func nowID(n byte) stanza.ID {
	i := stanza.ID{6: 0x70, 8: 0x80, 15: n}
	for k, ms := 5, time.Now().UnixMilli(); k >= 0; k, ms = k-1, ms>>8 {
		i[k] = byte(ms)
	}
	return i
}

// out takes everything out that is due.
func out(m *offline.Mailbox) offline.Expired {
	return func(ctx context.Context, user stanza.Addr, due []offline.Message) (gone []stanza.ID, err error) {
		for _, msg := range due {
			gone = append(gone, msg.ID)
		}
		return gone, m.Remove(ctx, user, gone...)
	}
}

// testDue: a Backend finds what is due, in order and in parts.
func testDue(t *testing.T, s offline.Backend) {
	until := func(user string, n int, expires int64) offline.Change {
		c := put(user, n)
		c.Expires = expires
		return c
	}
	due := func(now int64, after offline.Due, n int, want ...offline.Due) {
		t.Helper()
		if got, err := s.Due(t.Context(), now, after, n); err != nil || !slices.Equal(got, want) {
			t.Errorf("due at %d: %v, %v, want %v", now, got, err, want)
		}
	}
	a, b := offline.Due{Expires: 10, User: juliet, ID: id(2)}, offline.Due{Expires: 10, User: nurse, ID: id(1)}
	c, d := offline.Due{Expires: 10, User: nurse, ID: id(3)}, offline.Due{Expires: 11, User: juliet, ID: id(1)}
	due(1e15, offline.Due{}, 10)
	apply(t, s, until(juliet, 1, 11), until(nurse, 1, 10), until(juliet, 2, 10), until(nurse, 3, 10), put(nurse, 2), until(juliet, 3, 1e13))
	due(9, offline.Due{}, 10)
	due(10, offline.Due{}, 10, a, b, c)
	due(11, offline.Due{}, 10, a, b, c, d)
	due(11, offline.Due{}, 2, a, b)
	due(11, b, 2, c, d)
	due(11, d, 2)
	// Of two puts the first counts, with the time that it had.
	apply(t, s, until(juliet, 2, 5), until(juliet, 4, 7), until(juliet, 4, 8))
	due(10, offline.Due{}, 1, offline.Due{Expires: 7, User: juliet, ID: id(4)})
	apply(t, s, remove(juliet, 2, 4), offline.Change{Op: offline.OpPurge, User: nurse})
	due(11, offline.Due{}, 10, d)
	err := s.Scan(t.Context(), juliet, offline.Range{Bodies: true}, func(r offline.Row) bool {
		if want := map[stanza.ID]int64{id(1): 11, id(3): 1e13}[r.ID]; r.Expires != want {
			t.Errorf("%v expires at %d, want %d", r.ID, r.Expires, want)
		}
		return true
	})
	if err != nil {
		t.Error(err)
	}
}

// TestExpireDue: what is over its own time is on no page, is counted until it is taken out, and is taken out.
func TestExpireDue(t *testing.T) {
	each(t, func(t *testing.T, cfg offline.Config, s offline.Backend) {
		ruled := id(5)
		cfg.ExpireAt = func(st *stanza.Stanza) (at time.Time) {
			if st.ID == ruled {
				at = time.Now().Add(-time.Second)
			}
			return at
		}
		reg := prometheus.NewRegistry()
		m, err := offline.New(t.Context(), cfg, s, slog.New(slog.DiscardHandler), reg)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = m.Close(context.Background()) }()
		for n, seconds := range map[int]string{2: longAgo, 3: century, 4: "0", 6: "99999999999999999999", 7: "never"} {
			if err := m.Force(t.Context(), julietAddr(), expiring(t, id(n), seconds)); err != nil {
				t.Fatal(err)
			}
		}
		mustPut(t, m, julietAddr(), from(t, romeo, id(1), "x"))
		raw := strings.Replace(string(from(t, romeo, ruled, "x").Raw()), "<body>", "<amp xmlns='http://jabber.org/protocol/amp'/><body>", 1)
		st, err := stanza.Parse([]byte(raw), ruled)
		if err != nil {
			t.Fatal(err)
		}
		mustPut(t, m, julietAddr(), st)
		// One of those that are not stored at all.
		if v, err := m.Put(t.Context(), julietAddr(), expiring(t, id(8), longAgo)); err != nil || v != (offline.Verdict{Action: offline.Drop, Reason: offline.Overdue}) {
			t.Errorf("expired before it came: %v for %v, %v", v.Action, v.Reason, err)
		}
		alive := []stanza.ID{id(1), id(3), id(6), id(7)}
		check := func(count int) {
			t.Helper()
			if got := ids(t, m, julietAddr(), 2, 0); !slices.Equal(got, alive) {
				t.Errorf("pages %v, want %v", got, alive)
			}
			if n, err := m.Count(t.Context(), julietAddr()); err != nil || n != count {
				t.Errorf("counts %d, %v, want %d", n, err, count)
			}
		}
		check(7)
		checkpoint(t, m)
		check(7)
		var seen []stanza.ID
		n, err := m.ExpireDue(t.Context(), func(ctx context.Context, user stanza.Addr, due []offline.Message) ([]stanza.ID, error) {
			for _, msg := range due {
				if len(msg.Raw) == 0 || !msg.At.Equal(msg.ID.Time()) {
					t.Errorf("%v at %v without content", msg.ID, msg.At)
				}
				seen = append(seen, msg.ID)
			}
			return out(m)(ctx, user, due)
		})
		slices.SortFunc(seen, stanza.ID.Compare)
		if n != 3 || err != nil || !slices.Equal(seen, []stanza.ID{id(2), id(4), id(5)}) {
			t.Errorf("%d expired, %v: %v", n, err, seen)
		}
		check(4)
		checkpoint(t, m)
		check(4)
		want(t, s, juliet, 1, 3, 6, 7)
		if n, err := m.ExpireDue(t.Context(), out(m)); n != 0 || err != nil {
			t.Errorf("again: %d, %v", n, err)
		}
		text := "# HELP holdfast_offline_expired_total Messages removed because their time was over: that of OFFLINE_LIFETIME (lifetime), of jabber:x:expire (seconds), or of a rule of XEP-0079 (expire_at).\n" +
			"# TYPE holdfast_offline_expired_total counter\nholdfast_offline_expired_total{reason=\"expire_at\"} 1\nholdfast_offline_expired_total{reason=\"lifetime\"} 0\nholdfast_offline_expired_total{reason=\"seconds\"} 2\n"
		if err := testutil.GatherAndCompare(reg, strings.NewReader(text), "holdfast_offline_expired_total"); err != nil {
			t.Error(err)
		}
	})
}

// TestExpiredIsNoRun: what is passed over on a page is not removed with what was handed out on both sides of it.
func TestExpiredIsNoRun(t *testing.T) {
	each(t, func(t *testing.T, cfg offline.Config, s offline.Backend) {
		m := open(t, cfg, s)
		for n := 1; n <= 6; n++ {
			seconds := century
			if n == 3 {
				seconds = longAgo
			}
			if err := m.Force(t.Context(), julietAddr(), expiring(t, id(n), seconds)); err != nil {
				t.Fatal(err)
			}
		}
		checkpoint(t, m)
		got := ids(t, m, julietAddr(), 2, 0)
		if err := m.Remove(t.Context(), julietAddr(), got...); err != nil {
			t.Fatal(err)
		}
		if n, err := m.Count(t.Context(), julietAddr()); n != 1 || err != nil {
			t.Errorf("counts %d, %v", n, err)
		}
		checkpoint(t, m)
		want(t, s, juliet, 3)
		if n, err := m.ExpireDue(t.Context(), out(m)); n != 1 || err != nil {
			t.Errorf("%d expired, %v", n, err)
		}
		holds(t, m, julietAddr())
	})
}

// TestExpiryInTime: nobody is given a message from the moment in which it expires, and it is gone some seconds later.
func TestExpiryInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		cfg := lifted()
		m, err := offline.New(t.Context(), cfg, s, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			m.RunExpiry(ctx, out(m))
			close(ended)
		}()
		there := nowID(1)
		mustPut(t, m, julietAddr(), expiring(t, there, "61"))
		mustPut(t, m, julietAddr(), from(t, romeo, nowID(2), "x"))
		left := time.Until(there.Time().Add(61 * time.Second))
		time.Sleep(left - 2*time.Millisecond)
		page, _, err := m.Page(t.Context(), julietAddr(), stanza.ID{}, 0, 0)
		if err != nil || len(page) != 2 {
			t.Fatalf("%d messages before, %v", len(page), err)
		}
		// It goes to its recipient with the time that it has left.
		st, err := page[0].Stanza(julietAddr())
		if err != nil {
			t.Fatal(err)
		}
		if x, ok := st.Find(stanza.NSExpire, "x"); !ok || x.Attr("seconds") != "1" || strings.Count(string(st.Raw()), "jabber:x:expire") != 1 || !st.DelayedBy(julietAddr().Server()) {
			t.Errorf("delivered as %s", st.Raw())
		}
		time.Sleep(2 * time.Millisecond)
		if page, _, err := m.Page(t.Context(), julietAddr(), stanza.ID{}, 0, 0); err != nil || len(page) != 1 {
			t.Errorf("%d messages at that moment, %v", len(page), err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n, err := m.Count(t.Context(), julietAddr()); n != 1 || err != nil {
			t.Errorf("%d messages two seconds later, %v", n, err)
		}
		cancel()
		<-ended
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestExpireDueBatches: many messages are taken out in parts of bounded size; those of others are left to them, and an
// error with one user concerns no other.
func TestExpireDueBatches(t *testing.T) {
	s := newMemory()
	const broken, others = "broken@example.com", "others@example.com"
	raw := []byte("<message xmlns='jabber:client'><body>" + strings.Repeat("x", 3000) + "</body></message>")
	var all []offline.Change
	for n := 1; n <= 1200; n++ {
		for i, user := range []string{broken, juliet, others} {
			c := put(user, n)
			c.Raw, c.Expires = raw, int64(1+(n+i)%7)
			all = append(all, c)
		}
	}
	apply(t, s, all...)
	cfg := lifted()
	cfg.Shared = true
	cfg.Mine = func(_ context.Context, user stanza.Addr) bool { return user.String() != others }
	m := open(t, cfg, s)
	failure := errors.New("no")
	most := 0
	n, err := m.ExpireDue(t.Context(), func(ctx context.Context, user stanza.Addr, due []offline.Message) ([]stanza.ID, error) {
		size := 0
		for _, msg := range due {
			size += len(msg.Raw)
		}
		most = max(most, size)
		switch user.String() {
		case broken:
			return nil, failure
		case juliet:
			return out(m)(ctx, user, due)
		}
		t.Errorf("messages of %v", user)
		return nil, nil
	})
	if n != 1200 || !errors.Is(err, failure) {
		t.Errorf("%d expired, %v", n, err)
	}
	if most > 256<<10+len(raw) {
		t.Errorf("%d bytes at once", most)
	}
	holds(t, m, julietAddr())
	for user, want := range map[string]int{broken: 1200, others: 1200} {
		if got, err := s.Totals(t.Context(), user); err != nil || got.Messages != want {
			t.Errorf("%s has %d, %v", user, got.Messages, err)
		}
	}
}

// TestLifetimeOnPages: what is over the operator's lifetime is not given to anybody, whenever it is removed.
func TestLifetimeOnPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := lifted()
		cfg.Lifetime = 10 * 24 * time.Hour
		m, err := offline.New(t.Context(), cfg, newMemory(), slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		old := nowID(1)
		mustPut(t, m, julietAddr(), from(t, romeo, old, "x"))
		time.Sleep(2 * time.Minute)
		young := nowID(2)
		mustPut(t, m, julietAddr(), from(t, romeo, young, "x"))
		time.Sleep(cfg.Lifetime - time.Minute)
		if got := ids(t, m, julietAddr(), 1, 0); !slices.Equal(got, []stanza.ID{young}) {
			t.Errorf("pages %v, want %v alone", got, young)
		}
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
