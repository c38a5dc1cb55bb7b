package resume

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"holdfast/internal/journal"
	"holdfast/internal/redisx"
	"holdfast/stanza"
)

//go:embed scripts
var scripts embed.FS

var beginScript = redisx.Script(scripts, "begin")

// Redis is the journal and the checkpoints of one node of a cluster.
type Redis struct {
	*checkpointing

	// static
	cfg     RedisConfig
	rdb     redis.UniversalClient
	keys    redisx.Keys
	node    string
	queue   *groupCommit
	ended   *ended
	metrics *redisMetrics

	writes uint64              // number of the last write of a checkpoint; guarded by one
	stored map[uint64][]uint64 // which parts of whose queues may be stored, by their last place, rising; guarded by one

	metaMu sync.Mutex
	meta   map[string]*string // marks for the next checkpoint, nil to remove one
}

// beginTime is how long a node may take from its journal to its entry into the cluster. One that is killed in between
// leaves nothing.
const beginTime = 5 * time.Minute

// OpenRedis makes the journal of a node that is new: its stream, and its mailbox, both for five minutes; who enters the
// cluster takes that limit away (PERSIST). A name that was used before, or that is fenced already, is refused.
func OpenRedis(ctx context.Context, cfg RedisConfig, rdb redis.UniversalClient, keys redisx.Keys, node string, log *slog.Logger, reg prometheus.Registerer) (*Redis, error) {
	ok, err := beginScript.Run(ctx, rdb, nodeKeys(keys, node, "journal", "mailbox", "fence", "journal:dead"), beginTime.Milliseconds()).Bool()
	if err != nil {
		return nil, fmt.Errorf("resume: begin journal: %w", err)
	}
	if !ok {
		return nil, fmt.Errorf("resume: begin journal: there was a node %s before", node)
	}
	m := newRedisMetrics(reg)
	s := &Redis{
		checkpointing: newCheckpointing(cfg.Interval, log, m.metrics),
		cfg:           cfg, rdb: rdb, keys: keys, node: node, ended: newEnded(cfg.Ended), metrics: m,
		stored: make(map[uint64][]uint64), meta: make(map[string]*string),
	}
	s.queue = newGroupCommit(cfg, s.newWriter(), log, m)
	m.watch(reg, s.queue)
	// Who waits for room would wait for a checkpoint that never comes.
	context.AfterFunc(s.queue.ctx, s.madeRoom)
	return s, nil
}

func (s *Redis) newWriter() writer {
	w := streamWriter{rdb: s.rdb, stream: s.keys.Node(s.node, "journal")}
	if s.cfg.WaitReplicas == 0 {
		return &w
	}
	return &replicatedWriter{streamWriter: w, replicas: s.cfg.WaitReplicas, timeout: s.cfg.WaitTimeout}
}

func nodeKeys(keys redisx.Keys, node string, what ...string) []string {
	all := make([]string, len(what))
	for i, w := range what {
		all[i] = keys.Node(node, w)
	}
	return all
}

// Stanza implements session.Journal.
func (s *Redis) Stanza(r *journal.Stanza) error {
	var buf [160]byte
	return s.queue.append(journal.KindStanza, true, r.AppendHead(buf[:0]), r.Stanza.Raw())
}

// Append implements session.Journal.
func (s *Redis) Append(k journal.Kind, head, tail []byte) error {
	return s.queue.append(k, true, head, tail)
}

// Count implements session.Journal. Nobody waits for a count to go out, but for the end of a session.
func (s *Redis) Count(k journal.Kind, session, count uint64) error {
	var buf [16]byte
	return s.queue.append(k, k == journal.KindEnded, journal.AppendCount(buf[:0], session, count), nil)
}

// Session implements session.Journal.
func (s *Redis) Session(r *journal.Session) error {
	var buf [512]byte
	return s.queue.append(journal.KindSession, true, r.Append(buf[:0]), nil)
}

// IDs implements session.Journal.
func (s *Redis) IDs(k journal.Kind, user stanza.Addr, ids []stanza.ID) error {
	var buf [256]byte
	return s.queue.append(k, false, journal.AppendIDs(buf[:0], user, ids), nil)
}

// Directed implements session.Journal.
func (s *Redis) Directed(session uint64, to stanza.Addr, add bool) error {
	var buf [256]byte
	return s.queue.append(journal.KindDirected, false, journal.AppendDirected(buf[:0], session, to, add), nil)
}

// Appended is the position of the newest record that was appended: how many there are.
func (s *Redis) Appended() uint64 { return s.queue.appended.Load() }

// Sendable is the position up to which a kill of this process loses nothing any more, so that what records there caused
// may leave it. It is the greatest number while Redis does not answer, and then falls back.
func (s *Redis) Sendable() uint64 { return s.queue.sendableNow() }

// Witness names who knows whether others have taken over what this node had when Redis can't be asked: ErrFenced says
// that they have, and any other error that it is not known. It is set once, before the first append.
func (s *Redis) Witness(ask func(context.Context) error) { s.queue.witness = ask }

// OnSendable has f called when Sendable grew. It is set once, before the first append; f must not block.
func (s *Redis) OnSendable(f func()) {
	s.queue.notify.Lock()
	defer s.queue.notify.Unlock()
	s.queue.onSendable = f
}

// Fenced is closed when another node has taken over what this one had.
func (s *Redis) Fenced() <-chan struct{} { return s.queue.fenced }

// Settle implements session.Journal.
func (s *Redis) Settle(ctx context.Context) error { return s.queue.await(ctx, s.Appended()) }

// Room implements session.Journal: it waits while too much waits for Redis, or the journal there is at its cap.
func (s *Redis) Room(ctx context.Context) error {
	if err := s.waitRoom(ctx, s.full); err != nil {
		return err
	}
	select {
	case <-s.queue.fenced:
		return ErrFenced
	default:
		return s.queue.room(ctx)
	}
}

func (s *Redis) full() bool {
	return s.cfg.JournalBytes > 0 && s.queue.used() >= s.cfg.JournalBytes && s.queue.ctx.Err() == nil
}

// Remember implements session.Ended.
func (s *Redis) Remember(token string, user stanza.Addr, h uint32) {
	s.ended.remember(endedSession{token, user, h, time.Now()})
}

// Recall implements session.Ended.
func (s *Redis) Recall(token string, user stanza.Addr) (uint32, bool) {
	if h, ok, known := s.ended.recall(token, user); known {
		return h, ok
	}
	ctx, cancel := context.WithTimeout(context.Background(), recallTime)
	defer cancel()
	// One that can't be read is as good as forgotten: its client sends more again than it must.
	text, err := s.rdb.Get(ctx, s.keys.Ended(token)).Result()
	at := strings.LastIndexByte(text, '|')
	if err != nil || at < 0 || text[:at] != user.String() {
		return 0, false
	}
	h, err := strconv.ParseUint(text[at+1:], 10, 32)
	return uint32(h), err == nil
}

// writeEnded makes ended sessions known to all nodes.
func (s *Redis) writeEnded(ctx context.Context, all []endedSession) error {
	const atOnce = 1000
	for len(all) > 0 {
		some := all[:min(len(all), atOnce)]
		all = all[len(some):]
		_, err := s.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for _, e := range some {
				if left := s.cfg.Ended - time.Since(e.at); left >= time.Millisecond {
					pipe.Set(ctx, s.keys.Ended(e.token), fmt.Sprint(e.user, "|", e.handled), left)
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("resume: remember ended sessions: %w", err)
		}
	}
	return nil
}

// SetMeta has marks written with the next checkpoint that begins, in one step with what it frees of the journal.
func (s *Redis) SetMeta(marks map[string]string) {
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	for name, value := range marks {
		s.meta[name] = &value
	}
}

// DelMeta has marks removed likewise.
func (s *Redis) DelMeta(names ...string) {
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	for _, name := range names {
		s.meta[name] = nil
	}
}

func (s *Redis) takeMeta() map[string]*string {
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	meta := s.meta
	s.meta = make(map[string]*string)
	return meta
}

// putBackMeta undoes a takeMeta whose checkpoint failed; what was set meanwhile is newer.
func (s *Redis) putBackMeta(meta map[string]*string) {
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	for name, value := range meta {
		if _, newer := s.meta[name]; !newer {
			s.meta[name] = value
		}
	}
}

// Healthy says why acknowledgements may have to wait, or nil.
func (s *Redis) Healthy() error {
	select {
	case <-s.queue.fenced:
		return ErrFenced
	default:
	}
	return errors.Join(s.queue.healthy(), s.checkpointing.Healthy())
}

// Run makes checkpoints until ctx ends, as Store.Run does.
func (s *Redis) Run(ctx context.Context, live Live, others ...Flusher) {
	when := trigger{
		func() int64 { return int64(s.Appended()) }, s.queue.press,
		func() bool { return s.queue.used() > s.cfg.JournalBytes/4 },
	}
	s.run(ctx, when, func(ctx context.Context) error {
		err := s.Checkpoint(ctx, live, others...)
		if errors.Is(err, ErrFenced) {
			return nil // there will be none any more
		}
		return err
	})
}

// lastWrite is how long Close waits for Redis.
const lastWrite = 3 * time.Second

// Close refuses records and ends the goroutine, when Redis has all that came before or does not take it in time. The
// estate stays for others to adopt.
func (s *Redis) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), lastWrite)
	defer cancel()
	return s.queue.close(ctx)
}

// Leave is for a node that has made its last checkpoint: it ends as with Close, and others need not wait until it seems
// dead.
func (s *Redis) Leave(ctx context.Context) error {
	if err := s.queue.close(ctx); err != nil {
		return err
	}
	_, err := s.Fence(ctx, s.node, "", "")
	return err
}
