package resume

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"holdfast/internal/redisx"
)

// streamWriter is the writer to a journal's stream. An entry's id is <number of the batch>-0 and its field d is the
// batch. Redis takes ids only in rising order, so a batch that is tried twice is there once, and one that Redis reads
// late, from a connection that was given up, comes too late.
//
// A stream knows how many entries it ever took. When these are fewer than were written, Redis has fallen back to an
// earlier state, by a restart or a failover, and then what it has of this node may have a hole. That is asked behind a
// write now and then: it takes more of Redis than the write.
type streamWriter struct {
	// static
	rdb    redis.UniversalClient
	stream string // key

	// Owned by the goroutine that writes.
	entries int64     // how many the stream took
	counted time.Time // when it was last asked
}

var addedScript = redisx.Script(scripts, "added")

// countEvery is how often a stream is asked how many entries it took. Redis and this process would have to fail within
// that time for anything to be missing.
const countEvery = 100 * time.Millisecond

func (w *streamWriter) entry(id, field string, value any) *redis.XAddArgs {
	return &redis.XAddArgs{Stream: w.stream, NoMkStream: true, ID: id, Values: []any{field, value}}
}

func entryID(n uint64) string { return strconv.FormatUint(n, 10) + "-0" }

func (w *streamWriter) countDue() bool { return time.Since(w.counted) >= countEvery }

func (w *streamWriter) count(ctx context.Context, pipe redis.Pipeliner) *redis.Cmd {
	return addedScript.Eval(ctx, pipe, []string{w.stream})
}

func (w *streamWriter) write(ctx context.Context, b *batch) (doubtful bool, err error) {
	pipe := w.rdb.Pipeline()
	add := pipe.XAdd(ctx, w.entry(entryID(b.n), "d", b.bytes))
	var count *redis.Cmd
	if w.countDue() {
		count = w.count(ctx, pipe)
	}
	_, _ = pipe.Exec(ctx) // the commands tell
	again, err := w.added(add)
	return w.fellBack(err, count) || again, err
}

// added says how an append went. again: the batch was there already.
func (w *streamWriter) added(add *redis.StringCmd) (again bool, err error) {
	err = add.Err()
	switch {
	case err == nil:
		w.entries++
		return false, nil
	case errors.Is(err, redis.Nil):
		return false, errGone
	case redis.HasErrorPrefix(err, "The ID specified in XADD is equal or smaller"):
		w.entries++ // the reply was lost
		return true, nil
	}
	return false, fmt.Errorf("resume: append to journal: %w", err)
}

// fellBack judges what the stream said behind an append that went as err says; count is nil when it was not asked.
func (w *streamWriter) fellBack(err error, count *redis.Cmd) bool {
	if err != nil {
		w.counted = time.Time{} // the next one asks
		return false
	}
	if count == nil {
		return false
	}
	n, err := count.Int64()
	if err != nil {
		return true
	}
	before := w.entries
	w.entries, w.counted = n, time.Now()
	return n != before
}

func (w *streamWriter) close() {}

// replicatedWriter is a streamWriter that waits for replicas. WAIT is about what its own connection wrote, so there is
// one for it alone.
type replicatedWriter struct {
	streamWriter
	replicas int
	timeout  time.Duration

	// All owned by the goroutine that writes.
	conn    *redis.Conn
	wrote   uint64 // the batch that conn wrote last
	ask     string // server that is taking over the slot
	touched uint64 // entries without a batch
}

func (w *replicatedWriter) write(ctx context.Context, b *batch) (doubtful bool, err error) {
	if doubtful, err = w.try(ctx, b); err != nil && !errors.Is(err, errReplicas) {
		w.drop()
		w.redirect(ctx, err)
	}
	return doubtful, err
}

var errReplicas = errors.New("resume: too few replicas have the journal")

func (w *replicatedWriter) try(ctx context.Context, b *batch) (doubtful bool, err error) {
	if w.conn == nil {
		if w.conn, err = w.dial(ctx); err != nil {
			return false, err
		}
	}
	if w.wrote == b.n {
		// It was too few replicas, on the same connection.
		return true, w.waited(w.conn.Do(ctx, "WAIT", w.replicas, w.timeout.Milliseconds()))
	}
	pipe := w.conn.Pipeline()
	w.asking(ctx, pipe)
	add := pipe.XAdd(ctx, w.entry(entryID(b.n), "d", b.bytes))
	var count *redis.Cmd
	if w.countDue() {
		w.asking(ctx, pipe)
		count = w.count(ctx, pipe)
	}
	wait := pipe.Do(ctx, "WAIT", w.replicas, w.timeout.Milliseconds())
	_, _ = pipe.Exec(ctx) // the commands tell
	again, err := w.added(add)
	doubtful = w.fellBack(err, count)
	switch {
	case err != nil:
		return doubtful, err
	case again:
		return true, w.touch(ctx, b)
	}
	w.wrote = b.n
	return doubtful, w.waited(wait)
}

// touch writes something behind a batch that another connection wrote, so that there is something to wait for.
func (w *replicatedWriter) touch(ctx context.Context, b *batch) error {
	pipe := w.conn.Pipeline()
	w.asking(ctx, pipe)
	w.touched++ // rises, as Redis wants it
	add := pipe.XAdd(ctx, w.entry(fmt.Sprint(b.n, "-", w.touched), "again", ""))
	wait := pipe.Do(ctx, "WAIT", w.replicas, w.timeout.Milliseconds())
	_, _ = pipe.Exec(ctx) // the commands tell
	switch again, err := w.added(add); {
	case err != nil:
		return err
	case again:
		return errors.New("resume: journal was touched twice")
	}
	w.wrote = b.n
	return w.waited(wait)
}

func (w *replicatedWriter) waited(wait *redis.Cmd) error {
	n, err := wait.Int()
	switch {
	case err != nil:
		return fmt.Errorf("resume: wait for replicas: %w", err)
	case n < w.replicas:
		return fmt.Errorf("%w: %d of %d", errReplicas, n, w.replicas)
	}
	return nil
}

// asking has a server take the next command although it does not have the slot yet.
func (w *replicatedWriter) asking(ctx context.Context, pipe redis.Pipeliner) {
	if w.ask != "" {
		pipe.Do(ctx, "ASKING")
	}
}

// dial takes a connection to the server that has the journal.
func (w *replicatedWriter) dial(ctx context.Context) (*redis.Conn, error) {
	switch c := w.rdb.(type) {
	case *redis.Client:
		return c.Conn(), nil
	case *redis.ClusterClient:
		server, err := c.MasterForKey(ctx, w.stream)
		if w.ask != "" {
			server, err = masterAt(ctx, c, w.ask)
		}
		if err != nil {
			return nil, fmt.Errorf("resume: server of the journal: %w", err)
		}
		return server.Conn(), nil
	}
	return nil, fmt.Errorf("resume: %T can't wait for replicas", w.rdb)
}

func masterAt(ctx context.Context, c *redis.ClusterClient, addr string) (*redis.Client, error) {
	found := make(chan *redis.Client, 1)
	err := c.ForEachMaster(ctx, func(_ context.Context, m *redis.Client) error {
		if m.Options().Addr == addr {
			found <- m
		}
		return nil
	})
	select {
	case m := <-found:
		return m, nil
	default:
		return nil, errors.Join(fmt.Errorf("resume: no server at %s", addr), err)
	}
}

// redirect learns from an error where the journal's slot is.
func (w *replicatedWriter) redirect(ctx context.Context, err error) {
	w.ask = ""
	c, ok := w.rdb.(*redis.ClusterClient)
	if !ok {
		return
	}
	if redis.HasErrorPrefix(err, "ASK ") {
		var refusal redis.Error
		if errors.As(err, &refusal) {
			w.ask = refusal.Error()[strings.LastIndexByte(refusal.Error(), ' ')+1:]
		}
		return
	}
	if redisx.Unavailable(err) {
		c.ReloadState(ctx)
	}
}

func (w *replicatedWriter) drop() {
	if w.conn != nil {
		_ = w.conn.Close()
	}
	w.conn, w.wrote = nil, 0
}

func (w *replicatedWriter) close() { w.drop() }
