package offline_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"testing"

	"holdfast/internal/sqlx/sqlxtest"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/offline"
	"holdfast/stanza"
)

// TestBackend is the contract that every Backend holds.
func TestBackend(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) offline.Backend{
		"memory":   func(*testing.T) offline.Backend { return newMemory() },
		"sqlite":   func(t *testing.T) offline.Backend { return openSQLite(t, t.TempDir()) },
		"postgres": func(t *testing.T) offline.Backend { return openPostgres(t, postgresproc.New(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			for name, test := range map[string]func(*testing.T, offline.Backend){
				"Apply": testApply, "ApplyInOrder": testApplyInOrder, "ApplyAtomic": testApplyAtomic,
				"Due": testDue, "Limit": testLimit, "Marks": testMarks, "Scan": testScan, "Totals": testTotals, "Users": testUsers,
			} {
				t.Run(name, func(t *testing.T) { test(t, open(t)) })
			}
		})
	}
}

func openSQLite(t testing.TB, dir string) *offline.SQLite {
	t.Helper()
	s, err := offline.OpenSQLite(t.Context(), sqlxtest.OpenDir(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openPostgres(t testing.TB, url string) *offline.Postgres {
	t.Helper()
	s, err := offline.OpenPostgres(t.Context(), sqlxtest.OpenPostgres(t, url))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const (
	juliet = "juliet@example.com"
	nurse  = "nurse@example.com"
	romeo  = "romeo@example.net"
)

// id makes ids that sort by n.
func id(n int) stanza.ID {
	i := stanza.ID{6: 0x70, 8: 0x80}
	i[2], i[3], i[4], i[5] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	i[15] = byte(n)
	return i
}

func put(user string, n int) offline.Change {
	return offline.Change{Op: offline.OpPut, User: user, ID: id(n), Sender: romeo, Raw: fmt.Appendf(nil, "<m n='%d'/>", n)}
}

func remove(user string, ns ...int) offline.Change {
	c := offline.Change{Op: offline.OpRemove, User: user}
	for _, n := range ns {
		c.IDs = append(c.IDs, id(n))
	}
	return c
}

func apply(t *testing.T, s offline.Backend, batch ...offline.Change) {
	t.Helper()
	if err := s.Tx(t.Context(), func(tx *sql.Tx) error { return s.Apply(t.Context(), tx, batch) }); err != nil {
		t.Fatal(err)
	}
}

// want checks everything that the Backend says of user.
func want(t *testing.T, s offline.Backend, user string, ns ...int) {
	t.Helper()
	got := []stanza.ID{}
	bytes := int64(0)
	err := s.Scan(t.Context(), user, offline.Range{Bodies: true}, func(r offline.Row) bool {
		if len(r.Raw) != r.Bytes || r.Sender == "" {
			t.Errorf("row %v: %d bytes, says %d, from %q", r.ID, len(r.Raw), r.Bytes, r.Sender)
		}
		bytes += int64(r.Bytes)
		got = append(got, r.ID)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	expect := []stanza.ID{}
	for _, n := range ns {
		expect = append(expect, id(n))
	}
	if !slices.Equal(got, expect) {
		t.Errorf("%s has %v, want %v", user, got, expect)
	}
	totals, err := s.Totals(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	if totals.Messages != len(ns) || totals.Bytes != bytes || len(ns) > 0 && totals.Last != expect[len(ns)-1] {
		t.Errorf("%s totals %+v, want %d messages and %d bytes", user, totals, len(ns), bytes)
	}
}

func wantStored(t *testing.T, s offline.Backend, n int64) {
	t.Helper()
	if got, err := s.Stored(t.Context()); err != nil || got != n {
		t.Errorf("Stored: %d, %v, want %d", got, err, n)
	}
}

// wantRaw checks what is stored of one message.
func wantRaw(t *testing.T, s offline.Backend, user string, n int, raw string) {
	t.Helper()
	var got []string
	in := offline.Range{After: id(n - 1), To: id(n), Bodies: true}
	err := s.Scan(t.Context(), user, in, func(r offline.Row) bool {
		got = append(got, string(r.Raw))
		return true
	})
	if err != nil || len(got) != 1 || got[0] != raw {
		t.Errorf("message %d of %s is %q, %v, want %q", n, user, got, err, raw)
	}
}

func testApply(t *testing.T, s offline.Backend) {
	want(t, s, juliet)
	wantStored(t, s, 0)
	apply(t, s, put(juliet, 2), put(juliet, 1), put(nurse, 1))
	want(t, s, juliet, 1, 2)
	want(t, s, nurse, 1)
	wantStored(t, s, 3)
	// Everything may come again. Of two puts of a message the first counts, in one batch as in two.
	again := put(juliet, 3)
	again.Raw = []byte("<another/>")
	apply(t, s, put(juliet, 3), again)
	apply(t, s, again)
	apply(t, s, remove(juliet, 3), put(juliet, 3), again)
	wantRaw(t, s, juliet, 3, string(put(juliet, 3).Raw))
	apply(t, s, remove(juliet, 3), again)
	wantRaw(t, s, juliet, 3, "<another/>")
	apply(t, s, remove(juliet, 3))
	apply(t, s, put(juliet, 2), put(juliet, 3), put(juliet, 3))
	want(t, s, juliet, 1, 2, 3)
	wantStored(t, s, 4)
	apply(t, s, remove(juliet, 2, 2, 9), remove(juliet, 2))
	want(t, s, juliet, 1, 3)
	want(t, s, nurse, 1)
	wantStored(t, s, 3)
	run := remove(nurse, 1, 2, 4)
	run.Run = true
	apply(t, s, put(nurse, 2), put(nurse, 4), put(nurse, 5), run, run, put(nurse, 1))
	want(t, s, nurse, 1, 5)
	wantStored(t, s, 4)
	apply(t, s, remove(nurse, 5))
	purge := offline.Change{Op: offline.OpPurge, User: juliet}
	apply(t, s, purge, purge)
	want(t, s, juliet)
	want(t, s, nurse, 1)
	wantStored(t, s, 1)
}

func testApplyInOrder(t *testing.T, s offline.Backend) {
	apply(t, s, put(juliet, 1), remove(juliet, 1), put(juliet, 2))
	want(t, s, juliet, 2)
	apply(t, s, remove(juliet, 2), put(juliet, 2))
	want(t, s, juliet, 2)
	apply(t, s, put(juliet, 3), offline.Change{Op: offline.OpPurge, User: juliet}, put(juliet, 4))
	want(t, s, juliet, 4)
	wantStored(t, s, 1)
}

func testApplyAtomic(t *testing.T, s offline.Backend) {
	apply(t, s, put(juliet, 1))
	failure := errors.New("power cut")
	err := s.Tx(t.Context(), func(tx *sql.Tx) error {
		batch := []offline.Change{put(juliet, 2), remove(juliet, 1), put(nurse, 1)}
		if err := s.Apply(t.Context(), tx, batch); err != nil {
			return err
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("Tx: %v", err)
	}
	want(t, s, juliet, 1)
	want(t, s, nurse)
	wantStored(t, s, 1)
}

func testScan(t *testing.T, s offline.Backend) {
	for n := range 10 {
		apply(t, s, put(juliet, n+1), put(nurse, n+1))
	}
	for _, tt := range []struct {
		in    offline.Range
		limit int
		want  []int
	}{
		{offline.Range{}, 3, []int{1, 2, 3}},
		{offline.Range{After: id(8)}, 9, []int{9, 10}},
		{offline.Range{After: id(2), To: id(4)}, 9, []int{3, 4}},
		{offline.Range{After: id(2), To: id(9)}, 1, []int{3}},
		{offline.Range{To: id(2)}, 9, []int{1, 2}},
		{offline.Range{After: id(10)}, 9, nil},
		{offline.Range{After: id(5), To: id(5)}, 9, nil},
	} {
		for _, tt.in.Bodies = range []bool{false, true} {
			var got []int
			err := s.Scan(t.Context(), juliet, tt.in, func(r offline.Row) bool {
				if (r.Raw != nil) != tt.in.Bodies || r.Bytes == 0 {
					t.Errorf("%+v: row %+v", tt.in, r)
				}
				got = append(got, int(r.ID[15]))
				return len(got) < tt.limit
			})
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("%+v: %v, %v, want %v", tt.in, got, err, tt.want)
			}
		}
	}
	// More than a store reads in one go, in whatever steps.
	var many []offline.Change
	for n := range 1500 {
		many = append(many, put(romeo, n+1))
	}
	apply(t, s, many...)
	n := 0
	err := s.Scan(t.Context(), romeo, offline.Range{Bodies: true}, func(r offline.Row) bool {
		if n++; r.ID != id(n) {
			t.Fatalf("row %d is %v", n, r.ID)
		}
		return n < 1400
	})
	if err != nil || n != 1400 {
		t.Errorf("%d rows of a long mailbox: %v", n, err)
	}
	// A large message, on overflow pages where a store has such.
	big := put(juliet, 99)
	big.Raw = make([]byte, 1<<20)
	apply(t, s, big)
	err = s.Scan(t.Context(), juliet, offline.Range{After: id(10), Bodies: true}, func(r offline.Row) bool {
		if r.Bytes != 1<<20 || len(r.Raw) != 1<<20 {
			t.Errorf("large message came back with %d bytes", len(r.Raw))
		}
		return true
	})
	if err != nil {
		t.Error(err)
	}
	// A scan that nobody waits for is not begun.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok := s.(*memory); !ok {
		if err := s.Scan(ctx, juliet, offline.Range{}, func(offline.Row) bool { return true }); !errors.Is(err, context.Canceled) {
			t.Errorf("Scan of a cancelled context: %v", err)
		}
	}
}

func testTotals(t *testing.T, s offline.Backend) {
	other := put(juliet, 7)
	other.Sender = nurse
	apply(t, s, put(juliet, 8), put(juliet, 6), other, put(nurse, 9))
	got, err := s.Totals(t.Context(), juliet)
	if err != nil {
		t.Fatal(err)
	}
	if got.Messages != 3 || got.Senders[romeo] != 2 || got.Senders[nurse] != 1 || len(got.Senders) != 2 || got.Last != id(8) {
		t.Errorf("%+v", got)
	}
}

func testUsers(t *testing.T, s offline.Backend) {
	var all []string
	for n := range 25 {
		// In the order of bytes '-' comes before the digits, elsewhere it may count for nothing.
		user := fmt.Sprintf("user-%02d@example.com", n)
		if n >= 12 {
			user = fmt.Sprintf("user%02d@example.com", n)
		}
		all = append(all, user)
		apply(t, s, put(user, 1), put(user, 2))
	}
	var got []string
	for after := ""; ; {
		page, err := s.Users(t.Context(), after, 10)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page...)
		if len(page) < 10 {
			break
		}
		after = page[len(page)-1]
	}
	if !slices.Equal(got, all) {
		t.Errorf("users %v", got)
	}
	apply(t, s, remove(all[3], 1, 2))
	page, err := s.Users(t.Context(), all[2], 1)
	if err != nil || len(page) != 1 || page[0] != all[4] {
		t.Errorf("after one was emptied: %v, %v", page, err)
	}
}
