package offline_test

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"holdfast/internal/testkit/postgresproc"
	"holdfast/offline"
	"holdfast/stanza"
)

// TestInFlight changes messages while the transaction that writes them is neither here nor there.
func TestInFlight(t *testing.T) {
	remove := func(n int) func(*testing.T, *offline.Mailbox) {
		return func(t *testing.T, m *offline.Mailbox) {
			if err := m.Remove(t.Context(), julietAddr(), id(n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	put := func(n int) func(*testing.T, *offline.Mailbox) {
		return func(t *testing.T, m *offline.Mailbox) { mustPut(t, m, julietAddr(), from(t, romeo, id(n), "x")) }
	}
	purge := func(t *testing.T, m *offline.Mailbox) {
		if err := m.Purge(t.Context(), julietAddr()); err != nil {
			t.Fatal(err)
		}
	}
	type step = func(*testing.T, *offline.Mailbox)
	for _, tt := range []struct {
		name   string
		flying step   // in flight while the others come
		then   []step // queued behind it
		next   []step // queued while those are in flight
		want   []int
	}{
		{"put, removed", put(1), []step{remove(1)}, nil, nil},
		{"put, removed, put", put(1), []step{remove(1), put(1)}, nil, []int{1}},
		{"put, removed, put, removed", put(1), []step{remove(1), put(1), remove(1)}, nil, nil},
		{"put, removed, put, then removed", put(1), []step{remove(1), put(1)}, []step{remove(1)}, nil},
		{"put, removed, put, then removed and put", put(1), []step{remove(1), put(1)}, []step{remove(1), put(1)}, []int{1}},
		{"put, removed, then put", put(1), []step{remove(1)}, []step{put(1)}, []int{1}},
		{"put, purged", put(1), []step{purge}, nil, nil},
		{"put, purged, put", put(1), []step{purge, put(1)}, nil, []int{1}},
		{"put, purged, put, then removed", put(1), []step{purge, put(1), put(2)}, []step{remove(1)}, []int{2}},
		{"put, purged, then put", put(1), []step{purge}, []step{put(1), put(2)}, []int{1, 2}},
		{"put, purged, purged", put(1), []step{purge, put(2), purge}, []step{put(3)}, []int{3}},
		{"put, earlier one put", put(2), []step{put(1)}, []step{remove(2)}, []int{1}},
		{"removed, put", remove(9), []step{put(9)}, []step{remove(9)}, nil},
		{"removed, put again", remove(9), []step{put(9)}, nil, []int{9}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newMemory()
				m, err := offline.New(t.Context(), lifted(), s, slog.New(slog.DiscardHandler), nil)
				if err != nil {
					t.Fatal(err)
				}
				mustPut(t, m, julietAddr(), from(t, romeo, id(9), "x"))
				checkpoint(t, m)
				if tt.name[:3] == "put" {
					remove(9)(t, m)
					checkpoint(t, m)
				}
				if !strings.Contains(tt.name, "purged") { // so that the store is asked
					mustPut(t, m, julietAddr(), from(t, romeo, id(20), "x"))
					checkpoint(t, m)
					tt.want = append(tt.want, 20)
				}
				expect := []stanza.ID{}
				for _, n := range tt.want {
					expect = append(expect, id(n))
				}
				s.hold()
				tt.flying(t, m)
				synctest.Wait()
				for _, do := range tt.then {
					do(t, m)
				}
				if tt.next == nil {
					holds(t, m, julietAddr(), expect...)
				}
				release := func() { // this transaction, and hold the next
					held := s.held
					s.held = make(chan struct{})
					close(held)
					synctest.Wait()
				}
				release()
				if tt.next == nil {
					holds(t, m, julietAddr(), expect...)
				}
				for _, do := range tt.next {
					do(t, m)
				}
				holds(t, m, julietAddr(), expect...)
				release()
				holds(t, m, julietAddr(), expect...)
				s.letGo()
				synctest.Wait()
				holds(t, m, julietAddr(), expect...)
				checkpoint(t, m)
				want(t, s, juliet, tt.want...)
				if err := m.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// TestRun: messages are removed as a range only when there is nothing else between them.
func TestRun(t *testing.T) {
	all := []stanza.ID{id(1), id(2), id(3), id(4), id(5)}
	page := func(t *testing.T, m *offline.Mailbox, after stanza.ID, limit int) {
		t.Helper()
		if _, _, err := m.Page(t.Context(), julietAddr(), after, limit, 0); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		without int // not put at first
		do      func(*testing.T, *offline.Mailbox)
	}{
		"paged at once, put between": {3, func(t *testing.T, m *offline.Mailbox) {
			page(t, m, stanza.ID{}, 0)
			mustPut(t, m, julietAddr(), from(t, romeo, id(3), "late"))
		}},
		"paged in two, put between": {3, func(t *testing.T, m *offline.Mailbox) {
			page(t, m, stanza.ID{}, 2)
			mustPut(t, m, julietAddr(), from(t, romeo, id(3), "late"))
			page(t, m, id(3), 2)
		}},
		"one passed over": {0, func(t *testing.T, m *offline.Mailbox) {
			page(t, m, stanza.ID{}, 2)
			page(t, m, id(3), 2)
		}},
		"backwards": {0, func(t *testing.T, m *offline.Mailbox) {
			page(t, m, id(3), 2)
			page(t, m, stanza.ID{}, 2)
		}},
		"never paged": {0, func(*testing.T, *offline.Mailbox) {}},
	} {
		for _, s := range []offline.Backend{newMemory(), openSQLite(t, t.TempDir()), openPostgres(t, postgresproc.New(t))} {
			t.Run(name, func(t *testing.T) {
				m := open(t, lifted(), s)
				for _, n := range all {
					if n != id(tt.without) {
						mustPut(t, m, julietAddr(), from(t, romeo, n, "x"))
					}
				}
				checkpoint(t, m)
				tt.do(t, m)
				if err := m.Remove(t.Context(), julietAddr(), all[0], all[1], all[3], all[4]); err != nil {
					t.Fatal(err)
				}
				checkpoint(t, m)
				holds(t, m, julietAddr(), id(3))
				want(t, s, juliet, 3)
				wantStored(t, s, 1)
			})
		}
	}
}
