package resume

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"holdfast/internal/journal"
	"holdfast/internal/redisx"
)

// This file is about what a dead node leaves, and how another takes it.

var fenceScript = redisx.Script(scripts, "fence")

// Fence takes the streams from a node, so that it can write nothing more, and makes by the one that adopts its estate,
// unless somebody else does already; that one is holder. An adopter that died is replaced by naming it as instead. A
// node that left has none.
func (s *Redis) Fence(ctx context.Context, dead, by, instead string) (holder string, err error) {
	keys := nodeKeys(s.keys, dead, "fence", "journal", "mailbox", "journal:dead", "mailbox:dead")
	holder, err = fenceScript.Run(ctx, s.rdb, keys, by, instead).Text()
	if err != nil {
		return "", fmt.Errorf("resume: fence: %w", err)
	}
	return holder, nil
}

// Pages of what is read of an estate, so that Redis is never busy for long.
const (
	entriesAtOnce = 4 // of a journal, about a MiB each at most
	fieldsAtOnce  = 200
)

// Load reads the estate of a node that was fenced: its sessions as they were when it died, and the marks of its last
// checkpoint. Ended sessions that only its journal knows of are this node's to remember from now on. It may be called
// again.
func (s *Redis) Load(ctx context.Context, dead string) (*Recovered, map[string]string, error) {
	e := &estate{rdb: s.rdb, keys: s.keys, node: dead, recovery: newRecovery(s.log)}
	if err := e.read(ctx); err != nil {
		return nil, nil, err
	}
	meta, err := s.rdb.HGetAll(ctx, s.keys.Node(dead, "meta")).Result()
	if err != nil {
		return nil, nil, fmt.Errorf("resume: load marks: %w", err)
	}
	for _, end := range e.recovery.ended {
		s.ended.remember(end)
	}
	rec := e.recovery.result()
	s.log.Info("estate read", "node", dead, "records", e.records, "sessions", len(rec.Sessions), "unreadable", e.recovery.skipped)
	return rec, meta, nil
}

// Bury removes the estate of a node, when another has it. What is left is its mailbox and the fence.
func (s *Redis) Bury(ctx context.Context, dead string) error {
	keys := nodeKeys(s.keys, dead, "sessions", "queues", "meta", "checkpoint", "cache", "deadlines", "journal:dead")
	if err := s.rdb.Unlink(ctx, keys...).Err(); err != nil {
		return fmt.Errorf("resume: bury: %w", err)
	}
	return nil
}

// estate is what a dead node left in Redis.
type estate struct {
	rdb      redis.UniversalClient
	keys     redisx.Keys
	node     string
	recovery *recovery
	records  int
}

func (e *estate) read(ctx context.Context) error {
	if err := e.recovery.load(ctx, e); err != nil {
		return err
	}
	gap, err := e.replay(ctx)
	if err != nil {
		return err
	}
	if gap {
		// Counts that clients were told may be missing, as after a power cut (see Open).
		e.recovery.log.Error("redis lost a part of a journal, the sessions in it can't be resumed", "node", e.node)
		for _, s := range e.recovery.sessions {
			if s.State != nil {
				s.State.Unresumable()
			}
		}
	}
	return nil
}

// load reads the checkpoint. What can't be read is left out: the rest must not be lost with it.
func (e *estate) load(ctx context.Context, yield func(*Session)) error {
	byOrd := make(map[uint64]*Session)
	err := e.each(ctx, "sessions", func(_, value string) {
		s, err := decodeSession([]byte(value))
		if err != nil {
			e.unreadable("session", err)
			return
		}
		byOrd[s.State.Ord] = s
		yield(s)
	})
	if err != nil {
		return err
	}
	type part struct {
		ord, last uint64
		records   []byte
	}
	var parts []part
	err = e.each(ctx, "queues", func(field, value string) {
		if ord, last, ok := cutPart(field); ok && byOrd[ord] != nil {
			parts = append(parts, part{ord, last, []byte(value)})
		}
	})
	slices.SortFunc(parts, func(a, b part) int {
		if a.last < b.last {
			return -1
		}
		return 1
	})
	for _, p := range parts {
		for b := p.records; len(b) > 0; {
			q, rest, err := journal.CutStanza(b)
			if err != nil {
				e.unreadable("queue", err)
				break
			}
			byOrd[p.ord].queue(q.Targets[0].Pos, q)
			b = rest
		}
	}
	return err
}

func (e *estate) unreadable(what string, err error) {
	e.recovery.skipped++
	e.recovery.log.Error("stored "+what+" not readable", "node", e.node, "error", err)
}

// each reads a hash. It does not change any more, so nothing is missed; what comes twice is the same.
func (e *estate) each(ctx context.Context, what string, yield func(field, value string)) error {
	seen := make(map[string]bool)
	for cursor := uint64(0); ; {
		page, next, err := e.rdb.HScan(ctx, e.keys.Node(e.node, what), cursor, "", fieldsAtOnce).Result()
		if err != nil {
			return fmt.Errorf("resume: load %s: %w", what, err)
		}
		for i := 0; i+1 < len(page); i += 2 {
			if !seen[page[i]] {
				seen[page[i]] = true
				yield(page[i], page[i+1])
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// replay reads the journal. gap says that batches are missing that there were.
func (e *estate) replay(ctx context.Context) (gap bool, err error) {
	next, err := e.from(ctx)
	if err != nil {
		return false, err
	}
	key := e.keys.Node(e.node, "journal:dead")
	for start := "-"; ; {
		page, err := e.rdb.XRangeN(ctx, key, start, "+", entriesAtOnce).Result()
		if err != nil {
			return false, fmt.Errorf("resume: load journal: %w", err)
		}
		for _, entry := range page {
			start = "(" + entry.ID
			blob, ok := entry.Values["d"].(string)
			if !ok {
				continue // nothing but something to wait for, see replicatedWriter
			}
			id, _, _ := strings.Cut(entry.ID, "-")
			n, _ := strconv.ParseUint(id, 10, 64)
			gap = gap || n > next
			next = n + 1
			if err := eachRecord([]byte(blob), e.record); err != nil {
				e.unreadable("batch", err)
				gap = true
			}
		}
		if len(page) < entriesAtOnce {
			return gap, nil
		}
	}
}

func (e *estate) record(kind uint8, payload []byte) error {
	e.records++
	return e.recovery.replay(kind, payload)
}

// from is the first batch that no checkpoint has.
func (e *estate) from(ctx context.Context) (uint64, error) {
	id, err := e.rdb.HGet(ctx, e.keys.Node(e.node, "checkpoint"), "from").Result()
	switch {
	case errors.Is(err, redis.Nil):
		return 1, nil
	case err != nil:
		return 0, fmt.Errorf("resume: load journal: %w", err)
	}
	id, _, _ = strings.Cut(id, "-")
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return math.MaxUint64, nil //nolint:nilerr // nobody wrote it, and nothing hangs on it
	}
	return n, nil
}
