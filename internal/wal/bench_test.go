package wal

import (
	"context"
	"testing"
	"time"
)

func openBench(b *testing.B, cfg Config) *Log {
	b.Helper()
	l, err := Open(b.TempDir(), cfg, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := l.Close(); err != nil {
			b.Error(err)
		}
	})
	return l
}

// checkpoint frees what it can whenever the log asks for it, until the benchmark ends.
func checkpoint(b *testing.B, l *Log) {
	stop, done := make(chan struct{}), make(chan struct{})
	b.Cleanup(func() { close(stop); <-done })
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-l.Pressure():
			}
			if l.Stats().Segments > 1 {
				boundary := l.segmentBase()
				if err := l.Free(boundary); err != nil {
					b.Error(err)
				}
			}
		}
	}()
}

func (l *Log) segmentBase() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.base
}

// BenchmarkAppend writes 400-byte records into one segment that fits them all: the path without rotations.
func BenchmarkAppend(b *testing.B) {
	l := openBench(b, Config{Segment: 64 << 20})
	head, body := make([]byte, 40), make([]byte, 360)
	size := recordSize(400)
	b.SetBytes(400)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if l.off+size > l.limit {
			b.StopTimer()
			l.mu.Lock()
			l.off = segmentHeader
			l.mu.Unlock()
			b.StartTimer()
		}
		if _, err := l.Append(1, head, body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAppendRotating is what a saturated log does: rotations and recycling included.
func BenchmarkAppendRotating(b *testing.B) {
	l := openBench(b, DefaultConfig())
	checkpoint(b, l)
	head, body := make([]byte, 40), make([]byte, 360)
	b.SetBytes(400)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := l.Append(1, head, body); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(l.Stats().Blocked), "blocked")
}

func BenchmarkAppendParallel(b *testing.B) {
	l := openBench(b, DefaultConfig())
	checkpoint(b, l)
	b.SetBytes(400)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		head, body := make([]byte, 40), make([]byte, 360)
		for pb.Next() {
			if _, err := l.Append(1, head, body); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkAppendPaced appends at 200,000 records a second with a Sync every 50 ms, and reports the time that Append
// took, page faults after the flushes included.
func BenchmarkAppendPaced(b *testing.B) {
	l := openBench(b, DefaultConfig())
	checkpoint(b, l)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
			if _, err := l.Sync(context.Background()); err != nil {
				b.Error(err)
			}
		}
	}()
	head, body := make([]byte, 40), make([]byte, 360)
	var spent, worst time.Duration
	b.ResetTimer()
	start := time.Now()
	const batch = 200 // a millisecond's
	for i := 0; i < b.N; i += batch {
		time.Sleep(time.Until(start.Add(time.Duration(i) * 5 * time.Microsecond)))
		began := time.Now()
		for range batch {
			if _, err := l.Append(1, head, body); err != nil {
				b.Fatal(err)
			}
		}
		took := time.Since(began)
		spent += took
		worst = max(worst, took)
	}
	b.StopTimer()
	close(stop)
	<-done
	b.ReportMetric(float64(spent)/float64((b.N+batch-1)/batch*batch), "ns/append")
	b.ReportMetric(float64(worst.Microseconds()), "worst-us/batch")
}

func BenchmarkSync(b *testing.B) {
	l := openBench(b, DefaultConfig())
	checkpoint(b, l)
	body := make([]byte, 400)
	for b.Loop() {
		if _, err := l.Append(1, nil, body); err != nil {
			b.Fatal(err)
		}
		if _, err := l.Sync(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
