package offline_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/offline"
	"holdfast/stanza"
)

// benchMessage is about 400 bytes.
func benchMessage(b testing.TB, id stanza.ID) *stanza.Stanza {
	return from(b, romeo, id, strings.Repeat("x", 290))
}

func benchBox(b *testing.B) *offline.Mailbox {
	b.Helper()
	cfg := offline.DefaultConfig()
	cfg.Limit, cfg.UserLimit, cfg.UserBytes = 0, 0, 0
	m, err := offline.New(b.Context(), cfg, openSQLite(b, b.TempDir()), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = m.Close(context.Background()) })
	return m
}

// cpuTime reports the processor time of the whole process since it was called, per operation, when the returned
// function is: group commits happen in another goroutine, and the machine may be shared.
func cpuTime(b *testing.B) func() {
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := used()
	return func() { b.ReportMetric(float64(used()-start)/float64(b.N), "cpu-ns/op") }
}

func fill(b *testing.B, m *offline.Mailbox, n int, to func(int) stanza.Addr) {
	b.Helper()
	for i := range n {
		if err := m.Force(context.Background(), to(i), benchMessage(b, stanza.NewID())); err != nil {
			b.Fatal(err)
		}
	}
	if err := m.Checkpoint(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkPut includes each message's share of the transactions.
func BenchmarkPut(b *testing.B) {
	for _, spread := range []int{1, 50, 100} {
		b.Run(fmt.Sprintf("users=%d", spread), func(b *testing.B) {
			m := benchBox(b)
			users := make([]stanza.Addr, spread)
			for i := range users {
				users[i] = benchUser(i)
			}
			st := *benchMessage(b, stanza.NewID())
			b.ReportAllocs()
			defer cpuTime(b)()
			for i := 0; b.Loop(); i++ {
				st.ID = stanza.NewID()
				if _, err := m.Put(context.Background(), users[i%spread], &st); err != nil {
					b.Fatal(err)
				}
			}
			if err := m.Checkpoint(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkPage is one message out of a page of 100, without and with making a stanza of it.
func BenchmarkPage(b *testing.B) {
	for _, deliver := range []bool{false, true} {
		b.Run(fmt.Sprintf("stanza=%v", deliver), func(b *testing.B) {
			m := benchBox(b)
			user := benchUser(0)
			fill(b, m, 10_000, func(int) stanza.Addr { return user })
			b.ReportAllocs()
			b.ResetTimer()
			defer cpuTime(b)()
			var after stanza.ID
			for n := 0; n < b.N; {
				page, more, err := m.Page(context.Background(), user, after, 100, 0)
				if err != nil {
					b.Fatal(err)
				}
				n += len(page)
				after = page[len(page)-1].ID
				if !more {
					after = stanza.ID{}
				}
				for _, msg := range page {
					if !deliver {
						break
					}
					if _, err := msg.Stanza(user); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkDrain is one message of a login with 100 of them: counted on first use, paged, made a stanza, removed in
// fives, committed.
func BenchmarkDrain(b *testing.B) {
	m := benchBox(b)
	const perUser = 100
	fill(b, m, max(b.N, perUser), func(i int) stanza.Addr { return benchUser(i / perUser) })
	b.ReportAllocs()
	b.ResetTimer()
	defer cpuTime(b)()
	for u := range (b.N + perUser - 1) / perUser {
		user := benchUser(u)
		page, _, err := m.Page(context.Background(), user, stanza.ID{}, 100, 0)
		if err != nil {
			b.Fatal(err)
		}
		var ids []stanza.ID
		for _, msg := range page {
			if _, err := msg.Stanza(user); err != nil {
				b.Fatal(err)
			}
			if ids = append(ids, msg.ID); len(ids) == 5 {
				if err := m.Remove(context.Background(), user, ids...); err != nil {
					b.Fatal(err)
				}
				ids = ids[:0]
			}
		}
	}
	if err := m.Checkpoint(context.Background()); err != nil {
		b.Fatal(err)
	}
}

func benchUser(n int) stanza.Addr {
	return stanza.MustParseAddr(fmt.Sprintf("user%03d@example.com", n))
}

// BenchmarkRemove includes each removal's share of the transactions.
func BenchmarkRemove(b *testing.B) {
	m := benchBox(b)
	fill(b, m, b.N, func(i int) stanza.Addr { return benchUser(i / 100) })
	pages := make(map[int][]stanza.ID)
	for u := range (b.N + 99) / 100 {
		page, _, err := m.Page(context.Background(), benchUser(u), stanza.ID{}, 0, 0)
		if err != nil {
			b.Fatal(err)
		}
		for _, msg := range page {
			pages[u] = append(pages[u], msg.ID)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	defer cpuTime(b)()
	for u, ids := range pages {
		for len(ids) > 0 {
			n := min(5, len(ids))
			if err := m.Remove(context.Background(), benchUser(u), ids[:n]...); err != nil {
				b.Fatal(err)
			}
			ids = ids[n:]
		}
	}
	if err := m.Checkpoint(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkEmpty is what a login without mail costs.
func BenchmarkEmpty(b *testing.B) {
	m := benchBox(b)
	fill(b, m, 50, benchUser)
	nobody := stanza.MustParseAddr("nobody@example.com")
	b.ReportAllocs()
	defer cpuTime(b)()
	for b.Loop() {
		if empty, err := m.Empty(context.Background(), nobody); err != nil || !empty {
			b.Fatal(empty, err)
		}
	}
}
