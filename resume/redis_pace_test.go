package resume

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/internal/journal"
)

// A few writes follow each other at once; then they come at the rate, whatever comes between them.
func TestPace(t *testing.T) {
	const rate = 500
	start := time.Now()
	p, now, writes := newPace(rate), start, 0
	for range ahead + 1 {
		if w := p.wait(now); w > 0 {
			t.Errorf("write %d waits %v", writes, w)
		}
		p.took(now)
		writes++
	}
	if w := p.wait(now); w <= 0 || w > time.Second/rate {
		t.Errorf("the write after that waits %v", w)
	}
	for range 5000 {
		now = now.Add(max(0, p.wait(now)) + time.Duration(rand.Int64N(int64(50*time.Microsecond))))
		p.took(now)
		writes++
	}
	if most := int(now.Sub(start).Seconds()*rate) + ahead + 1; writes > most || writes < most-2 {
		t.Errorf("%d writes in %v", writes, now.Sub(start))
	}
	// Large ones do not wait; they are not made up for either.
	for range 1000 {
		p.took(now)
	}
	if w := p.wait(now); w > time.Second/rate {
		t.Errorf("after large ones a small one waits %v", w)
	}
	free := newPace(0)
	for range 1000 {
		if free.took(now); free.wait(now) > 0 {
			t.Fatal("no rate, and still it waits")
		}
	}
}

// counting is a Redis that takes everything at once.
type counting struct{ writes, bytes int }

func (c *counting) write(_ context.Context, b *batch) (bool, error) {
	c.writes++
	c.bytes += len(b.bytes)
	return false, nil
}

func (c *counting) close() {}

// Records that come one by one share writes when they are many; one that comes after a while does not wait, nor do
// many that come at once.
func TestWritesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultRedisConfig()
		cfg.WriteRate, cfg.Window = 500, 0
		to := new(counting)
		q := newGroupCommit(cfg, to, discard, newRedisMetrics(prometheus.NewRegistry()))
		settle := func() time.Duration {
			start := time.Now()
			must(t, q.await(t.Context(), q.appended.Load()))
			return time.Since(start)
		}
		put := func(size int) { must(t, q.append(journal.KindStanza, true, make([]byte, size), nil)) }

		put(10)
		if took := settle(); took > 0 {
			t.Errorf("a lone record waits %v", took)
		}
		time.Sleep(time.Second)
		before := to.writes
		for range 4000 {
			put(10)
			time.Sleep(time.Second / 4000)
		}
		settle()
		if n := to.writes - before; n < 480 || n > 500+ahead+1 {
			t.Errorf("%d writes in a second", n)
		}
		put(company)
		if took := settle(); took > 0 {
			t.Errorf("a large record waits %v", took)
		}
		put(10)
		before = to.bytes
		for range company {
			put(10)
		}
		if synctest.Wait(); to.bytes < before+company {
			t.Error("many records wait")
		}
		must(t, q.close(t.Context()))
	})
}
