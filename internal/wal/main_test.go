package wal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		crashChild(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

const page = 4096

var small = Config{Segment: page}

// entry is a record as a test remembers it.
type entry struct {
	kind    uint8
	payload string
}

// numbered makes a payload that holds n and size-8 bytes that follow from it.
func numbered(n uint64, size int) []byte {
	b := make([]byte, max(size, 8))
	binary.LittleEndian.PutUint64(b, n)
	r := rand.New(rand.NewPCG(n, 7))
	for i := 8; i < len(b); i++ {
		b[i] = byte(r.Uint32())
	}
	return b
}

func number(payload []byte) (uint64, error) {
	if len(payload) < 8 {
		return 0, fmt.Errorf("payload of %d bytes", len(payload))
	}
	n := binary.LittleEndian.Uint64(payload)
	if string(numbered(n, len(payload))) != string(payload) {
		return 0, fmt.Errorf("record %d is not what was appended", n)
	}
	return n, nil
}

func mustOpen(t testing.TB, dir string, cfg Config, opts ...Option) (*Log, []entry) {
	t.Helper()
	var got []entry
	l, err := Open(dir, cfg, func(kind uint8, payload []byte) error {
		got = append(got, entry{kind, string(payload)})
		return nil
	}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l, got
}

func mustAppend(t testing.TB, l *Log, e entry) int64 {
	t.Helper()
	half := len(e.payload) / 2
	pos, err := l.Append(e.kind, []byte(e.payload[:half]), []byte(e.payload[half:]))
	if err != nil {
		t.Fatal(err)
	}
	return pos
}

func mustSync(t testing.TB, l *Log) int64 {
	t.Helper()
	pos, err := l.Sync(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return pos
}

func mustRotate(t testing.TB, l *Log) int64 {
	t.Helper()
	boundary, err := l.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	return boundary
}

func mustFree(t testing.TB, l *Log, boundary int64) {
	t.Helper()
	if err := l.Free(boundary); err != nil {
		t.Fatal(err)
	}
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// abandon leaves the files as a kill would: no marker, nothing flushed.
func abandon(t testing.TB, l *Log) {
	t.Helper()
	l.freeing.Lock()
	defer l.freeing.Unlock()
	// The syncs goroutine may flush on its way out; what is in the page cache does not change by that.
	if l.stop() {
		if err := l.release(); err != nil {
			t.Fatal(err)
		}
	}
}

// segmentPaths returns the segment files that are part of the log, oldest first.
func segmentPaths(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return slices.DeleteFunc(names, func(path string) bool {
		base, _ := parseName(filepath.Base(path))
		f, err := readHeader(path, base)
		if err != nil {
			t.Fatal(err)
		}
		return f.unused
	})
}

func fill(t testing.TB, l *Log, n, size int) []entry {
	t.Helper()
	var want []entry
	for i := range n {
		e := entry{uint8(1 + i%200), string(numbered(uint64(i), size))}
		mustAppend(t, l, e)
		want = append(want, e)
	}
	return want
}

func checkSame(t testing.TB, got, want []entry) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("replayed %d records, want %d, first difference at %d", len(got), len(want), firstDifference(got, want))
	}
}

func firstDifference(a, b []entry) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// subsequence reports whether got is want with some left out.
func subsequence(got, want []entry) bool {
	for _, g := range got {
		i := slices.Index(want, g)
		if i < 0 {
			return false
		}
		want = want[i+1:]
	}
	return true
}

var (
	errTest = errors.New("no space left for the test")
	discard = slog.New(slog.DiscardHandler)
)
