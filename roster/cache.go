package roster

import (
	"container/list"
	"context"
	"fmt"
	"sync"

	"holdfast/stanza"
)

// cache keeps the rosters used last, up to a number of bytes by estimate.
type cache struct {
	limit int // 0 for none

	mu sync.Mutex
	// guarded by mu
	users   map[stanza.Addr]*list.Element // of *cached
	used    list.List                     // most recent first
	bytes   int
	items   int
	forgets uint64 // calls of forget, for whomever
}

type cached struct {
	user   stanza.Addr
	roster *snapshot
}

// overhead is what a cached roster takes beside its entries: map slot, list element, cached, snapshot.
const overhead = 320

func (c *cached) size() int { return overhead + len(c.user.String()) + c.roster.bytes }

func newCache(limit int) *cache {
	return &cache{limit: limit, users: make(map[stanza.Addr]*list.Element)}
}

func (c *cache) get(user stanza.Addr) (*snapshot, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.users[user]
	if !ok {
		return nil, false
	}
	c.used.MoveToFront(el)
	return el.Value.(*cached).roster, true
}

// mark is what put is told of the moment before the store was asked.
func (c *cache) mark() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.forgets
}

// put keeps a roster, unless one was forgotten since mark: it may be this one.
func (c *cache) put(user stanza.Addr, r *snapshot, mark uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked(user)
	if mark != c.forgets {
		return
	}
	in := &cached{user: detached(user), roster: r}
	if over(in.size(), c.limit) {
		return // it would push out everybody else and then itself
	}
	c.users[user] = c.used.PushFront(in)
	c.bytes += in.size()
	c.items += r.items
	for over(c.bytes, c.limit) {
		c.dropLocked(c.used.Back().Value.(*cached).user)
	}
}

func (c *cache) drop(user stanza.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked(user)
}

// forget is drop, also of what is on its way here.
func (c *cache) forget(user stanza.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgets++
	c.dropLocked(user)
}

func (c *cache) dropLocked(user stanza.Addr) {
	el, ok := c.users[user]
	if !ok {
		return
	}
	out := c.used.Remove(el).(*cached)
	delete(c.users, user)
	c.bytes -= out.size()
	c.items -= out.roster.items
}

// sizes returns the rosters, their items and bytes.
func (c *cache) sizes() (rosters, items, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.users), c.items, c.bytes
}

// turns lets one caller at a time work on a user's roster.
type turns struct {
	mu    sync.Mutex
	users map[stanza.Addr]*turn // guarded by mu; those that somebody has or waits for
}

type turn struct {
	free    chan struct{} // holds a token while nobody has the turn
	callers int           // guarded by turns.mu
}

func newTurns() *turns { return &turns{users: make(map[stanza.Addr]*turn)} }

// take waits for the user's turn, which done gives back.
func (t *turns) take(ctx context.Context, user stanza.Addr) (done func(), err error) {
	t.mu.Lock()
	u := t.users[user]
	if u == nil {
		u = &turn{free: make(chan struct{}, 1)}
		u.free <- struct{}{}
		t.users[user] = u
	}
	u.callers++
	t.mu.Unlock()

	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if u.callers--; u.callers == 0 {
			delete(t.users, user)
		}
	}
	select {
	case <-u.free:
		return func() {
			u.free <- struct{}{}
			leave()
		}, nil
	case <-ctx.Done():
		leave()
		return nil, fmt.Errorf("roster: waiting for the user's turn: %w", context.Cause(ctx))
	}
}

// detached returns a bare address that does not hold on to the full one it may have been cut from.
func detached(bare stanza.Addr) stanza.Addr {
	if a, err := stanza.ParseAddr(bare.String()); err == nil {
		return a
	}
	return bare
}
