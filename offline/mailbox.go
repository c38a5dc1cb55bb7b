package offline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/internal/sqlx"
	"holdfast/stanza"
)

// Mailbox is the mailboxes of all users. It is safe for concurrent use.
type Mailbox struct {
	// static
	cfg      Config
	store    Backend
	log      *slog.Logger
	metrics  *metrics
	boxes    *boxes
	known    *known // users with mail
	gate     *gate
	writes   *sqlx.Batcher[*write]
	choosers *known             // users who chose a limit
	stop     context.CancelFunc // ends the goroutine of upkeep
	stopped  chan struct{}      // closed by upkeep

	stored atomic.Int64 // messages in all mailboxes, uncommitted changes included; with Config.Shared an estimate

	changes []Change // owned by apply

	mu       sync.Mutex
	rejected []*write // what the store refused and Checkpoint offers again; guarded by mu
}

// New opens the mailboxes that store keeps. It reads the names of the recipients with mail, unless others share the
// store. reg may be nil.
func New(ctx context.Context, cfg Config, store Backend, log *slog.Logger, reg prometheus.Registerer) (*Mailbox, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("offline: %w", err)
	}
	m := &Mailbox{
		cfg: cfg, store: store, log: log,
		boxes:   newBoxes(cfg.Cache),
		gate:    &gate{max: cfg.PendingBytes},
		stopped: make(chan struct{}),
	}
	var err error
	if m.metrics, err = newMetrics(reg, m); err != nil {
		return nil, fmt.Errorf("offline: %w", err)
	}
	if cfg.Shared {
		m.known, m.choosers = givenUp(), givenUp() // others add to them
	} else if m.known, err = loadKnown(ctx, cfg.Known, store.Users); err != nil {
		return nil, err
	} else if m.choosers, err = loadKnown(ctx, cfg.Known, store.Choosers); err != nil {
		return nil, err
	}
	if err := m.countStored(ctx); err != nil {
		return nil, err
	}
	m.writes = sqlx.NewBatcher(store, sqlx.Batch[*write]{
		Max: cfg.Batch, Window: cfg.Window, // no Queue: the gate bounds it, so that Add never waits with a box locked
		Apply: m.apply, Committed: m.committed, Rejected: m.reject,
		Log: log, Seconds: m.metrics.commits, Retries: m.metrics.retries,
	})
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = stop
	go m.upkeep(run)
	return m, nil
}

// Close refuses further calls, commits what waits and ends the goroutines. When ctx ends before that, the error says
// what is not written; the journal has it.
func (m *Mailbox) Close(ctx context.Context) error {
	m.stop()
	m.gate.close()
	<-m.stopped
	if err := m.writes.Close(ctx); err != nil {
		return fmt.Errorf("offline: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.rejected); n > 0 {
		return fmt.Errorf("offline: closed with %d writes that the store refused", n)
	}
	return nil
}

// Decide says what is done with st by the configured policy, limits aside, and counts it.
func (m *Mailbox) Decide(st *stanza.Stanza) Verdict {
	v := Decide(st, m.cfg.Policy)
	m.metrics.decided(v)
	return v
}

// Put decides about a message for to, a user who is not there, and stores it when that is the verdict: when Put
// returns, every other method sees the message, and a Checkpoint that begins later waits for it. Over a limit the
// verdict is Bounce, or Drop by OFFLINE_OVER_LIMIT, and the error ErrFull. While OFFLINE_PENDING_BYTES of writes wait for the store the error is ErrBusy:
// Put does not wait for room, since its caller holds locks that everybody needs; who gets it lets go of them and calls
// Room. Any other error says that the message was not stored for a reason of the store's own.
//
// A message that is stored already is neither counted nor stored again. A marker takes the place of what it makes
// redundant, which is counted as dropped.
func (m *Mailbox) Put(ctx context.Context, to stanza.Addr, st *stanza.Stanza) (Verdict, error) {
	v := Decide(st, m.cfg.Policy)
	if v.Action == Store && st.Payloads().Has(stanza.Expire) && over(secondsOf(st), time.Now()) {
		v = Verdict{Drop, Overdue}
	}
	if v.Action != Store {
		m.metrics.decided(v)
		return v, nil
	}
	full, err := m.put(ctx, to, st, true)
	if errors.Is(err, ErrFull) {
		if v = (Verdict{Bounce, full}); m.cfg.OverLimit == LimitDrop {
			v.Action = Drop
		}
	} else if err != nil {
		return v, err
	} else if full == Superseded {
		v = Verdict{Drop, Superseded}
	}
	m.metrics.decided(v)
	return v, err
}

// Room waits until Put would not say ErrBusy, or ctx ends. It is called with no locks held.
func (m *Mailbox) Room(ctx context.Context) error { return m.gate.room(ctx) }

// Force stores a message without asking policy, limits or room: for the replay of the journal, whose messages were
// admitted before, and for the queue of a session that expired, about which the caller asks Decide.
func (m *Mailbox) Force(ctx context.Context, to stanza.Addr, st *stanza.Stanza) error {
	_, err := m.put(ctx, to, st, false)
	return err
}

// writeOverhead is what a write takes in memory besides the message, in bytes, as far as the gate is concerned.
const writeOverhead = 256

func (m *Mailbox) put(ctx context.Context, to stanza.Addr, st *stanza.Stanza, limited bool) (full Reason, err error) {
	if st.ID.IsZero() {
		return 0, ErrNoID
	}
	raw := st.Raw()
	size := int64(len(raw)) + writeOverhead
	enter := m.gate.pass
	if limited {
		enter = m.gate.enter
	}
	if err := enter(size); err != nil {
		return 0, err
	}
	b := m.boxes.acquire(to.Bare())
	b.mu.Lock()
	taken, full, err := m.putLocked(ctx, b, st, raw, size, limited)
	b.mu.Unlock()
	if !taken { // else the write keeps its place and the reference
		m.gate.leave(size)
		m.boxes.release(b)
	}
	return full, err
}

func (m *Mailbox) putLocked(
	ctx context.Context, b *box, st *stanza.Stanza, raw []byte, size int64, limited bool,
) (taken bool, full Reason, err error) {
	if err := m.loadLocked(ctx, b); err != nil {
		return false, 0, err
	}
	// An id greater than all before is new. Only replays, late and concurrent messages need to be looked for.
	if st.ID.Compare(b.last) <= 0 {
		if has, err := m.hasLocked(ctx, b, st.ID); has || err != nil {
			return false, 0, err
		}
	}
	sender := st.From.Bare().String()
	var old marks // what st takes the place of
	mark := markOf(st)
	if mark.Rank > 0 {
		var err error
		if old, err = m.marksLocked(ctx, b, sender, mark, st.ID); err != nil || old.superseded {
			return false, Superseded, err
		}
	}
	if limited {
		pair, isLimited := m.pairLimitLocked(b)
		switch {
		case isLimited && pair == 0:
			return false, Declined, ErrFull
		case isLimited && b.senders[sender]-len(old.ids) >= pair:
			return false, PairFull, ErrFull
		case m.cfg.UserLimit > 0 && b.count-len(old.ids) >= m.cfg.UserLimit:
			return false, MessagesFull, ErrFull
		case m.cfg.UserBytes > 0 && b.bytes-old.bytes+int64(len(raw)) > m.cfg.UserBytes:
			return false, BytesFull, ErrFull
		}
	}
	w := &write{
		change: Change{Op: OpPut, User: b.name, ID: st.ID, Sender: sender, Raw: raw, Expires: m.expiresAt(st), Mark: mark},
		box:    b, size: size,
	}
	if err := m.queue(w); err != nil {
		return false, 0, err
	}
	b.addPut(w)
	m.metrics.sizes.Observe(float64(len(raw)))
	m.stored.Add(1)
	if b.count == 1 {
		m.known.add(b.name)
	}
	if len(old.ids) > 0 {
		if err := m.replaceLocked(b, old); err != nil {
			return true, 0, err // closed: they stay, and so does the new one
		}
	}
	return true, 0, nil
}

// queue hands w to the group commit. The caller holds w.box.mu, so that the order of writes is the order of changes
// to the box, and nothing is settled before the box knows of it.
func (m *Mailbox) queue(w *write) error {
	// Without a bound of its own the Batcher does not wait, so there is no context to end the waiting.
	if err := m.writes.Add(context.Background(), w); err != nil {
		return ErrClosed
	}
	return nil
}

// loadLocked asks the store, once, what it has for b.
func (m *Mailbox) loadLocked(ctx context.Context, b *box) error {
	if b.loaded {
		return nil
	}
	if m.known.without(b.name) && m.choosers.without(b.name) {
		b.loaded = true
		return nil
	}
	start := time.Now()
	t, err := m.store.Totals(ctx, b.name)
	if err != nil {
		return err
	}
	since(m.metrics.loads, start)
	b.loaded = true
	b.count, b.bytes, b.senders, b.last, b.own = t.Messages, t.Bytes, t.Senders, t.Last, t.Own
	stanza.Observe(t.Last) // another gateway may have made it; what comes from now on is to be behind it
	return nil
}

// hasLocked reports whether the mailbox has id.
func (m *Mailbox) hasLocked(ctx context.Context, b *box, id stanza.ID) (bool, error) {
	if _, ok := b.find(id); ok {
		return true, nil
	}
	if b.inStore() == 0 || b.removing[id] > 0 {
		return false, nil
	}
	has := false
	err := m.store.Scan(ctx, b.name, Range{After: before(id), To: id}, func(Row) bool {
		has = true
		return false
	})
	return has, err
}

// before is the id right below id, which is not zero.
func before(id stanza.ID) stanza.ID {
	for i := len(id) - 1; i >= 0; i-- {
		id[i]--
		if id[i] != 0xff {
			break
		}
	}
	return id
}

// Contains reports whether the mailbox of user has the message id.
func (m *Mailbox) Contains(ctx context.Context, user stanza.Addr, id stanza.ID) (has bool, err error) {
	err = m.with(ctx, user, func(b *box) error {
		has, err = m.hasLocked(ctx, b, id)
		return err
	})
	return has, err
}

// Count is how many messages wait for user. It costs less than a microsecond for users without mail, and one query
// that counts the mailbox the first time it is asked about.
func (m *Mailbox) Count(ctx context.Context, user stanza.Addr) (n int, err error) {
	err = m.with(ctx, user, func(b *box) error {
		n = b.count
		return nil
	})
	return n, err
}

// Empty reports whether no message waits for user.
func (m *Mailbox) Empty(ctx context.Context, user stanza.Addr) (bool, error) {
	n, err := m.Count(ctx, user)
	return n == 0, err
}

// with runs fn with the box of user locked and loaded, or not at all when user has no mail.
func (m *Mailbox) with(ctx context.Context, user stanza.Addr, fn func(*box) error) error {
	user = user.Bare()
	if m.known.without(user.String()) {
		return nil
	}
	b := m.boxes.acquire(user)
	defer m.boxes.release(b)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := m.loadLocked(ctx, b); err != nil {
		return err
	}
	return fn(b)
}
