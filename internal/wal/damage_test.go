package wal

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// image makes a journal of several segments, the last with several records, and returns it as a kill leaves it.
func image(t testing.TB) (dir string, want []entry) {
	dir = t.TempDir()
	l, _ := mustOpen(t, dir, small)
	want = fill(t, l, 90, 100)
	abandon(t, l)
	return dir, want
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// replayOnly reads a directory without beginning a segment.
func replayOnly(t testing.TB, dir string) (got []entry, info Info) {
	t.Helper()
	l := &Log{dir: dir, size: page, boot: bootID(), log: discard}
	if _, err := l.replay(func(kind uint8, payload []byte) error {
		got = append(got, entry{kind, string(payload)})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got, l.info
}

func TestTornTailAtEveryByte(t *testing.T) {
	dir, want := image(t)
	paths := segmentPaths(t, dir)
	last := paths[len(paths)-1]
	whole := readFile(t, last)
	p, _ := decodePrepared(whole)
	w, _ := walkRecords(whole, p.epoch, nil)
	size := recordSize(100)
	start := w.end - size
	stale := rand.New(rand.NewPCG(1, 2))
	for _, before := range []string{"zeros", "stale", "cut"} {
		for n := range recordHeader + 100 { // bytes of the last record that were written
			torn := bytes.Clone(whole)
			rest := torn[start+n:]
			switch before {
			case "zeros":
				clear(rest)
			case "stale":
				for i := range rest {
					rest[i] = byte(stale.Uint32())
				}
			case "cut":
				torn = torn[:start+n]
			}
			if bytes.Equal(torn[start:min(len(torn), start+recordHeader+100)], whole[start:start+recordHeader+100]) {
				continue
			}
			if err := os.WriteFile(last, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			got, info := replayOnly(t, dir)
			checkSame(t, got, want[:len(want)-1])
			if before != "cut" && info.Damage != nil { // a shorter file is the disk's doing
				t.Fatalf("%s %d: %v", before, n, info.Damage)
			}
		}
	}
}

// The order in which putRecord stores is payload, length and kind, then the first eight bytes; killed before those,
// the place still holds what a recycled file held there.
func TestKilledBeforeTheLastStore(t *testing.T) {
	fresh := newEpoch(0x3333333344444444)
	for name, old := range map[string]uint64{
		"another epoch":      newEpoch(0x1111111122222222),
		"its low half alike": fresh ^ 1<<50,
		"its high half":      fresh ^ 1<<10,
	} {
		data := make([]byte, page)
		off := segmentHeader
		payload := []byte("the same payload in both lives of the file")
		for range 10 {
			putRecord(data, off, old, 9, nil, payload)
			off += recordSize(len(payload))
		}
		putRecord(data, segmentHeader, fresh, 9, nil, payload)
		w, err := walkRecords(data, fresh, nil)
		if err != nil || w.records != 1 || w.gaps != 0 {
			t.Errorf("%s: %+v %v", name, w, err)
		}
		// The tag alone must tell, before any checksum is computed.
		if name == "its high half" && order.Uint32(data[segmentHeader+recordSize(len(payload))+4:]) == tagAt(fresh, segmentHeader+recordSize(len(payload))) {
			t.Error("the tag does not depend on the epoch")
		}
		// A record of this epoch is only good where it was written.
		moved := recordSize(len(payload)) * 3
		copy(data[segmentHeader+moved:], data[segmentHeader:segmentHeader+recordSize(len(payload))])
		if _, _, ok := recordAt(data, segmentHeader+moved, fresh); ok {
			t.Errorf("%s: a moved record is taken", name)
		}
	}
}

func TestBitFlips(t *testing.T) {
	dir, want := image(t)
	paths := segmentPaths(t, dir)
	if len(paths) < 3 {
		t.Fatalf("%d segments", len(paths))
	}
	total := 0
	for i, path := range paths {
		whole := readFile(t, path)
		p, _ := decodePrepared(whole)
		w, _ := walkRecords(whole, p.epoch, nil)
		for bit := 0; bit < w.end*8; bit += 29 { // coprime with 8: every bit position
			flipped := bytes.Clone(whole)
			flipped[bit/8] ^= 1 << (bit % 8)
			if err := os.WriteFile(path, flipped, 0o600); err != nil {
				t.Fatal(err)
			}
			got, info := replayOnly(t, dir)
			if !subsequence(got, want) {
				t.Fatalf("segment %d, bit %d: a wrong record", i, bit)
			}
			if bit/8 >= segmentHeader {
				lost := len(want) - len(got)
				inPadding := lost == 0 && info.Damage == nil
				atTheEnd := lost == 1 && info.Damage == nil && i == len(paths)-1 && bit/8 >= w.end-recordSize(100)
				inTheMiddle := lost == 1 && info.Damage != nil && info.Damage.Gaps == 1
				if !inPadding && !atTheEnd && !inTheMiddle {
					t.Fatalf("segment %d, bit %d: %d lost, %v", i, bit, lost, info.Damage)
				}
			} else if len(got) < len(want) && info.Damage == nil {
				t.Fatalf("segment %d, header bit %d: %d lost without a word", i, bit, len(want)-len(got))
			}
			total++
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d flips", total)
}

func TestMissingSegment(t *testing.T) {
	dir, want := image(t)
	paths := segmentPaths(t, dir)
	if err := os.Remove(paths[1]); err != nil {
		t.Fatal(err)
	}
	l, got := mustOpen(t, dir, small)
	if !subsequence(got, want) || len(got) == len(want) {
		t.Error("wrong records")
	}
	if d := l.Info().Damage; d == nil || d.Gaps != 1 || d.First != page {
		t.Errorf("%+v", d)
	}
	mustClose(t, l)
}

func TestDamageStaysUntilFreed(t *testing.T) {
	dir, _ := image(t)
	paths := segmentPaths(t, dir)
	whole := readFile(t, paths[1])
	clear(whole[8:40]) // of the header: the segment cannot be read at all
	if err := os.WriteFile(paths[1], whole, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l, _ := mustOpen(t, dir, small)
		if l.Info().Damage == nil {
			t.Fatal("not noticed")
		}
		abandon(t, l)
		if !slices.Contains(mustGlob(t, dir), paths[1]) {
			t.Fatal("the damaged file is gone before Free")
		}
	}
	l, _ := mustOpen(t, dir, small)
	mustFree(t, l, l.Info().Boundary)
	mustClose(t, l)
	l, got := mustOpen(t, dir, small)
	if len(got) != 0 || l.Info().Damage != nil {
		t.Errorf("%d records, %v", len(got), l.Info().Damage)
	}
	mustClose(t, l)
}

func mustGlob(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestOtherFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	names := []string{"README", "0.wal", "000000000000ABCD.wal", "-00000000000001.wal"}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, got := mustOpen(t, dir, small)
	if len(got) != 0 || !l.Info().Fresh {
		t.Errorf("%d records, %+v", len(got), l.Info())
	}
	mustClose(t, l)
	for _, name := range names {
		if string(readFile(t, filepath.Join(dir, name))) != "mine" {
			t.Error(name)
		}
	}
}

// A client's bytes that look like records are not taken for records, even where a segment is damaged.
func TestForgedRecordsInPayload(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, small)
	forged := make([]byte, 1024)
	for off := 0; off+64 <= len(forged); off += 64 {
		putRecord(forged, off, l.epoch^1<<40, 3, nil, []byte("forged")) // all but one bit of the epoch is right
	}
	mustAppend(t, l, entry{1, "first"})
	pos := mustAppend(t, l, entry{1, string(forged)})
	mustAppend(t, l, entry{1, "last"})
	base := l.base
	abandon(t, l)
	path := segmentPaths(t, dir)[0]
	b := readFile(t, path)
	b[pos-base-int64(recordSize(len(forged)))] ^= 0xff // the forging record's checksum
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	got, info := replayOnly(t, dir)
	checkSame(t, got, []entry{{1, "first"}, {1, "last"}})
	if info.Damage == nil || info.Damage.Gaps != 1 {
		t.Errorf("%+v", info.Damage)
	}
}

// FuzzWalk gives the reader arbitrary bytes behind a good header.
func FuzzWalk(f *testing.F) {
	epoch := newEpoch(42)
	good := make([]byte, 1024)
	off := segmentHeader
	for _, s := range []string{"", "one", strings.Repeat("two", 50)} {
		putRecord(good, off, epoch, 1, nil, []byte(s))
		off += recordSize(len(s))
	}
	f.Add(good[segmentHeader:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		data := append(make([]byte, segmentHeader), b...)
		last := 0
		w, err := walkRecords(data, epoch, func(kind uint8, payload []byte) error {
			last += recordSize(len(payload))
			if kind == kindClean || len(payload) > len(b) {
				t.Fatalf("kind %d, %d bytes", kind, len(payload))
			}
			return nil
		})
		if err != nil || w.end < segmentHeader+last || w.end > len(data)+align || w.lost < 0 {
			t.Fatalf("%+v %v", w, err)
		}
	})
}

// FuzzDamage changes an image anywhere: what is replayed is always something that was appended, in order.
func FuzzDamage(f *testing.F) {
	dir, want := image(f)
	paths := segmentPaths(f, dir)
	f.Add(uint16(0), uint32(200), []byte{1, 2, 3})
	f.Add(uint16(0), uint32(64), []byte{})
	f.Add(uint16(0), uint32(0), make([]byte, segmentHeader))
	f.Add(uint16(1), uint32(64), bytes.Repeat([]byte{0}, 64))
	f.Fuzz(func(t *testing.T, segment uint16, at uint32, b []byte) {
		path := paths[int(segment)%len(paths)]
		whole := readFile(t, path)
		defer os.WriteFile(path, whole, 0o600)
		changed := bytes.Clone(whole)
		if len(b) == 0 {
			changed = changed[:int(at)%len(changed)]
		} else {
			copy(changed[int(at)%len(changed):], b)
		}
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		got, info := replayOnly(t, dir)
		if !subsequence(got, want) {
			t.Fatal("a wrong record")
		}
		freed := path == paths[0] && len(changed) >= segmentHeader && allZero(changed[preparedSize:segmentHeader])
		if len(got) < len(want)-1 && info.Damage == nil && path != paths[len(paths)-1] && !freed {
			t.Fatalf("%d of %d records without a word", len(got), len(want))
		}
	})
}

// FuzzFile gives Open a file of arbitrary bytes.
func FuzzFile(f *testing.F) {
	dir, _ := image(f)
	f.Add(readFile(f, segmentPaths(f, dir)[0])[:600])
	f.Add([]byte("HFJRNL"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, segmentName(0)), b, 0o600); err != nil {
			t.Fatal(err)
		}
		replayOnly(t, dir)
	})
}
