package roster

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"testing"
	"testing/synctest"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"holdfast/internal/sqlx/sqlxtest"
	"holdfast/stanza"
)

func TestSince(t *testing.T) { // RFC 6121 §2.6
	cfg := DefaultConfig()
	cfg.History = 2
	store := newMemory()
	s := newService(t, cfg, store)

	since := func(version string) ([]Change, bool) {
		t.Helper()
		changed, now, ok, err := s.Since(t.Context(), romeo, version)
		_, want, _ := s.Get(t.Context(), romeo)
		if err != nil || now != want {
			t.Fatalf("version %s, want %s: %v", now, want, err)
		}
		return changed, ok
	}
	_, v0, _ := s.Get(t.Context(), romeo)
	if changed, ok := since(v0); !ok || len(changed) != 0 {
		t.Errorf("never changed: %v %v", changed, ok)
	}
	for _, strange := range []string{"", "00", "Z", "-1", "+1", " 1", "1 ", "zzzzzzzzzzzzzzzzzzzz", "5"} {
		if changed, ok := since(strange); ok {
			t.Errorf("version %q was never given out and has changes %v", strange, changed)
		}
	}

	contact := func(i int) stanza.Addr { return stanza.MustParseAddr(fmt.Sprintf("c%d@localhost", i)) }
	v1 := must(s.Set(t.Context(), romeo, Item{Contact: contact(1)}))(t).Version
	v2 := must(s.Set(t.Context(), romeo, Item{Contact: contact(2)}))(t).Version
	v3 := must(s.Set(t.Context(), romeo, Item{Contact: contact(1), Name: "one"}))(t).Version
	if _, ok := since(v0); ok {
		t.Error("the version before the first change belongs to any earlier account of the name")
	}
	// Only the last change of each, in the order of the changes, each with its own version.
	want := []Change{
		{Item: Item{Contact: contact(2)}, Version: v2},
		{Item: Item{Contact: contact(1), Name: "one"}, Version: v3},
	}
	changed, ok := since(v1)
	if diff := gocmp.Diff(want, changed, compare); !ok || diff != "" {
		t.Errorf("%v: -want +got\n%s", ok, diff)
	}
	if changed, ok := since(v3); !ok || len(changed) != 0 {
		t.Errorf("nothing since: %v %v", changed, ok)
	}

	// Three removals, two of them remembered.
	for i := range 3 {
		must(s.Set(t.Context(), romeo, Item{Contact: contact(i)}))(t)
	}
	_, v4, _ := s.Get(t.Context(), romeo)
	var gone []string
	for i := range 3 {
		c, _, err := s.Remove(t.Context(), romeo, contact(i))
		if err != nil {
			t.Fatal(err)
		}
		gone = append(gone, c.Version)
	}
	if changed, ok := since(v4); ok {
		t.Errorf("three removals ago: %v", changed)
	}
	want = []Change{
		{Item: Item{Contact: contact(1)}, Removed: true, Version: gone[1]},
		{Item: Item{Contact: contact(2)}, Removed: true, Version: gone[2]},
	}
	changed, ok = since(gone[0])
	if diff := gocmp.Diff(want, changed, compare); !ok || diff != "" {
		t.Errorf("%v: -want +got\n%s", ok, diff)
	}
	if n := len(store.users[romeo.String()].rows); n != 2 {
		t.Errorf("%d rows stored for two removals", n)
	}

	// A request from one that was removed is not a change, nor does it hide the removal.
	must(s.Inbound(t.Context(), romeo, contact(2), Subscribe, nil))(t)
	must(s.Inbound(t.Context(), romeo, contact(2), Unsubscribe, nil))(t)
	must(s.Inbound(t.Context(), romeo, contact(2), Subscribe, nil))(t)
	changed, ok = since(gone[0])
	if diff := gocmp.Diff(want, changed, compare); !ok || diff != "" {
		t.Errorf("%v: -want +got\n%s", ok, diff)
	}
	// When the removal is forgotten the request stays.
	for i := 5; i < 8; i++ {
		must(s.Set(t.Context(), romeo, Item{Contact: contact(i)}))(t)
		if _, _, err := s.Remove(t.Context(), romeo, contact(i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(must(s.PendingRequests(t.Context(), romeo))(t)); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// TestVersionsSurviveARestart uses a version from one process with the next.
func TestVersionsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	open := func() *Service {
		return newService(t, DefaultConfig(), must(OpenSQLite(t.Context(), sqlxtest.OpenDir(t, dir)))(t))
	}
	first := open()
	must(first.Set(t.Context(), romeo, Item{Contact: juliet, Name: "J", Groups: []string{"g"}}))(t)
	_, old, _ := first.Get(t.Context(), romeo)
	must(first.Outbound(t.Context(), romeo, juliet, Subscribe))(t)
	must(first.Inbound(t.Context(), romeo, mercutio, Subscribe, nil))(t)
	want, version, _ := first.Get(t.Context(), romeo)

	second := open() // the first is not closed: it was killed
	got, again, err := second.Get(t.Context(), romeo)
	if diff := gocmp.Diff(want, got, compare); err != nil || diff != "" || again != version {
		t.Errorf("%v, version %s was %s: -want +got\n%s", err, again, version, diff)
	}
	changed, _, ok, err := second.Since(t.Context(), romeo, old)
	if err != nil || !ok || len(changed) != 1 || !changed[0].Item.Ask {
		t.Errorf("changes %v %v %v", changed, ok, err)
	}
	if changed, _, ok, _ := second.Since(t.Context(), romeo, version); !ok || len(changed) != 0 {
		t.Errorf("changes %v %v since the last version", changed, ok)
	}
	if n := len(must(second.PendingRequests(t.Context(), romeo))(t)); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// copyOf is what a client that knows roster versioning keeps.
type copyOf struct {
	version  string
	items    map[stanza.Addr]Item
	removals int // since, in truth
}

// TestVersioningProperty: whatever happens to a roster, a client's old copy with the changes since is the roster.
func TestVersioningProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		cfg := DefaultConfig()
		cfg.History = rapid.IntRange(0, 4).Draw(t, "history")
		cfg.Items = 4
		store := newMemory()
		start := func() *Service {
			return New(cfg, store, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		}
		s := start()
		var copies []copyOf
		contacts := rapid.SampledFrom([]stanza.Addr{
			juliet, mercutio, stanza.MustParseAddr("a@localhost"), stanza.MustParseAddr("b@localhost"),
			stanza.MustParseAddr("c@localhost"), stanza.MustParseAddr("gateway.localhost"),
		})
		kind := rapid.SampledFrom([]Kind{Subscribe, Subscribed, Unsubscribe, Unsubscribed})

		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				item := Item{
					Contact: contacts.Draw(t, "contact"),
					Name:    rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "name"),
					Groups:  rapid.SampledFrom([][]string{nil, {"g"}, {"g", "h"}}).Draw(t, "groups"),
				}
				_, _ = s.Set(ctx, romeo, item) // may be full
			},
			"remove": func(t *rapid.T) {
				if _, _, err := s.Remove(ctx, romeo, contacts.Draw(t, "contact")); err == nil {
					for i := range copies {
						copies[i].removals++
					}
				}
			},
			"outbound": func(t *rapid.T) {
				_, _ = s.Outbound(ctx, romeo, contacts.Draw(t, "contact"), kind.Draw(t, "kind"))
			},
			"inbound": func(t *rapid.T) {
				_, _ = s.Inbound(ctx, romeo, contacts.Draw(t, "contact"), kind.Draw(t, "kind"), nil)
			},
			"restart": func(*rapid.T) { s = start() },
			"copy": func(t *rapid.T) {
				items, version, _ := s.Get(ctx, romeo)
				c := copyOf{version: version, items: make(map[stanza.Addr]Item)}
				for _, item := range items {
					c.items[item.Contact] = item
				}
				copies = append(copies[max(0, len(copies)-4):], c)
			},
			"": func(t *rapid.T) {
				items, version, err := s.Get(ctx, romeo)
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range copies {
					changed, now, ok, err := s.Since(ctx, romeo, c.version)
					if err != nil || now != version {
						t.Fatalf("version %s, want %s: %v", now, version, err)
					}
					if !ok {
						if c.version != "0" && (cfg.History == 0 || c.removals <= cfg.History) {
							t.Fatalf("%d removals since %s are not remembered", c.removals, c.version)
						}
						continue
					}
					got := maps.Clone(c.items)
					for _, ch := range changed {
						if ch.Removed {
							delete(got, ch.Item.Contact)
						} else {
							got[ch.Item.Contact] = ch.Item
						}
					}
					if len(got) != len(items) {
						t.Fatalf("since %s: the copy is %+v, the roster %+v", c.version, got, items)
					}
					for _, item := range items {
						if !(&entry{Item: item, listed: true}).looks(&entry{Item: got[item.Contact], listed: true}) {
							t.Fatalf("since %s: the copy has %+v, the roster %+v", c.version, got[item.Contact], item)
						}
					}
				}
			},
		})
	})
}

// TestVersionsGrowWithoutAClock: changes in one instant, and after a clock that was set back, are told apart.
func TestVersionsGrowWithoutAClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ahead := now() + 1000
		store := newMemory()
		store.users[romeo.String()] = stored{version: ahead, floor: 1}
		for _, s := range []*Service{newService(t, DefaultConfig(), newMemory()), newService(t, DefaultConfig(), store)} {
			must(s.Set(t.Context(), romeo, Item{Contact: juliet}))(t)
			_, before, _ := s.Get(t.Context(), romeo)
			must(s.Set(t.Context(), romeo, Item{Contact: mercutio}))(t)
			changed, _, ok, err := s.Since(t.Context(), romeo, before)
			if err != nil || !ok || len(changed) != 1 || changed[0].Item.Contact != mercutio {
				t.Errorf("changes %v %v %v", changed, ok, err)
			}
		}
		if v := store.users[romeo.String()].version; v != ahead+2 {
			t.Errorf("version %d after %d", v, ahead)
		}
	})
}
