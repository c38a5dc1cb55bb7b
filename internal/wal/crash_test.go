package wal

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"
)

const crashDir = "HOLDFAST_TEST_CRASH_DIR"

var crashConfig = Config{Segment: 16 * page, Bytes: 8 * 16 * page}

// The child writes 16-byte notes to its standard output; a pipe takes each of them whole.
const (
	noteReplayed = 1 // the child goes on with this number
	noteAppended = 2
	noteFreeing  = 3 // all records with lower numbers may be gone from here on
)

// crashChild appends numbered records from several goroutines, says so, checkpoints, and is killed on the way.
func crashChild(dir string) {
	var next uint64
	l, err := Open(dir, crashConfig, func(_ uint8, payload []byte) error {
		n, err := number(payload)
		next = max(next, n+1)
		return err
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	note := func(what, n uint64) {
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], what)
		binary.LittleEndian.PutUint64(b[8:], n)
		if _, err := os.Stdout.Write(b[:]); err != nil {
			os.Exit(2)
		}
	}
	note(noteReplayed, next)
	var mu sync.Mutex // numbers are in the order of the log
	var placed placement
	placed.after = next
	appendNext := func() (uint64, error) {
		mu.Lock()
		defer mu.Unlock()
		b := numbered(next, 8+int(next*7919%900))
		pos, err := l.Append(uint8(1+next%255), b[:8], b[8:])
		if err != nil {
			return 0, err
		}
		placed.add(next, pos)
		next++
		return next - 1, nil
	}
	go func() {
		for range time.Tick(3 * time.Millisecond) {
			if _, err := l.Sync(context.Background()); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(5)
			}
		}
	}()
	for range 3 {
		go func() {
			for {
				n, err := appendNext()
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(3)
				}
				note(noteAppended, n)
			}
		}()
	}
	for range l.Pressure() {
		if l.Stats().Segments < 5 {
			continue
		}
		boundary := l.segmentBase()
		note(noteFreeing, placed.below(boundary))
		if err := l.Free(boundary); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(4)
		}
	}
}

// placement knows where this process's records are.
type placement struct {
	mu    sync.Mutex
	pos   []int64
	first uint64
	after uint64 // the next number
}

func (p *placement) add(n uint64, pos int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pos) == 0 {
		p.first = n
	}
	p.pos = append(p.pos, pos)
	p.after = n + 1
}

// below returns a number such that all records from it on lie behind boundary. One record may be in the log already
// and not known here.
func (p *placement) below(boundary int64) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i, _ := slices.BinarySearch(p.pos, boundary+1); i < len(p.pos) {
		return p.first + uint64(i)
	}
	return p.after + 1
}

func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	noted, replayed, freed := 0, 0, 0
	var nextWant uint64 // the child must go on at least here
	var kept uint64     // from here on nothing was freed
	few := func() bool { return noted < 1000 || freed == 0 }
	// With a slow disk it takes more and longer lives until segments begin.
	for round := 0; round < 12 || few() && round < 100; round++ {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(out)
		var appended []uint64
		var b [16]byte
		started := false
		for {
			if _, err := io.ReadFull(r, b[:]); err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("round %d: %v", round, err)
				}
				break
			}
			n := binary.LittleEndian.Uint64(b[8:])
			switch binary.LittleEndian.Uint64(b[:]) {
			case noteReplayed:
				if n < nextWant {
					t.Fatalf("round %d: the child goes on at %d, %d was appended", round, n, nextWant-1)
				}
				started = true
				time.AfterFunc(time.Duration((1+round/12)*(5+rand.IntN(80)))*time.Millisecond, func() { cmd.Process.Kill() })
			case noteAppended:
				appended = append(appended, n)
			case noteFreeing:
				freed++
				kept = n
			}
		}
		cmd.Wait()
		if !started {
			t.Fatalf("round %d: the child did not start", round)
		}
		checkKilled(t, round, dir, appended, &nextWant, kept, &replayed)
		noted += len(appended)
	}
	t.Logf("%d records noted, %d replayed, %d checkpoints, none missing", noted, replayed, freed)
	if few() {
		t.Errorf("%d records, %d checkpoints: too few to mean something", noted, freed)
	}
}

// checkKilled reads what the child left. The records are numbered without a hole, so all of them up to the highest
// that was noted must be there, from the first that was not freed.
func checkKilled(t *testing.T, round int, dir string, appended []uint64, nextWant *uint64, kept uint64, replayed *int) {
	t.Helper()
	var numbers []uint64
	l := &Log{dir: dir, size: crashConfig.segment(), boot: bootID(), log: discard}
	if _, err := l.replay(func(kind uint8, payload []byte) error {
		n, err := number(payload)
		if err == nil && kind != uint8(1+n%255) {
			err = fmt.Errorf("record %d has kind %d", n, kind)
		}
		numbers = append(numbers, n)
		return err
	}); err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	if l.info.Damage != nil || l.info.CleanShutdown || !l.info.SameBoot {
		t.Errorf("round %d: %+v", round, l.info)
	}
	for i := 1; i < len(numbers); i++ {
		if numbers[i] != numbers[i-1]+1 {
			t.Fatalf("round %d: %d follows %d", round, numbers[i], numbers[i-1])
		}
	}
	if kept < *nextWant && (len(numbers) == 0 || numbers[0] > kept) {
		t.Fatalf("round %d: records from %d on were not freed, the log begins behind", round, kept)
	}
	*replayed += len(numbers)
	for _, n := range appended {
		*nextWant = max(*nextWant, n+1)
	}
	if len(appended) > 0 && (len(numbers) == 0 || numbers[len(numbers)-1] < *nextWant-1) {
		t.Fatalf("round %d: %d was appended, the log ends before", round, *nextWant-1)
	}
}
