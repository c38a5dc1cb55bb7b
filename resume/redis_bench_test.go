package resume

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"holdfast/internal/journal"
	"holdfast/internal/testkit/redisproc"
)

// An append takes no memory of its own: buffers are used again.
func TestRedisAppendAllocations(t *testing.T) {
	r := newSharedPlace(t)
	m := r.nodeFor(t)
	rec := numbered(1, 1)
	for range 10 {
		must(t, m.Stanza(rec))
		m.settle(t)
	}
	if n := testing.AllocsPerRun(2000, func() { must(t, m.Count(journal.KindHandled, 1, 1)) }); n > 1 {
		t.Errorf("%v allocations for a count", n)
	}
	if n := testing.AllocsPerRun(2000, func() { must(t, m.Stanza(rec)) }); n > 1 {
		t.Errorf("%v allocations for a stanza", n)
	}
}

// BenchmarkRedisAppend is what an append costs its caller, with the flusher and checkpoints beside it: as fast as
// Redis takes it, at last.
func BenchmarkRedisAppend(b *testing.B) {
	m := newPlace(b, sharedURL(b)).nodeFor(b)
	rec := &journal.Stanza{Origin: 1, N: 1, Targets: []journal.Target{{Session: 2, Pos: 3}}, Stanza: chat(strings.Repeat("x", 200))}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var done sync.WaitGroup
	done.Go(func() { m.Run(ctx, newSessions()) })
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if err := m.Room(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := m.Stanza(rec); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	cancel()
	done.Wait()
}

// BenchmarkRedisFlush is how long one record takes to be sendable, alone and with a thousand others in its batch.
func BenchmarkRedisFlush(b *testing.B) {
	for name, url := range map[string]string{"standalone": redisproc.Shared(b).URL(), "cluster": redisproc.SharedCluster(b).URL()} {
		for _, records := range []int{1, 1000} {
			b.Run(name+"/"+map[int]string{1: "one", 1000: "thousand"}[records], func(b *testing.B) {
				m := newPlace(b, url).nodeFor(b)
				rec := &journal.Stanza{Origin: 1, N: 1, Targets: []journal.Target{{Session: 2, Pos: 3}}, Stanza: chat(strings.Repeat("x", 200))}
				b.ReportAllocs()
				n := 0
				for b.Loop() {
					for range records {
						if err := m.Stanza(rec); err != nil {
							b.Fatal(err)
						}
					}
					m.settle(b)
					if n++; n%500 == 0 {
						b.StopTimer()
						_ = m.Checkpoint(b.Context(), newSessions())
						b.StartTimer()
					}
				}
			})
		}
	}
}

// BenchmarkRedisPlainXAdd is the bare command, to compare with.
func BenchmarkRedisPlainXAdd(b *testing.B) {
	r := newPlace(b, sharedURL(b))
	value := make([]byte, 400)
	for b.Loop() {
		if err := r.rdb.XAdd(b.Context(), &redis.XAddArgs{Stream: r.keys.Node("x", "s"), MaxLen: 100, Approx: true, Values: []any{"d", value}}).Err(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRedisCheckpoint is a checkpoint of a thousand sessions with ten stanzas each.
func BenchmarkRedisCheckpoint(b *testing.B) {
	m := newPlace(b, sharedURL(b)).nodeFor(b)
	l := &wholeSessions{sessions: newSessions()}
	for range 1000 {
		s := bind(b, m, l.sessions, true)
		for range 10 {
			deliver(b, m, nil, chat(strings.Repeat("x", 200)), 0, s)
		}
	}
	for b.Loop() {
		l.TouchAll()
		if err := m.Checkpoint(b.Context(), l); err != nil {
			b.Fatal(err)
		}
	}
}
