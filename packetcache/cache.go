package packetcache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/stanza"
)

// Actions is what the cache can do with a message. Run calls it, one call at a time, with no lock held. Every method is
// idempotent by Entry.ID, and one that returned an error is called again. Retrying, the entry stays open to receipts.
type Actions interface {
	// Resend delivers e.Stanza to the sessions of the recipient that are online now; delivered is false when there
	// are none.
	Resend(ctx context.Context, e Entry) (delivered bool, err error)
	// Offline puts e.Stanza into the recipient's mailbox. ErrRefused says that the mailbox will never take it: it is
	// bounced instead.
	Offline(ctx context.Context, e Entry) error
	// Bounce answers the sender with an error.
	Bounce(ctx context.Context, e Entry) error
	// Withdraw takes e.Stanza out of the mailbox again, if it is there: its receipt came while Offline ran.
	Withdraw(ctx context.Context, e Entry) error
}

// ErrRefused is what Actions.Offline returns (or wraps) for a message that the mailbox refuses for good.
var ErrRefused = errors.New("packetcache: the mailbox refuses the message")

// Cache holds the messages that await a receipt. It is safe for concurrent use.
type Cache struct {
	// static
	cfg     Config
	store   Store
	log     *slog.Logger
	act     Actions
	now     func() int64 // ticks: nanoseconds of monotonic time since New, which a set clock does not move
	wall    func() time.Time
	metrics *metrics
	wake    chan struct{} // holds one: Run looks again

	quiet int64 // owned by Run: no failing action is logged before, ticks

	full         atomic.Bool // over the caps; written with mu held
	checkpointMu sync.Mutex  // one Checkpoint at a time; taken before mu

	mu sync.Mutex
	// guarded by mu
	byID     map[stanza.ID]*entry
	byKey    keyTable               // the oldest of those with the key
	byUser   map[stanza.Addr]*entry // the newest of each recipient, by bare address; nil without Config.Moves
	due      queue                  // waiting
	retry    queue                  // waiting after a failure
	late     queue
	open     int   // entries that are not late
	bytes    int64 // of those
	dirty    dirtyList
	touched  atomic.Bool // the next Checkpoint writes everything
	gone     []stanza.ID // written, closed since: the next Checkpoint removes them
	free     *entry      // for reuse, linked by next
	freeN    int
	sleeping bool  // Run waits for wakeAt or wake
	wakeAt   int64 // ticks
	room     chan struct{}
	counts   counts
}

// maxFree bounds the entries kept for reuse.
const maxFree = 4096

// overhead is what an entry costs besides its stanza and id: the entry and its places in two tables, roughly.
const overhead = 352

// New makes a Cache and loads what the store's last Checkpoint held. Nothing happens to it until Run.
func New(cfg Config, store Store, log *slog.Logger, reg prometheus.Registerer, act Actions) (*Cache, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("packetcache: %w", err)
	}
	epoch := time.Now()
	return newAt(cfg, store, log, reg, act, func() int64 { return int64(time.Since(epoch)) }, time.Now)
}

func newAt(cfg Config, store Store, log *slog.Logger, reg prometheus.Registerer, act Actions,
	now func() int64, wall func() time.Time,
) (*Cache, error) {
	c := &Cache{
		cfg:   cfg,
		store: store,
		log:   log,
		act:   act,
		now:   now,
		wall:  wall,
		wake:  make(chan struct{}, 1),
		byID:  make(map[stanza.ID]*entry),
		byKey: newKeyTable(),
	}
	if cfg.Moves {
		c.byUser = make(map[stanza.Addr]*entry)
	}
	c.metrics = newMetrics(c)
	begin := time.Now()
	err := store.Load(context.Background(), func(e Entry) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.restoreLocked(e, true)
		return nil
	})
	c.metrics.load.Observe(time.Since(begin).Seconds())
	if err != nil {
		return nil, fmt.Errorf("packetcache: load: %w", err)
	}
	if err := c.metrics.register(reg); err != nil {
		return nil, fmt.Errorf("packetcache: metrics: %w", err)
	}
	return c, nil
}

// Open begins to await the receipt for st, a message with an id attribute and a stanza id, for PACKETCACHE_TIMEOUT. It
// reports whether the message has an entry now; one that it had before is left as it is.
func (c *Cache) Open(st *stanza.Stanza) bool {
	if st.ID.IsZero() || st.Kind() != stanza.Message {
		return false
	}
	msgID := st.Attr("id")
	if msgID == "" {
		return false
	}
	c.mu.Lock()
	if c.byID[st.ID] != nil {
		c.mu.Unlock()
		return true
	}
	now := c.now() // with the lock held, so that deadlines enter the queue in order
	e := c.newLocked()
	e.id, e.from, e.to, e.msgID, e.st = st.ID, st.From, st.To, msgID, st
	e.opened, e.deadline = now, after(now, c.cfg.Timeout)
	e.sends = 1
	c.enterLocked(e)
	c.due.push(e)
	c.dirty.push(e)
	wake := c.wakeLocked(e.deadline)
	c.mu.Unlock()
	if wake {
		c.wakeRun()
	}
	return true
}

// Restore puts back an entry that the journal tells of, before Run. A zero Deadline is a timeout after the stanza was
// stamped. An entry that is there already stays as it is, except that it takes over a later Step, or that the message
// went offline meanwhile (no Stanza).
func (c *Cache) Restore(e Entry) {
	c.mu.Lock()
	wake := c.restoreLocked(e, false)
	c.mu.Unlock()
	if wake {
		c.wakeRun()
	}
}

func (c *Cache) restoreLocked(r Entry, written bool) (wake bool) {
	if r.ID.IsZero() || r.From.IsZero() || r.MsgID == "" {
		return false
	}
	last := len(c.cfg.Actions) - 1
	step := uint8(min(max(r.Step, 0), last)) // the list of actions may have changed
	now, wall := c.now(), c.wall()
	deadline := int64(never)
	switch {
	case !r.Deadline.IsZero():
		deadline = now + int64(r.Deadline.Sub(wall))
	case r.Stanza == nil:
		deadline = after(now, c.cfg.Late)
	case c.cfg.Timeout > 0:
		deadline = after(now-int64(wall.Sub(r.ID.Time())), c.cfg.Timeout)
	}
	if e := c.byID[r.ID]; e != nil {
		c.advanceLocked(e, r.Stanza == nil, step, deadline)
		return false
	}
	e := c.newLocked()
	e.id, e.from, e.to, e.msgID, e.st = r.ID, r.From, r.To, r.MsgID, r.Stanza
	e.opened = now - int64(wall.Sub(r.ID.Time()))
	e.deadline, e.step, e.written = deadline, step, written
	e.before = true
	e.sends = 1
	for _, a := range c.cfg.Actions[:step] {
		if a == Resend {
			e.sends++
		}
	}
	if r.Stanza == nil {
		e.state = late
		e.sends++
		c.indexLocked(e)
		c.late.pushEarly(e)
		c.trimLateLocked()
	} else {
		c.enterLocked(e)
		c.due.pushEarly(e)
	}
	if e.in != nil && !written {
		c.dirty.push(e)
	}
	return c.wakeLocked(deadline)
}

// advanceLocked brings a known entry to where the journal says it was.
func (c *Cache) advanceLocked(e *entry, offline bool, step uint8, deadline int64) {
	switch {
	case e.state != waiting:
		return
	case offline:
		e.in.remove(e)
		c.lateLocked(e, deadline)
	case step > e.step:
		e.step = step
		e.in.remove(e)
		e.deadline = deadline
		c.due.pushEarly(e)
		e.sent()
		c.dirty.push(e)
	}
}

// Get returns the entry of a message, also one that is in offline storage and awaits a late receipt.
func (c *Cache) Get(id stanza.ID) (Entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byID[id]
	if e == nil {
		return Entry{}, false
	}
	return e.entry(c.now(), c.wall()), true
}

// Len is the number of messages that await a receipt and are not in offline storage.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// Bytes is the memory that those messages take.
func (c *Cache) Bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

// Late is the number of messages in offline storage that a late receipt would still find.
func (c *Cache) Late() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.late.n
}

// Room waits until the cache is within PACKETCACHE_ENTRIES and PACKETCACHE_BYTES, which is at once unless the actions
// are slower than what comes in. A session calls it before it reads more from a client that asks for receipts, with no
// lock held: back-pressure in place of loss.
func (c *Cache) Room(ctx context.Context) error {
	for c.full.Load() {
		c.mu.Lock()
		if !c.overLocked() {
			c.mu.Unlock()
			return nil
		}
		if c.room == nil {
			c.room = make(chan struct{})
		}
		room := c.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return fmt.Errorf("packetcache: wait for room: %w", ctx.Err())
		}
	}
	return nil
}

func (e *entry) entry(now int64, wall time.Time) Entry {
	r := Entry{ID: e.id, From: e.from, To: e.to, MsgID: e.msgID, Stanza: e.st, Step: int(e.step)}
	if e.deadline != never {
		r.Deadline = wall.Add(time.Duration(e.deadline - now)).Round(0)
	}
	return r
}

// after is now plus d, where no d is never.
func after(now int64, d time.Duration) int64 {
	if d == 0 || now > never-int64(d) {
		return never
	}
	return now + int64(d)
}
