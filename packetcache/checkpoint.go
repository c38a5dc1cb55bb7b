package packetcache

import (
	"context"
	"fmt"
	"time"

	"holdfast/stanza"
)

// Checkpoint writes everything that changed since the last one to the store, in one transaction. When it returns nil,
// all that was opened, restored or closed before the call is there, and the journal may let go of it. After an error
// the store is as before, and the next Checkpoint writes the same and more.
func (c *Cache) Checkpoint(ctx context.Context) error {
	c.checkpointMu.Lock()
	defer c.checkpointMu.Unlock()

	if c.touched.Swap(false) {
		if err := c.touch(ctx); err != nil {
			c.touched.Store(true)
			return fmt.Errorf("packetcache: checkpoint: %w", err)
		}
	}
	c.mu.Lock()
	put, gone := c.takeLocked()
	c.mu.Unlock()
	if len(put) == 0 && len(gone) == 0 {
		return nil
	}
	begin := time.Now()
	err := c.store.Apply(ctx, put, gone)
	c.metrics.apply.Observe(time.Since(begin).Seconds())
	if err == nil {
		return nil
	}
	c.mu.Lock()
	c.untakeLocked(put, gone)
	c.mu.Unlock()
	return fmt.Errorf("packetcache: checkpoint: %w", err)
}

// TouchAll makes the next Checkpoint a whole one: the store may have lost what it was given, and have back what was
// removed from it.
func (c *Cache) TouchAll() { c.touched.Store(true) }

// touch makes everything dirty, and has removed what the store has and the cache has not.
func (c *Cache) touch(ctx context.Context) error {
	var stored []stanza.ID
	err := c.store.Load(ctx, func(e Entry) error {
		stored = append(stored, e.ID)
		return nil
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.byID {
		c.dirty.push(e)
	}
	for _, id := range stored {
		if c.byID[id] == nil {
			c.gone = append(c.gone, id)
		}
	}
	return nil
}

// Shutdown writes the last Checkpoint and takes the metrics back. Run has returned before.
func (c *Cache) Shutdown(ctx context.Context) error {
	c.metrics.unregister()
	return c.Checkpoint(ctx)
}

// takeLocked empties the lists of what changed. From here on an entry counts as written: one that closes while the
// transaction runs is removed by the next.
func (c *Cache) takeLocked() (put []Entry, gone []stanza.ID) {
	gone, c.gone = c.gone, nil
	if c.dirty.n == 0 {
		return nil, gone
	}
	now, wall := c.now(), c.wall()
	put = make([]Entry, 0, c.dirty.n)
	for e := c.dirty.head; e != nil; e = c.dirty.head {
		c.dirty.remove(e)
		e.written = true
		put = append(put, e.entry(now, wall))
	}
	return put, gone
}

func (c *Cache) untakeLocked(put []Entry, gone []stanza.ID) {
	c.gone = append(gone, c.gone...)
	for i := range put {
		if e := c.byID[put[i].ID]; e != nil {
			c.dirty.push(e)
		}
	}
}
