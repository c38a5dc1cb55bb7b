package wal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestRotateAndFree(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, small)
	if b := mustRotate(t, l); b != 0 || l.Stats().Segments != 1 {
		t.Errorf("an empty segment was left behind: boundary %d, %+v", b, l.Stats())
	}
	first := mustAppend(t, l, entry{1, "first"})
	boundary := mustRotate(t, l)
	second := mustAppend(t, l, entry{1, "second"})
	if first > boundary || second <= boundary {
		t.Errorf("%d, %d; boundary %d", first, second, boundary)
	}
	mustFree(t, l, first-1) // not wholly before
	if n := l.Stats().Segments; n != 2 {
		t.Errorf("%d segments", n)
	}
	mustFree(t, l, first) // any position will do
	if n := l.Stats().Segments; n != 1 {
		t.Errorf("%d segments", n)
	}
	mustFree(t, l, 1<<60) // the current one stays
	abandon(t, l)
	l, got := mustOpen(t, dir, small)
	checkSame(t, got, []entry{{1, "second"}})
	mustClose(t, l)
}

func TestFilesAreUsedAgain(t *testing.T) {
	dir := t.TempDir()
	var made atomic.Int32
	d := disk{flush: flushRange, sync: (*os.File).Sync, preallocate: func(f *os.File, size int64) error {
		if strings.HasSuffix(f.Name(), preparing) {
			if st, err := f.Stat(); err == nil && st.Size() == 0 {
				made.Add(1)
			}
		}
		return preallocate(f, size)
	}}
	l, _ := mustOpen(t, dir, Config{Segment: page, Bytes: 4 * page}, withDisk(d))
	stale := entry{1, strings.Repeat("old", 300)}
	for range 100 {
		mustAppend(t, l, stale)
		mustAppend(t, l, stale)
		mustFree(t, l, mustRotate(t, l))
	}
	fresh := entry{2, "new"}
	mustAppend(t, l, fresh)
	if n := made.Load(); n > 4 {
		t.Errorf("%d files were made", n)
	}
	if s := l.Stats(); s.Bytes > 4*page {
		t.Errorf("%+v", s)
	}
	abandon(t, l)
	l, got := mustOpen(t, dir, small)
	checkSame(t, got, []entry{fresh}) // none of the stale records behind it
	if l.Info().Damage != nil {
		t.Error(l.Info().Damage)
	}
	mustClose(t, l)
	if n := len(mustGlob(t, dir)); n > 5 {
		t.Errorf("%d files", n)
	}
}

func TestAppendWaitsAtTheCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l, _ := mustOpen(t, dir, Config{Segment: page, Bytes: 3 * page})
		big := entry{1, strings.Repeat("x", l.MaxRecord())}
		for range 3 {
			mustAppend(t, l, big)
		}
		var done atomic.Int32
		for range 3 {
			go func() {
				mustAppend(t, l, entry{2, "waits"})
				done.Add(1)
			}()
		}
		synctest.Wait()
		if s := l.Stats(); done.Load() != 0 || s.Waiting != 3 || s.Bytes != 3*page || s.Blocked == 0 {
			t.Fatalf("%d went through, %+v", done.Load(), s)
		}
		select {
		case <-l.Pressure():
		default:
			t.Error("no pressure")
		}
		boundary, err := l.Rotate()
		if !errors.Is(err, ErrFull) || boundary != l.segmentBase() {
			t.Errorf("%d %v", boundary, err)
		}
		mustFree(t, l, page) // one
		synctest.Wait()
		if s := l.Stats(); done.Load() != 3 || s.Waiting != 0 || s.Bytes != 3*page {
			t.Fatalf("%d went through, %+v", done.Load(), s)
		}
		mustClose(t, l)
	})
}

func TestCloseEndsTheWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := mustOpen(t, t.TempDir(), Config{Segment: page, Bytes: 2 * page})
		big := make([]byte, l.MaxRecord())
		errs := make(chan error, 3)
		for range 3 {
			go func() {
				_, err := l.Append(1, nil, big)
				errs <- err
			}()
		}
		synctest.Wait()
		if n := l.Stats().Waiting; n != 1 {
			t.Fatalf("%d wait", n)
		}
		mustClose(t, l)
		closed := 0
		for range 3 {
			if err := <-errs; errors.Is(err, ErrClosed) {
				closed++
			} else if err != nil {
				t.Error(err)
			}
		}
		if closed != 1 {
			t.Errorf("%d", closed)
		}
	})
}

func TestNoCap(t *testing.T) {
	l, _ := mustOpen(t, t.TempDir(), Config{Segment: page})
	big := entry{1, strings.Repeat("x", l.MaxRecord())}
	for range 50 {
		mustAppend(t, l, big)
	}
	if s := l.Stats(); s.Segments != 50 || s.Blocked != 0 {
		t.Errorf("%+v", s)
	}
	mustClose(t, l)
}

// fullDisk is a disk that can be made full and failing.
type fullDisk struct{ full, failing atomic.Bool }

func (d *fullDisk) disk() disk {
	return disk{
		preallocate: func(f *os.File, size int64) error {
			if d.full.Load() {
				return errTest
			}
			return preallocate(f, size)
		},
		flush: func(f *os.File, data []byte) error {
			if d.failing.Load() {
				return errTest
			}
			return flushRange(f, data)
		},
		sync: (*os.File).Sync,
	}
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	var d fullDisk
	l, _ := mustOpen(t, dir, small, withDisk(d.disk()))
	big := strings.Repeat("x", l.MaxRecord())
	var want []entry
	for kind := uint8(1); kind < 4; kind++ {
		want = append(want, entry{kind, big})
		mustAppend(t, l, want[len(want)-1])
	}
	d.full.Store(true)
	// One segment may have been prepared before.
	n := 0
	for ; n < 2; n++ {
		e := entry{9, big}
		if _, err := l.Append(e.kind, nil, []byte(e.payload)); err != nil {
			break
		}
		want = append(want, e)
	}
	for range 3 { // each tries again
		before := l.Stats()
		if _, err := l.Append(10, nil, []byte(big)); !errors.Is(err, errTest) {
			t.Fatalf("full disk: %v", err)
		}
		if _, err := l.Rotate(); !errors.Is(err, errTest) {
			t.Fatalf("full disk: %v", err)
		}
		if after := l.Stats(); after.Failures < before.Failures+2 || after.End != before.End {
			t.Fatalf("%+v, then %+v", before, after)
		}
	}
	mustSync(t, l)
	// One more try may still be under way.
	gone := func() bool {
		_, err := os.Stat(filepath.Join(dir, preparing))
		return errors.Is(err, os.ErrNotExist)
	}
	for deadline := time.Now().Add(30 * time.Second); !gone(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the file that could not be made is still there")
		}
	}
	d.full.Store(false)
	want = append(want, entry{11, big})
	_, err := l.Append(11, nil, []byte(big))
	if errors.Is(err, errTest) { // of a try that began before
		_, err = l.Append(11, nil, []byte(big))
	}
	if err != nil {
		t.Fatal(err)
	}
	abandon(t, l)
	l, got := mustOpen(t, dir, small)
	checkSame(t, got, want)
	if l.Info().Damage != nil {
		t.Error(l.Info().Damage)
	}
	mustClose(t, l)
}

func TestOpenOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	var d fullDisk
	d.full.Store(true)
	if _, err := Open(dir, small, nil, withDisk(d.disk())); !errors.Is(err, errTest) {
		t.Errorf("%v", err)
	}
	l, _ := mustOpen(t, dir, small) // the lock was given back
	mustClose(t, l)
}

func TestFailedFlushIsRemembered(t *testing.T) {
	dir := t.TempDir()
	var d fullDisk
	l, _ := mustOpen(t, dir, small, withDisk(d.disk()))
	mustAppend(t, l, entry{1, "safe"})
	safe := mustSync(t, l)
	lost := mustAppend(t, l, entry{1, "not safe"})
	d.failing.Store(true)
	for range 2 {
		if pos, err := l.Sync(context.Background()); !errors.Is(err, errTest) || pos != safe {
			t.Fatalf("%d %v", pos, err)
		}
		d.failing.Store(false) // the kernel would now say that all is well
	}
	boundary := mustRotate(t, l)
	mustAppend(t, l, entry{1, "in a good segment"})
	if _, err := l.Sync(context.Background()); !errors.Is(err, errTest) {
		t.Fatal("forgotten")
	}
	mustFree(t, l, boundary)
	if pos := mustSync(t, l); pos <= lost {
		t.Errorf("%d", pos)
	}
	mustClose(t, l)
}

func TestNoMarkerWhenCloseCannotFlush(t *testing.T) {
	dir := t.TempDir()
	var d fullDisk
	l, _ := mustOpen(t, dir, small, withDisk(d.disk()))
	mustAppend(t, l, entry{1, "x"})
	d.failing.Store(true)
	if err := l.Close(); !errors.Is(err, errTest) {
		t.Errorf("%v", err)
	}
	l, got := mustOpen(t, dir, small)
	if len(got) != 1 || l.Info().CleanShutdown {
		t.Errorf("%d records, %+v", len(got), l.Info())
	}
	mustClose(t, l)
}

func TestSyncIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started, goOn := make(chan struct{}), make(chan struct{})
		var flushes atomic.Int32
		d := disk{preallocate: preallocate, sync: (*os.File).Sync, flush: func(f *os.File, data []byte) error {
			if flushes.Add(1) == 1 {
				close(started)
				<-goOn
			}
			return flushRange(f, data)
		}}
		l, _ := mustOpen(t, t.TempDir(), Config{Segment: 16 * page}, withDisk(d))
		mustAppend(t, l, entry{1, "first"})
		first := make(chan int64)
		go func() { first <- mustSync(t, l) }()
		<-started
		const callers = 20
		ctx, cancel := context.WithCancel(context.Background())
		gaveUp := make(chan error)
		go func() {
			mustAppend(t, l, entry{1, "from who gives up"})
			_, err := l.Sync(ctx)
			gaveUp <- err
		}()
		type outcome struct{ appended, synced int64 }
		rest := make(chan outcome, callers)
		for range callers {
			go func() {
				pos := mustAppend(t, l, entry{1, "more"})
				rest <- outcome{pos, mustSync(t, l)}
			}()
		}
		synctest.Wait()
		cancel()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		close(goOn)
		<-first
		for range callers {
			if o := <-rest; o.synced < o.appended {
				t.Errorf("%+v", o)
			}
		}
		if n := flushes.Load(); n != 2 {
			t.Errorf("%d flushes for %d callers", n, callers+2)
		}
		mustSync(t, l) // nothing to do
		if n := flushes.Load(); n != 2 {
			t.Errorf("%d flushes", n)
		}
		mustClose(t, l)
	})
}

// Who asks for one flush after the other gets them at a pace, and after a silence at once.
func TestSyncIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := mustOpen(t, t.TempDir(), Config{Segment: 16 * page})
		start := time.Now()
		for i, silence := range []time.Duration{0, 0, 0, time.Second, 0} {
			time.Sleep(silence)
			asked := time.Now()
			mustAppend(t, l, entry{1, "one"})
			mustSync(t, l)
			want := pace
			if i == 0 || silence > 0 {
				want = 0
			}
			if took := time.Since(asked); took != want {
				t.Errorf("flush %d took %v, want %v", i, took, want)
			}
		}
		if took := time.Since(start); took != time.Second+3*pace {
			t.Errorf("all took %v", took)
		}
		mustClose(t, l)
	})
}

// What a killed process left in the page cache is flushed by the next one's first Sync.
func TestSyncCoversReplayedSegments(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, small)
	fill(t, l, 50, 100)
	abandon(t, l)
	var synced sync.Map
	d := disk{preallocate: preallocate, flush: flushRange, sync: func(f *os.File) error {
		synced.Store(f.Name(), true)
		return f.Sync()
	}}
	paths := segmentPaths(t, dir)
	l, _ = mustOpen(t, dir, small, withDisk(d))
	mustSync(t, l)
	abandon(t, l)
	for _, path := range paths {
		if _, ok := synced.Load(path); !ok {
			t.Errorf("%s was not flushed", filepath.Base(path))
		}
	}
}

func TestFreeWhileFlushing(t *testing.T) {
	started, goOn := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	d := disk{preallocate: preallocate, sync: (*os.File).Sync, flush: func(f *os.File, data []byte) error {
		if once.CompareAndSwap(false, true) {
			p, _ := decodePrepared(data)
			close(started)
			<-goOn
			if now, ok := decodePrepared(data); !ok || now != p {
				t.Error("the file was used again under the flush")
			}
		}
		return flushRange(f, data)
	}}
	l, _ := mustOpen(t, t.TempDir(), Config{Segment: page, Bytes: 4 * page}, withDisk(d))
	mustAppend(t, l, entry{1, "x"})
	done := make(chan struct{})
	go func() { mustSync(t, l); close(done) }()
	<-started
	mustFree(t, l, mustRotate(t, l))
	for range 2 { // as far as the segments reach
		mustAppend(t, l, entry{1, strings.Repeat("y", l.MaxRecord())})
		mustFree(t, l, l.segmentBase())
	}
	close(goOn)
	<-done
	for range 10 {
		mustAppend(t, l, entry{1, strings.Repeat("z", l.MaxRecord())})
		mustFree(t, l, l.segmentBase())
	}
	mustClose(t, l)
}
