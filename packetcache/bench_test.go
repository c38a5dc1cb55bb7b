package packetcache

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"holdfast/internal/sqlx/sqlxtest"
	"holdfast/stanza"
)

// BenchmarkOpenReceipt is the way of a message whose receipt comes: with nothing else open, and with as many open as
// there are messages between a message and its receipt.
func BenchmarkOpenReceipt(b *testing.B) {
	for _, window := range []int{1, 100, 10_000} {
		b.Run("open="+strconv.Itoa(window), func(b *testing.B) {
			c, msgs := benchCache(b, max(2*window, 1000))
			for i := range window - 1 {
				c.Open(msgs[i])
			}
			ids := make([]string, len(msgs))
			for i := range ids {
				ids[i] = msgs[i].Attr("id")
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i++ {
				c.Open(msgs[(i+window-1)%len(msgs)])
				if closed, _ := c.Receipt(bob1, alice, ids[i%len(msgs)]); len(closed) != 1 {
					b.Fatal("not closed")
				}
			}
		})
	}
}

func BenchmarkOpenReceiptParallel(b *testing.B) {
	c, _ := benchCache(b, 1)
	var n int
	b.SetParallelism(4)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		c.mu.Lock()
		n++
		id := fmt.Sprint("p", n)
		c.mu.Unlock()
		st := message(alice, bob, id)
		for pb.Next() {
			c.Open(st)
			if closed, _ := c.Receipt(bob1, alice, id); len(closed) != 1 {
				b.Error("not closed")
				return
			}
		}
	})
}

// BenchmarkReceiptForNothing is a receipt that no entry waits for.
func BenchmarkReceiptForNothing(b *testing.B) {
	c, msgs := benchCache(b, 1000)
	for _, st := range msgs {
		c.Open(st)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.Receipt(bob1, alice, "unknown")
	}
}

func BenchmarkCheckpointSQLite(b *testing.B) {
	store, err := NewSQLite(b.Context(), sqlxtest.Open(b))
	if err != nil {
		b.Fatal(err)
	}
	const n = 1000
	c := newCache(b, DefaultConfig(), store, newPeer())
	for b.Loop() {
		ids := make([]stanza.ID, n)
		for i := range ids {
			st := message(alice, bob, "m"+strconv.Itoa(i))
			c.Open(st)
			ids[i] = st.ID
		}
		if err := c.Checkpoint(context.Background()); err != nil {
			b.Fatal(err)
		}
		for _, id := range ids {
			c.Close(id)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/entry")
}

// BenchmarkExpire is a message whose receipt never comes, from Open to its tombstone, with actions that cost nothing.
func BenchmarkExpire(b *testing.B) {
	var now int64
	cfg := DefaultConfig()
	cfg.Actions, cfg.LateEntries = []Action{Offline}, 1000
	c, err := newAt(cfg, NewMemory(), slog.New(slog.DiscardHandler), nil, nothing{}, func() int64 { return now }, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	st := message(alice, bob, "m1")
	b.ReportAllocs()
	for b.Loop() {
		st.ID = stanza.NewID()
		c.Open(st)
		now += int64(cfg.Timeout)
		c.runDue(b.Context())
	}
}

type nothing struct{}

func (nothing) Resend(context.Context, Entry) (bool, error) { return true, nil }
func (nothing) Offline(context.Context, Entry) error        { return nil }
func (nothing) Bounce(context.Context, Entry) error         { return nil }
func (nothing) Withdraw(context.Context, Entry) error       { return nil }

func benchCache(b *testing.B, n int) (*Cache, []*stanza.Stanza) {
	b.Helper()
	c := newCache(b, DefaultConfig(), NewMemory(), newPeer())
	start(b, c)
	msgs := make([]*stanza.Stanza, n)
	for i := range msgs {
		msgs[i] = message(alice, bob, "message-"+strconv.Itoa(i))
	}
	return c, msgs
}
