package wal

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestModel compares random histories of a journal with a list.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		type placed struct {
			entry
			pos int64
		}
		var model []placed // what must be replayed
		var boundaries []int64
		l, _ := mustOpen(t, dir, small)
		defer func() { abandon(t, l) }()
		n := uint64(0)
		reopen := func(clean bool) {
			if clean {
				mustClose(t, l)
			} else {
				abandon(t, l)
			}
			var got, want []entry
			l, got = mustOpen(t, dir, Config{Segment: int64(rapid.IntRange(1, 3).Draw(rt, "pages")) * page})
			for _, p := range model {
				want = append(want, p.entry)
			}
			if !slices.Equal(got, want) {
				rt.Fatalf("replayed %d records, want %d", len(got), len(want))
			}
			if info := l.Info(); info.Damage != nil || info.CleanShutdown != clean || !info.SameBoot {
				rt.Fatalf("%+v", info)
			}
			boundaries = append(boundaries, l.Info().Boundary)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				for range rapid.IntRange(1, 20).Draw(rt, "records") {
					e := entry{
						rapid.Uint8Range(1, 255).Draw(rt, "kind"),
						string(numbered(n, rapid.IntRange(0, 900).Draw(rt, "size"))),
					}
					n++
					pos := mustAppend(t, l, e)
					if len(model) > 0 && pos <= model[len(model)-1].pos {
						rt.Fatal("positions go back")
					}
					model = append(model, placed{e, pos})
				}
			},
			"rotate": func(rt *rapid.T) {
				b := mustRotate(t, l)
				if len(model) > 0 && model[len(model)-1].pos > b {
					rt.Fatal("the boundary is before the last record")
				}
				boundaries = append(boundaries, b)
			},
			"free": func(rt *rapid.T) {
				if len(boundaries) == 0 {
					rt.Skip()
				}
				b := rapid.SampledFrom(boundaries).Draw(rt, "boundary")
				mustFree(t, l, b)
				// Boundaries are beginnings of segments.
				model = slices.DeleteFunc(model, func(p placed) bool { return p.pos <= b })
			},
			"sync": func(rt *rapid.T) {
				if pos := mustSync(t, l); pos != l.End() {
					rt.Fatalf("synced to %d of %d", pos, l.End())
				}
			},
			"reopen": func(*rapid.T) { reopen(true) },
			"kill":   func(*rapid.T) { reopen(false) },
		})
	})
}

// TestPowerCut builds what a power cut may leave: each sector of each file is as it was when Sync returned or as it
// was in the end, and each renaming happened or did not. Everything that Sync covered and that was not freed must be
// replayed, and nothing that was never appended.
func TestPowerCut(t *testing.T) {
	const sector = 512
	required := 0
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		l, _ := mustOpen(t, dir, Config{Segment: page, Bytes: 6 * page})
		var all []entry
		var positions []int64
		freed := int64(0)
		step := func() {
			for range 1 + r.IntN(30) {
				if l.Stats().Segments > 3 {
					freed = l.segmentBase()
					mustFree(t, l, freed)
				}
				n := uint64(len(all))
				e := entry{uint8(1 + n%255), string(numbered(n, r.IntN(400)))}
				positions = append(positions, mustAppend(t, l, e))
				all = append(all, e)
			}
		}
		for range r.IntN(4) {
			step()
		}
		synced := mustSync(t, l)
		before := snapshot(t, dir)
		for range r.IntN(4) {
			step()
		}
		after := snapshot(t, dir)
		abandon(t, l)

		cut := t.TempDir()
		for inode, a := range after {
			b, had := before[inode]
			if !had {
				b = fileImage{a.name, make([]byte, len(a.content))}
				if r.IntN(2) == 0 {
					continue
				}
			}
			name := []string{a.name, b.name}[r.IntN(2)]
			for at := 0; at < len(a.content); at += sector {
				if r.IntN(2) == 0 {
					copy(a.content[at:at+sector], b.content[at:])
				}
			}
			if err := os.WriteFile(filepath.Join(cut, name), a.content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, _ := replayOnly(t, cut)
		if !subsequence(got, all) {
			t.Fatalf("seed %d: a record that was never appended, or in the wrong place", seed)
		}
		for i, e := range all {
			if positions[i] <= synced && positions[i] > freed {
				required++
				if !slices.Contains(got, e) {
					t.Fatalf("seed %d: record %d of %d is missing", seed, i, len(all))
				}
			}
		}
	}
	t.Logf("%d records were synced and not freed, all were there", required)
}

type fileImage struct {
	name    string
	content []byte
}

// snapshot returns the segment files by what stays when they are renamed. It may have to try again while the log
// prepares the next one.
func snapshot(t *testing.T, dir string) map[any]fileImage {
	t.Helper()
again:
	files := map[any]fileImage{}
	for _, path := range mustGlob(t, dir) {
		if filepath.Ext(path) != suffix {
			continue
		}
		st, err := os.Stat(path)
		content, readErr := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(readErr, os.ErrNotExist) {
			goto again
		}
		if err = errors.Join(err, readErr); err != nil {
			t.Fatal(err)
		}
		files[inode(st)] = fileImage{filepath.Base(path), content}
	}
	return files
}
