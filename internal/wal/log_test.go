package wal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestReopen(t *testing.T) {
	for name, end := range map[string]func(testing.TB, *Log){"closed": mustClose, "killed": abandon} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "journal")
			l, got := mustOpen(t, dir, small)
			if len(got) != 0 || !l.Info().Fresh || !l.Info().CleanShutdown || !l.Info().SameBoot {
				t.Fatalf("fresh: %+v", l.Info())
			}
			want := fill(t, l, 100, 100) // several segments
			end(t, l)

			l, got = mustOpen(t, dir, small)
			checkSame(t, got, want)
			info := l.Info()
			if info.Fresh || info.CleanShutdown != (name == "closed") || !info.SameBoot || info.Damage != nil {
				t.Errorf("%+v", info)
			}
			if info.Records != 100 || info.Bytes != 100*100 || info.Segments != 4 {
				t.Errorf("%+v", info)
			}
			more := entry{7, "after"}
			mustAppend(t, l, more)
			mustFree(t, l, info.Boundary)
			end(t, l)

			l, got = mustOpen(t, dir, small)
			checkSame(t, got, []entry{more})
			if l.Info().Damage != nil {
				t.Error(l.Info().Damage)
			}
			mustClose(t, l)
		})
	}
}

func TestPositionsAreMonotonic(t *testing.T) {
	dir := t.TempDir()
	last := int64(0)
	for range 5 {
		l, _ := mustOpen(t, dir, small)
		for range 60 {
			pos := mustAppend(t, l, entry{1, "some payload of a record"})
			if pos <= last || pos != l.End() {
				t.Fatalf("position %d after %d, end %d", pos, last, l.End())
			}
			last = pos
		}
		if pos := mustSync(t, l); pos != last || l.Synced() != last {
			t.Fatalf("synced %d, %d; want %d", pos, l.Synced(), last)
		}
		mustClose(t, l)
	}
}

func TestEmptySegmentsDoNotPileUp(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, small)
	want := fill(t, l, 3, 10)
	abandon(t, l)
	for range 10 {
		l, got := mustOpen(t, dir, small)
		checkSame(t, got, want)
		if l.Info().Damage != nil {
			t.Fatal(l.Info().Damage)
		}
		if s := l.Stats(); s.Segments != 2 {
			t.Fatalf("%+v", s)
		}
		abandon(t, l)
	}
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	l, _ := mustOpen(t, dir, small)
	fill(t, l, 50, 100)
	mustClose(t, l)
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v %v", st.Mode(), err)
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if st, err := e.Info(); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", e.Name(), st.Mode(), err)
		}
	}
}

func TestRecordLimits(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, small)
	if _, err := l.Append(0, nil, nil); !errors.Is(err, ErrKind) {
		t.Errorf("kind 0: %v", err)
	}
	if _, err := l.Append(1, make([]byte, l.MaxRecord()), []byte{1}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	want := []entry{
		{255, ""},
		{1, strings.Repeat("x", l.MaxRecord())},
		{2, strings.Repeat("y", l.MaxRecord())},
		{3, "z"},
	}
	for _, e := range want {
		mustAppend(t, l, e)
	}
	mustClose(t, l)
	l, got := mustOpen(t, dir, small)
	checkSame(t, got, want)
	if !l.Info().CleanShutdown {
		t.Error("the marker of Close did not fit")
	}
	mustClose(t, l)
}

func TestCleanMarkerFitsBehindAFullSegment(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, small)
	mustAppend(t, l, entry{1, strings.Repeat("x", l.MaxRecord())})
	mustClose(t, l)
	l, got := mustOpen(t, dir, small)
	if len(got) != 1 || !l.Info().CleanShutdown {
		t.Errorf("%d records, %+v", len(got), l.Info())
	}
	mustClose(t, l)
}

func TestUseAfterClose(t *testing.T) {
	l, _ := mustOpen(t, t.TempDir(), small)
	mustClose(t, l)
	_, appendErr := l.Append(1, nil, nil)
	_, largeErr := l.Append(1, nil, make([]byte, l.MaxRecord()))
	_, syncErr := l.Sync(context.Background())
	_, rotateErr := l.Rotate()
	for name, err := range map[string]error{
		"append": appendErr, "large": largeErr, "sync": syncErr, "rotate": rotateErr, "free": l.Free(1), "close": l.Close(),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	l.Stats()
	l.End()
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, small)
	if _, err := Open(dir, small, nil); !errors.Is(err, ErrLocked) {
		t.Errorf("second Open: %v", err)
	}
	mustClose(t, l)
	l, _ = mustOpen(t, dir, small)
	mustClose(t, l)
}

func TestReplayErrorEndsOpen(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, small)
	want := fill(t, l, 50, 100)
	mustClose(t, l)
	n := 0
	_, err := Open(dir, small, func(uint8, []byte) error {
		if n++; n == 10 {
			return errTest
		}
		return nil
	})
	if !errors.Is(err, errTest) || n != 10 {
		t.Errorf("after %d records: %v", n, err)
	}
	l, got := mustOpen(t, dir, small)
	checkSame(t, got, want)
	mustClose(t, l)
}

func TestAnotherBoot(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, small, func(l *Log) { l.boot = [16]byte{1} })
	want := fill(t, l, 5, 10)
	abandon(t, l)
	l, got := mustOpen(t, dir, small)
	checkSame(t, got, want)
	if l.Info().SameBoot || l.Info().CleanShutdown {
		t.Errorf("%+v", l.Info())
	}
	mustClose(t, l)
}

func TestSegmentSizeMayChange(t *testing.T) {
	dir := t.TempDir()
	var want []entry
	for _, size := range []int64{4 * page, page, 2 * page, page - 50} {
		l, got := mustOpen(t, dir, Config{Segment: max(size, minSegment)})
		checkSame(t, got, want)
		if l.Info().Damage != nil {
			t.Fatal(l.Info().Damage)
		}
		want = append(want, fill(t, l, 70, 100)...)
		abandon(t, l)
	}
}

func TestConcurrentAppends(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, Config{Segment: 4 * page})
	const writers, each = 8, 300
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				b := numbered(uint64(w*each+i), 20+i%200)
				if _, err := l.Append(uint8(w+1), b[:8], b[8:]); err != nil {
					t.Error(err)
				}
				if i%100 == 0 {
					if _, err := l.Sync(context.Background()); err != nil {
						t.Error(err)
					}
				}
				if i%150 == 0 {
					if _, err := l.Rotate(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	abandon(t, l)
	l, got := mustOpen(t, dir, small)
	if len(got) != writers*each || l.Info().Damage != nil {
		t.Fatalf("%d records, %v", len(got), l.Info().Damage)
	}
	next := [writers]uint64{}
	for _, e := range got {
		n, err := number([]byte(e.payload))
		if err != nil {
			t.Fatal(err)
		}
		w := uint64(e.kind - 1)
		if n != w*each+next[w] {
			t.Fatalf("writer %d: record %d out of order", w, n)
		}
		next[w]++
	}
	mustClose(t, l)
}

func TestAppendDoesNotAllocate(t *testing.T) {
	l, _ := mustOpen(t, t.TempDir(), Config{Segment: 1 << 20})
	body := make([]byte, 360)
	got := testing.AllocsPerRun(1000, func() {
		var head [40]byte // must not be moved to the heap by Append
		head[0]++
		if _, err := l.Append(1, head[:], body); err != nil {
			t.Fatal(err)
		}
	})
	if got != 0 {
		t.Errorf("%v allocations", got)
	}
	mustClose(t, l)
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	l, _ := mustOpen(t, t.TempDir(), small, WithMetrics(reg))
	fill(t, l, 100, 100)
	mustSync(t, l)
	want := `
# HELP holdfast_journal_records_total Records appended.
# TYPE holdfast_journal_records_total counter
holdfast_journal_records_total 100
# HELP holdfast_journal_rotations_total Segments begun.
# TYPE holdfast_journal_rotations_total counter
holdfast_journal_rotations_total 3
# HELP holdfast_journal_segments Live segments, the current one included.
# TYPE holdfast_journal_segments gauge
holdfast_journal_segments 4
# HELP holdfast_journal_unsynced_bytes Length of the log's tail that is not on stable storage.
# TYPE holdfast_journal_unsynced_bytes gauge
holdfast_journal_unsynced_bytes 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "holdfast_journal_records_total",
		"holdfast_journal_rotations_total", "holdfast_journal_segments", "holdfast_journal_unsynced_bytes"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
	if _, err := Open(t.TempDir(), small, nil, WithMetrics(reg)); err == nil {
		t.Error("a second journal with the same registerer")
	}
	mustClose(t, l)
	l, _ = mustOpen(t, t.TempDir(), small, WithMetrics(reg))
	mustClose(t, l)
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for want, cfg := range map[string]Config{
		"JOURNAL_SEGMENT": {Segment: 4095},
		"JOURNAL_BYTES":   {Segment: 8192, Bytes: 8192},
	} {
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), want+":") {
			t.Errorf("%+v: %v", cfg, err)
		}
		if _, err := Open(t.TempDir(), cfg, nil); err == nil {
			t.Errorf("%+v was opened", cfg)
		}
	}
	for _, cfg := range []Config{{Segment: maxSegment + 1}, {Segment: -1}, {Segment: 8192, Bytes: -1}} {
		if cfg.Validate() == nil {
			t.Errorf("%+v is valid", cfg)
		}
	}
}
