package offline_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"holdfast/internal/sqlx/sqlxtest"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/offline"
	"holdfast/stanza"
)

// modelBox is what a mailbox is meant to be.
type modelBox map[stanza.ID]string // sender

func (b modelBox) ids() []stanza.ID {
	all := []stanza.ID{}
	for id := range b {
		all = append(all, id)
	}
	slices.SortFunc(all, stanza.ID.Compare)
	return all
}

func (b modelBox) from(sender string) (n int) {
	for _, s := range b {
		if s == sender {
			n++
		}
	}
	return n
}

// TestModel runs random operations against a map: puts in any order, replays, removals, purges, checkpoints,
// restarts, with counters and recipients falling out of memory all the time.
func TestModel(t *testing.T) {
	backends := map[string]func() offline.Backend{
		"memory": func() offline.Backend { return newMemory() },
		"sqlite": func() offline.Backend { return openSQLite(t, t.TempDir()) },
	}
	// One database for all runs, emptied before each: making one takes longer than a run.
	db := sqlxtest.OpenPostgres(t, postgresproc.New(t))
	shared, err := offline.OpenPostgres(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	backends["postgres"] = func() offline.Backend {
		if _, err := db.Exec(t.Context(), "TRUNCATE offline_message, offline_limit"); err != nil {
			t.Fatal(err)
		}
		return shared
	}
	for name, backend := range backends {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) { model(t, rt, backend()) })
		})
	}
}

func model(t *testing.T, rt *rapid.T, s offline.Backend) {
	users := []stanza.Addr{julietAddr(), nurseAddr()}
	senders := []string{romeo, "tybalt@example.net"}
	const pairLimit, userLimit = 4, 6
	cfg := offline.Config{Limit: pairLimit, OwnLimit: true, UserLimit: userLimit, Cache: 3, Known: rapid.IntRange(0, 3).Draw(rt, "known"), Batch: 3}
	_, cfg.Shared = s.(*offline.Postgres)
	cfg.Window = rapid.SampledFrom([]time.Duration{0, 0, time.Hour}).Draw(rt, "window")
	start := func() *offline.Mailbox {
		m, err := offline.New(t.Context(), cfg, s, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			rt.Fatal(err)
		}
		return m
	}
	m := start()
	// In flight or committed: a Backend that can be held makes both last.
	hold, letGo := func() {}, func() {}
	if held, ok := s.(*memory); ok {
		hold, letGo = held.hold, held.letGo
	}
	stop := func() {
		letGo()
		if err := m.Close(context.Background()); err != nil {
			rt.Fatal(err)
		}
	}
	defer func() { stop() }()
	boxes := map[stanza.Addr]modelBox{}
	for _, u := range users {
		boxes[u] = modelBox{}
	}
	limits := map[stanza.Addr]int{} // what a user chose
	pair := func(u stanza.Addr) int {
		if n, ok := limits[u]; ok {
			return n
		}
		return pairLimit
	}
	handed := map[stanza.Addr][]stanza.ID{} // what somebody got, and may acknowledge much later
	user := rapid.SampledFrom(users)
	number := rapid.IntRange(1, 12)
	ctx := context.Background()
	rt.Repeat(map[string]func(*rapid.T){
		"put": func(rt *rapid.T) {
			u, n, sender := user.Draw(rt, "user"), id(number.Draw(rt, "id")), rapid.SampledFrom(senders).Draw(rt, "sender")
			box := boxes[u]
			_, has := box[n]
			fits := has || box.from(sender) < pair(u) && len(box) < userLimit
			v, err := m.Put(ctx, u, from(t, sender, n, "x"))
			if (v.Action == offline.Store) != fits || (err == nil) != fits {
				rt.Fatalf("Put: %v for %v, %v, where it fits: %v", v.Action, v.Reason, err, fits)
			}
			if fits && !has {
				box[n] = sender
			}
		},
		"force": func(rt *rapid.T) {
			u, n, sender := user.Draw(rt, "user"), id(number.Draw(rt, "id")), rapid.SampledFrom(senders).Draw(rt, "sender")
			if err := m.Force(ctx, u, from(t, sender, n, "x")); err != nil {
				rt.Fatal(err)
			}
			if _, has := boxes[u][n]; !has {
				boxes[u][n] = sender
			}
		},
		"remove": func(rt *rapid.T) {
			u := user.Draw(rt, "user")
			gone := []stanza.ID{}
			for _, n := range rapid.SliceOfN(number, 1, 5).Draw(rt, "ids") {
				gone = append(gone, id(n))
			}
			if err := m.Remove(ctx, u, gone...); err != nil {
				rt.Fatal(err)
			}
			for _, n := range gone {
				delete(boxes[u], n)
			}
		},
		"drain": func(rt *rapid.T) {
			u := user.Draw(rt, "user")
			page, _, err := m.Page(ctx, u, stanza.ID{}, rapid.IntRange(1, 4).Draw(rt, "limit"), 0)
			if err != nil {
				rt.Fatal(err)
			}
			if rapid.Bool().Draw(rt, "together") {
				all := []stanza.ID{}
				for _, msg := range page {
					all = append(all, msg.ID)
					delete(boxes[u], msg.ID)
				}
				if err := m.Remove(ctx, u, all...); err != nil {
					rt.Fatal(err)
				}
				return
			}
			for _, msg := range page {
				if had, err := m.RemoveID(ctx, u, msg.ID); err != nil || !had {
					rt.Fatalf("RemoveID of what was paged: %v, %v", had, err)
				}
				delete(boxes[u], msg.ID)
			}
		},
		"deliver": func(rt *rapid.T) {
			u := user.Draw(rt, "user")
			after := stanza.ID{}
			if n := len(handed[u]); n > 0 && rapid.Bool().Draw(rt, "on") {
				after = handed[u][n-1]
			} else {
				handed[u] = nil
			}
			page, _, err := m.Page(ctx, u, after, rapid.IntRange(1, 4).Draw(rt, "limit"), 0)
			if err != nil {
				rt.Fatal(err)
			}
			for _, msg := range page {
				handed[u] = append(handed[u], msg.ID)
			}
		},
		"acknowledge": func(rt *rapid.T) {
			u := user.Draw(rt, "user")
			n := rapid.IntRange(0, len(handed[u])).Draw(rt, "n")
			if err := m.Remove(ctx, u, handed[u][:n]...); err != nil {
				rt.Fatal(err)
			}
			for _, id := range handed[u][:n] {
				delete(boxes[u], id)
			}
			handed[u] = handed[u][n:]
		},
		"purge": func(rt *rapid.T) {
			u := user.Draw(rt, "user")
			if err := m.Purge(ctx, u); err != nil {
				rt.Fatal(err)
			}
			clear(boxes[u])
		},
		"choose": func(rt *rapid.T) {
			letGo()
			u, n := user.Draw(rt, "user"), rapid.IntRange(-1, 5).Draw(rt, "limit")
			l := offline.OwnLimit{Messages: n}
			if limits[u] = n; n < 0 {
				l, limits[u] = offline.OwnLimit{Lifted: true}, 1000
			}
			if err := m.Choose(ctx, u, l); err != nil {
				rt.Fatal(err)
			}
		},
		"forget": func(rt *rapid.T) {
			letGo()
			u := user.Draw(rt, "user")
			if err := m.Forget(ctx, u); err != nil {
				rt.Fatal(err)
			}
			clear(boxes[u])
			delete(limits, u)
		},
		"checkpoint": func(rt *rapid.T) {
			letGo()
			if err := m.Checkpoint(ctx); err != nil {
				rt.Fatal(err)
			}
			stored := int64(0)
			for _, u := range users {
				got := []stanza.ID{}
				err := s.Scan(ctx, u.String(), offline.Range{}, func(r offline.Row) bool {
					got = append(got, r.ID)
					return true
				})
				if err != nil || !slices.Equal(got, boxes[u].ids()) {
					rt.Fatalf("the store has %v for %v, want %v: %v", got, u, boxes[u].ids(), err)
				}
				stored += int64(len(got))
			}
			if n, err := s.Stored(ctx); err != nil || n != stored {
				rt.Fatalf("the store counts %d, want %d: %v", n, stored, err)
			}
		},
		"release": func(rt *rapid.T) {
			letGo()
			if err := m.Release(ctx, user.Draw(rt, "user")); err != nil {
				rt.Fatal(err)
			}
		},
		"hold":  func(*rapid.T) { hold() },
		"letGo": func(*rapid.T) { letGo() },
		"restart": func(*rapid.T) {
			stop()
			m = start()
		},
		"": func(rt *rapid.T) {
			u := user.Draw(rt, "user")
			expect := boxes[u].ids()
			got := []stanza.ID{}
			limit := rapid.IntRange(1, 7).Draw(rt, "limit")
			for after, more := (stanza.ID{}), true; more; {
				var page []offline.Message
				var err error
				if page, more, err = m.Page(ctx, u, after, limit, 0); err != nil {
					rt.Fatal(err)
				}
				for _, msg := range page {
					got, after = append(got, msg.ID), msg.ID
				}
			}
			if !slices.Equal(got, expect) {
				rt.Fatalf("%v pages %v, want %v", u, got, expect)
			}
			if n, err := m.Count(ctx, u); err != nil || n != len(expect) {
				rt.Fatalf("%v counts %d, want %d: %v", u, n, len(expect), err)
			}
			probe := id(number.Draw(rt, "probe"))
			_, has := boxes[u][probe]
			if got, err := m.Contains(ctx, u, probe); err != nil || got != has {
				rt.Fatalf("%v contains %v: %v, want %v: %v", u, probe, got, has, err)
			}
		},
	})
}
