package packetcache

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"holdfast/internal/redisx"
	"holdfast/internal/testkit/redisproc"
	"holdfast/stanza"
)

func TestRedis(t *testing.T) {
	for name, url := range map[string]string{"standalone": redisproc.Shared(t).URL(), "cluster": redisproc.SharedCluster(t).URL()} {
		t.Run(name, func(t *testing.T) {
			rdb, keys := openRedis(t, url)
			nodes := 0
			testStore(t, func(t *testing.T) (Store, func() Store) {
				nodes++
				node := fmt.Sprint("n", nodes)
				begin(t, rdb, keys, node)
				s := NewRedis(rdb, keys, node)
				return s, func() Store {
					again := NewRedis(rdb, keys, node)
					again.writes = s.writes // in life nobody goes on under the name of a dead node
					return again
				}
			})
			testFenced(t, rdb, keys)
			testPages(t, rdb, keys)
		})
	}
}

func openRedis(t testing.TB, url string) (redis.UniversalClient, redisx.Keys) {
	t.Helper()
	cfg := redisx.DefaultConfig()
	cfg.URL, cfg.Prefix = redisx.URL(url), redisproc.Prefix()
	rdb, err := redisx.Open(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb, cfg.Keys()
}

// begin makes a node's journal, and fence takes it away, as package resume does.
func begin(t testing.TB, rdb redis.UniversalClient, keys redisx.Keys, node string) {
	t.Helper()
	if err := rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: keys.Node(node, "journal"), Values: []any{"d", ""}}).Err(); err != nil {
		t.Fatal(err)
	}
}

func fence(t testing.TB, rdb redis.UniversalClient, keys redisx.Keys, node string) {
	t.Helper()
	err := rdb.Rename(t.Context(), keys.Node(node, "journal"), keys.Node(node, "journal:dead")).Err()
	if err != nil && err.Error() != "ERR no such key" {
		t.Fatal(err)
	}
}

// A node that was fenced changes nothing of what another loads.
func testFenced(t *testing.T, rdb redis.UniversalClient, keys redisx.Keys) {
	t.Run("fenced", func(t *testing.T) {
		begin(t, rdb, keys, "fenced")
		s := NewRedis(rdb, keys, "fenced")
		st := message(alice, bob, "m")
		e := Entry{ID: st.ID, From: alice, To: bob, MsgID: "m", Stanza: st, Deadline: time.Now()}
		if err := s.Apply(t.Context(), []Entry{e}, nil); err != nil {
			t.Fatal(err)
		}
		fence(t, rdb, keys, "fenced")
		if err := s.Apply(t.Context(), nil, []stanza.ID{e.ID}); !errors.Is(err, ErrFenced) {
			t.Errorf("apply says %v", err)
		}
		if got := load(t, NewRedis(rdb, keys, "fenced")); len(got) != 1 {
			t.Errorf("%d entries", len(got))
		}
	})
	t.Run("a write that comes late", func(t *testing.T) {
		begin(t, rdb, keys, "late")
		s := NewRedis(rdb, keys, "late")
		st := message(alice, bob, "m")
		e := Entry{ID: st.ID, From: alice, To: bob, MsgID: "m", Stanza: st, Deadline: time.Now()}
		for _, put := range [][]Entry{{e}, nil} {
			if err := s.Apply(t.Context(), put, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Apply(t.Context(), nil, []stanza.ID{e.ID}); err != nil {
			t.Fatal(err)
		}
		s.writes -= 2
		if err := s.Apply(t.Context(), []Entry{e}, nil); err == nil {
			t.Error("it was taken")
		}
		if got := load(t, s); len(got) != 0 {
			t.Errorf("%d entries", len(got))
		}
	})
}

func testPages(t *testing.T, rdb redis.UniversalClient, keys redisx.Keys) {
	t.Run("more than Redis takes at once", func(t *testing.T) {
		begin(t, rdb, keys, "huge")
		s := NewRedis(rdb, keys, "huge")
		st := message(alice, bob, "m")
		put, del := make([]Entry, applyAtOnce+1), make([]stanza.ID, applyAtOnce+1)
		for i := range put {
			put[i] = Entry{ID: stanza.NewID(), From: alice, To: bob, MsgID: "m", Stanza: st, Deadline: time.Now()}
			del[i] = put[i].ID
		}
		if err := s.Apply(t.Context(), put, nil); err != nil {
			t.Fatal(err)
		}
		last := put[applyAtOnce]
		if err := s.Apply(t.Context(), []Entry{last}, del); err != nil {
			t.Fatal(err)
		}
		if got := load(t, s); len(got) != 1 || got[0].ID != last.ID {
			t.Errorf("%d entries", len(got))
		}
	})
	t.Run("many", func(t *testing.T) {
		begin(t, rdb, keys, "many")
		s := NewRedis(rdb, keys, "many")
		var put []Entry
		now := time.Now()
		for i := range 2*loadAtOnce + 1 {
			st := message(alice, bob, strconv.Itoa(i))
			put = append(put, Entry{ID: st.ID, From: alice, To: bob, MsgID: st.Attr("id"), Stanza: st, Deadline: now.Add(time.Duration(i/2) * time.Microsecond)})
		}
		if err := s.Apply(t.Context(), put, nil); err != nil {
			t.Fatal(err)
		}
		for i, e := range load(t, s) {
			if e.MsgID != strconv.Itoa(i) {
				t.Fatalf("place %d has %s", i, e.MsgID)
			}
		}
	})
}
