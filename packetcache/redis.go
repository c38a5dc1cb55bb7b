package packetcache

import (
	"context"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"holdfast/internal/redisx"
	"holdfast/stanza"
)

//go:embed scripts
var scripts embed.FS

var applyScript = redisx.Script(scripts, "apply")

// ErrFenced says that another node has taken over this one's entries.
var ErrFenced = errors.New("packetcache: this node was fenced")

// Redis is the Store of one node of a cluster. The node's journal is there before anything is applied, and while it is
// not, since another node took it, nothing can be. What a dead node left is loaded with its id.
type Redis struct {
	// static
	rdb                                   redis.UniversalClient
	journal, cache, deadlines, checkpoint string // keys, of one slot

	mu     sync.Mutex
	writes uint64 // number of the last Apply: one that timed out may come after its successors, and is refused
}

// NewRedis returns the Store of a node.
func NewRedis(rdb redis.UniversalClient, keys redisx.Keys, node string) *Redis {
	return &Redis{
		rdb: rdb, journal: keys.Node(node, "journal"), cache: keys.Node(node, "cache"),
		deadlines: keys.Node(node, "deadlines"), checkpoint: keys.Node(node, "checkpoint"),
	}
}

// loadAtOnce is how many entries are asked for with one command, so that Redis is never busy for long.
const loadAtOnce = 200

// Load implements Store.
func (s *Redis) Load(ctx context.Context, yield func(Entry) error) error {
	for from := int64(0); ; from += loadAtOnce {
		// By deadline and then, as Redis orders what has the same score, by id.
		ids, err := s.rdb.ZRange(ctx, s.deadlines, from, from+loadAtOnce-1).Result()
		if err != nil {
			return fmt.Errorf("packetcache: load: %w", err)
		}
		if len(ids) == 0 {
			return nil
		}
		values, err := s.rdb.HMGet(ctx, s.cache, ids...).Result()
		if err != nil {
			return fmt.Errorf("packetcache: load: %w", err)
		}
		for i, v := range values {
			text, ok := v.(string)
			if !ok {
				return fmt.Errorf("packetcache: load: entry %x is not there", ids[i])
			}
			e, err := decodeEntry(ids[i], []byte(text))
			if err != nil {
				return fmt.Errorf("packetcache: load: entry %x: %w", ids[i], err)
			}
			if err := yield(e); err != nil {
				return err
			}
		}
	}
}

// applyAtOnce is how many entries one script may change: Redis takes no more than a million arguments, and does nothing
// else meanwhile.
const applyAtOnce = 50_000

// Apply implements Store. More than applyAtOnce changes are several steps: an error may leave the first of them done,
// which the next Apply writes again.
func (s *Redis) Apply(ctx context.Context, put []Entry, del []stanza.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(del) > applyAtOnce {
		if err := s.apply(ctx, nil, del[:applyAtOnce]); err != nil {
			return err
		}
		del = del[applyAtOnce:]
	}
	for len(put) > applyAtOnce {
		if err := s.apply(ctx, put[:applyAtOnce], del); err != nil {
			return err
		}
		put, del = put[applyAtOnce:], nil
	}
	return s.apply(ctx, put, del)
}

func (s *Redis) apply(ctx context.Context, put []Entry, del []stanza.ID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.writes++
	args := append(make([]any, 0, 2+len(del)+3*len(put)), s.writes, len(del))
	for i := range del {
		args = append(args, del[i][:])
	}
	var buf []byte // of all entries: what has been cut off it stays when it grows
	for i := range put {
		start := len(buf)
		buf = appendEntry(buf, &put[i])
		args = append(args, put[i].ID[:], micro(put[i].Deadline), buf[start:len(buf):len(buf)])
	}
	done, err := applyScript.Run(ctx, s.rdb, []string{s.journal, s.cache, s.deadlines, s.checkpoint}, args...).Int()
	switch {
	case err != nil:
		return fmt.Errorf("packetcache: store: %w", err)
	case done == 0:
		return ErrFenced
	case done < 0:
		return errors.New("packetcache: store: a later write was there before")
	}
	return nil
}

// appendEntry encodes all but the id: the deadline and the step, then sender, recipient and id attribute with their
// lengths, then the stanza where there is one.
func appendEntry(dst []byte, e *Entry) []byte {
	dst = binary.AppendVarint(dst, micro(e.Deadline))
	dst = binary.AppendUvarint(dst, uint64(e.Step))
	for _, s := range []string{e.From.String(), e.To.String(), e.MsgID} {
		dst = binary.AppendUvarint(dst, uint64(len(s)))
		dst = append(dst, s...)
	}
	if e.Stanza != nil {
		dst = append(dst, e.Stanza.Raw()...)
	}
	return dst
}

var errShort = errors.New("cut short")

func decodeEntry(id string, b []byte) (e Entry, err error) {
	if e.ID, err = stanza.IDFromBytes([]byte(id)); err != nil {
		return e, err
	}
	deadline, n := binary.Varint(b)
	if n <= 0 {
		return e, errShort
	}
	b = b[n:]
	step, n := binary.Uvarint(b)
	if n <= 0 {
		return e, errShort
	}
	b = b[n:]
	var text [3]string
	for i := range text {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return e, errShort
		}
		text[i], b = string(b[n:n+int(size)]), b[n+int(size):]
	}
	if deadline != 0 {
		e.Deadline = time.UnixMicro(deadline)
	}
	e.Step, e.MsgID = int(step), text[2]
	if e.From, err = stanza.ParseAddr(text[0]); err != nil {
		return e, fmt.Errorf("sender: %w", err)
	}
	if e.To, err = stanza.ParseAddr(text[1]); err != nil {
		return e, fmt.Errorf("recipient: %w", err)
	}
	if len(b) > 0 {
		e.Stanza, err = stanza.Parse(b, e.ID)
	}
	return e, err
}
