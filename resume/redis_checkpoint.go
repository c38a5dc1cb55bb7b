package resume

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/internal/journal"
	"holdfast/internal/redisx"
)

// How a checkpoint is written, so that a kill or an error at any point leaves something that a replay makes whole:
//
//  1. Collect, with everything at rest; the batch that is being filled ends there (mark). Marks for meta are taken then.
//  2. Wait until the journal is in Redis up to the mark: what is written next must not know more than the journal does.
//  3. The other stores, and the ended sessions. They may now be ahead of the sessions, which replay allows for.
//  4. The sessions, in as few scripts as the size allows, each session with its counters and its part of the queue in
//     one of them. As long as the last has not run, the whole journal since the checkpoint before is there, and makes
//     of an old session or a new one the same.
//  5. With the last script, in one step: sessions that are gone, the marks, and the journal is trimmed up to the mark.
//
// A script that timed out may still run, even after those that were tried later: each has a number, and Redis refuses
// one that is less than the last. Whether it ran is not known, so the parts of queues that it wrote may be there: they
// are overwritten, or removed when they have been acknowledged, and two that overlap say the same.

var checkpointScript = redisx.Script(scripts, "checkpoint")

// scriptBytes is about how much one script of a checkpoint writes: Redis does nothing else meanwhile. Tests change it.
var scriptBytes = 8 << 20

// scriptValues bounds the values of one script, which Redis has to take apart before it begins.
const scriptValues = 100_000

// TouchAller is what a Live or a Flusher has to have if it is to write everything anew, after Redis may have lost
// what it wrote.
type TouchAller interface {
	// TouchAll makes the next checkpoint a whole one, as if none had been written before.
	TouchAll()
}

// Checkpoint writes what changed to Redis and frees the journal up to where it began.
func (s *Redis) Checkpoint(ctx context.Context, live Live, others ...Flusher) (err error) {
	s.one.Lock()
	defer s.one.Unlock()
	start := time.Now()
	defer func() { s.outcome(err, time.Since(start)) }()
	c := &checkpointWrite{s: s, removed: make(map[uint64][]uint64)}
	if s.queue.doubt.Swap(false) {
		defer func() {
			if err != nil {
				s.queue.doubt.Store(true)
			}
		}()
		if err := c.whole(ctx, live, others); err != nil {
			return err
		}
	}
	var meta map[string]*string
	var at mark
	var cut error
	changed, gone, commit, abort := live.Collect(func() {
		at, cut = s.queue.cut()
		// A mark and what it is about are made in one step, as far as Collect goes: they are written together, or not.
		meta = s.takeMeta()
	})
	ended := s.ended.take()
	if cut == nil {
		cut = c.write(ctx, at, others, collected{changed, gone}, ended, meta)
	}
	if cut != nil {
		abort()
		c.undo()
		s.ended.putBack(ended)
		s.putBackMeta(meta)
		return cut
	}
	commit()
	s.queue.free(at)
	s.madeRoom()
	return nil
}

// collected is what a Live collected.
type collected struct {
	changed []Change
	gone    []uint64
}

// checkpointWrite is one checkpoint on its way.
type checkpointWrite struct {
	s *Redis
	// known are the sessions that Redis has, when everything is written anew; nil otherwise.
	known   map[uint64]bool
	removed map[uint64][]uint64 // from stored, to be put back on failure
	args    scriptArgs
	buf     []byte // of values
}

// whole prepares to write everything: what Redis has is asked, since what was written may be lost.
func (c *checkpointWrite) whole(ctx context.Context, live Live, others []Flusher) error {
	all, ok := live.(TouchAller)
	if !ok {
		return nil
	}
	c.s.log.Warn("redis may have lost something, everything is written anew")
	ords, err := c.s.rdb.HKeys(ctx, c.s.keys.Node(c.s.node, "sessions")).Result()
	if err != nil {
		return fmt.Errorf("resume: stored sessions: %w", err)
	}
	parts, err := c.s.rdb.HKeys(ctx, c.s.keys.Node(c.s.node, "queues")).Result()
	if err != nil {
		return fmt.Errorf("resume: stored queues: %w", err)
	}
	c.known = make(map[uint64]bool, len(ords))
	for _, field := range ords {
		if ord, err := strconv.ParseUint(field, 10, 64); err == nil {
			c.known[ord] = true
		}
	}
	clear(c.s.stored)
	for _, field := range parts {
		if ord, last, ok := cutPart(field); ok {
			c.s.stored[ord] = append(c.s.stored[ord], last)
			c.known[ord] = true
		}
	}
	for _, lasts := range c.s.stored {
		slices.Sort(lasts)
	}
	all.TouchAll()
	for _, f := range others {
		if all, ok := f.(TouchAller); ok {
			all.TouchAll()
		}
	}
	return nil
}

// partField names a part of a queue in Redis, by its last place.
func partField(ord, last uint64) string {
	return strconv.FormatUint(ord, 10) + ":" + strconv.FormatUint(last, 10)
}

func cutPart(field string) (ord, last uint64, ok bool) {
	a, b, _ := strings.Cut(field, ":")
	ord, errA := strconv.ParseUint(a, 10, 64)
	last, errB := strconv.ParseUint(b, 10, 64)
	return ord, last, errA == nil && errB == nil
}

func (c *checkpointWrite) write(ctx context.Context, at mark, others []Flusher, what collected, ended []endedSession, meta map[string]*string) error {
	if err := c.s.queue.await(ctx, at.position); err != nil {
		return err
	}
	for _, f := range others {
		if err := f.Checkpoint(ctx); err != nil {
			return fmt.Errorf("resume: checkpoint of another store: %w", err)
		}
	}
	if err := c.s.writeEnded(ctx, ended); err != nil {
		return err
	}
	for _, ch := range what.changed {
		delete(c.known, ch.State.Ord)
		c.change(ch)
		if c.args.bytes > scriptBytes || c.args.values > scriptValues {
			if err := c.run(ctx, ""); err != nil {
				return err
			}
		}
	}
	gone := what.gone
	for ord := range c.known {
		gone = append(gone, ord) // Redis has it, and nobody else
	}
	for _, ord := range gone {
		c.args.gone = append(c.args.gone, strconv.FormatUint(ord, 10))
		c.forget(ord, everything)
	}
	for _, name := range slices.Sorted(maps.Keys(meta)) {
		if value := meta[name]; value != nil {
			c.args.marks = append(c.args.marks, name, *value)
		} else {
			c.args.unmarked = append(c.args.unmarked, name)
		}
	}
	return c.run(ctx, entryID(at.batch))
}

// change adds one session: its state and counters, and the part of its queue that is not stored.
func (c *checkpointWrite) change(ch Change) {
	ord := ch.State.Ord
	state := c.value(func(b []byte) []byte {
		b = binary.AppendUvarint(b, uint64(ch.Handled))
		return ch.State.Append(binary.AppendUvarint(b, ch.Acked))
	})
	c.args.sessions = append(c.args.sessions, strconv.FormatUint(ord, 10), state)
	c.forget(ord, ch.Acked)
	if n := len(ch.Queue); n > 0 {
		last := ch.Queue[n-1].Targets[0].Pos
		records := c.value(func(b []byte) []byte {
			for _, q := range ch.Queue {
				b = q.Append(b)
			}
			return b
		})
		c.args.parts = append(c.args.parts, partField(ord, last), records)
		if stored := c.s.stored[ord]; !slices.Contains(stored, last) {
			c.s.stored[ord] = append(stored, last) // before it is sent: from then on it may be there
		}
	}
}

// value encodes behind what was encoded before, so that a checkpoint needs few buffers.
func (c *checkpointWrite) value(encode func([]byte) []byte) []byte {
	start := len(c.buf)
	c.buf = encode(c.buf)
	c.args.bytes += len(c.buf) - start
	c.args.values += 2
	return c.buf[start:len(c.buf):len(c.buf)]
}

// forget removes the parts of a queue that were acknowledged.
func (c *checkpointWrite) forget(ord, acked uint64) {
	stored := c.s.stored[ord]
	kept := stored[:0]
	for _, last := range stored {
		if last <= acked {
			c.args.acked = append(c.args.acked, partField(ord, last))
			c.args.values++
			c.removed[ord] = append(c.removed[ord], last)
		} else {
			kept = append(kept, last)
		}
	}
	switch {
	case len(kept) == 0:
		delete(c.s.stored, ord)
	default:
		c.s.stored[ord] = kept
	}
}

// undo puts the parts back that were to be removed: they may be there.
func (c *checkpointWrite) undo() {
	for ord, lasts := range c.removed {
		c.s.stored[ord] = append(lasts, c.s.stored[ord]...)
	}
}

// scriptArgs are what one script writes.
type scriptArgs struct {
	sessions, parts, marks []any // fields and values
	acked, gone, unmarked  []any // fields
	bytes, values          int
}

// run writes what has been added. from is the first entry of the journal that is still needed, "" for a part that is
// not the last.
func (c *checkpointWrite) run(ctx context.Context, from string) error {
	s, a := c.s, &c.args
	s.writes++
	args := append(make([]any, 0, 8+2*a.values), s.writes, from,
		len(a.sessions)/2, len(a.parts)/2, len(a.acked), len(a.gone), len(a.marks)/2, len(a.unmarked))
	for _, list := range [][]any{a.sessions, a.parts, a.acked, a.gone, a.marks, a.unmarked} {
		args = append(args, list...)
	}
	keys := nodeKeys(s.keys, s.node, "journal", "sessions", "queues", "meta", "checkpoint")
	done, err := checkpointScript.Run(ctx, s.rdb, keys, args...).Int()
	switch {
	case err != nil:
		return fmt.Errorf("resume: write checkpoint: %w", err)
	case done == 0:
		return ErrFenced
	case done < 0:
		return errors.New("resume: write checkpoint: a later one was there before")
	}
	c.args, c.buf = scriptArgs{}, nil
	return nil
}

// decodeSession reads what change wrote of a session.
func decodeSession(b []byte) (*Session, error) {
	handled, n := binary.Uvarint(b)
	if n <= 0 {
		return nil, errBatch
	}
	b = b[n:]
	acked, n := binary.Uvarint(b)
	if n <= 0 {
		return nil, errBatch
	}
	state, err := journal.DecodeSession(b[n:])
	if err != nil {
		return nil, err
	}
	return &Session{State: state, Handled: uint32(handled), Acked: acked}, nil
}
