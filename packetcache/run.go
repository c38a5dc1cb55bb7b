package packetcache

import (
	"context"
	"errors"
	"time"

	"holdfast/stanza"
)

// Back-off of an action that fails: the first wait, doubled up to the last.
const (
	backoffFirst = 100 * time.Millisecond
	backoffLast  = 30 * time.Second
)

// quietFor is how long after one failing action was logged others are only counted.
const quietFor = 10 * time.Second

// withdraw is the action that takes an offline copy back. It cannot be configured.
const withdraw Action = maxActions

// Run carries out what is due, until ctx is done. It is called once, when all that the journal knows is restored. The
// action that is under way at the end is waited for; its context is cancelled.
func (c *Cache) Run(ctx context.Context) {
	c.spread()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next := c.runDue(ctx)
		if ctx.Err() != nil {
			return
		}
		timeout := timer.C
		if next == never {
			timeout = nil
		} else {
			timer.Reset(time.Duration(next - c.now()))
		}
		select {
		case <-ctx.Done():
			return
		case <-timeout:
		case <-c.wake:
		}
	}
}

// spread gives those whose deadline passed while the process was down one of their own each, so that a restart does
// not run all of them in one moment.
func (c *Cache) spread() {
	if c.cfg.RestartRate == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	var overdue []*entry
	for e := c.due.first(); e != nil && e.deadline <= now; e = c.due.first() {
		c.due.remove(e)
		overdue = append(overdue, e)
	}
	gap := int64(time.Second) / int64(c.cfg.RestartRate)
	for i, e := range overdue {
		e.deadline = now + int64(i)*gap
		c.due.pushEarly(e)
	}
}

// runDue runs every action whose time has come and returns when the next one is due.
func (c *Cache) runDue(ctx context.Context) int64 {
	for {
		c.mu.Lock()
		c.sleeping = false
		now := c.now()
		swept := c.sweepLocked(now)
		if ctx.Err() != nil {
			c.mu.Unlock()
			return never
		}
		if e := c.claimLocked(now); e != nil {
			action, view := e.doing, e.entry(now, c.wall())
			c.mu.Unlock()
			c.perform(ctx, e, action, view)
			continue
		}
		if !swept {
			c.mu.Unlock()
			continue
		}
		c.wakeAt = min(c.due.deadline(), c.retry.deadline(), c.late.deadline())
		c.sleeping = true
		next := c.wakeAt
		c.mu.Unlock()
		return next
	}
}

// sweepAtOnce bounds how many tombstones are forgotten under one hold of the lock.
const sweepAtOnce = 256

// sweepLocked forgets tombstones whose time is over and reports whether it is done with them.
func (c *Cache) sweepLocked(now int64) bool {
	for range sweepAtOnce {
		e := c.late.first()
		if e == nil || e.deadline > now {
			return true
		}
		c.closeLocked(e, outcomeClosed, now)
	}
	return false
}

// claimLocked takes the entry whose action is to run now out of its queue: the one with the earliest deadline that
// has passed or, when the cache is over its caps, the oldest.
func (c *Cache) claimLocked(now int64) *entry {
	q := &c.due
	if c.retry.deadline() < q.deadline() {
		q = &c.retry
	}
	e := q.first()
	if e == nil || e.deadline > now {
		if e = c.due.first(); e == nil || !c.overLocked() {
			return nil
		}
		// Those in retry are not evicted: what failed a moment ago has its back-off.
		e.step = uint8(len(c.cfg.Actions) - 1)
		c.counts.outcomes[outcomeEvicted]++
	}
	e.in.remove(e)
	e.state = running
	e.doing = c.actionLocked(e)
	return e
}

func (c *Cache) actionLocked(e *entry) Action {
	switch {
	case e.closed != 0:
		return withdraw
	case e.refused:
		return Bounce
	default:
		return c.cfg.Actions[e.step]
	}
}

// unclaimLocked puts a claimed entry back as it was.
func (c *Cache) unclaimLocked(e *entry) {
	e.state = waiting
	if e.tries > 0 || e.closed != 0 {
		c.retry.pushEarly(e)
	} else {
		c.due.pushEarly(e)
	}
}

// perform runs actions for the claimed e, beginning with action, until it waits again or is gone. view is e as it was
// at the claim.
func (c *Cache) perform(ctx context.Context, e *entry, action Action, view Entry) {
	for action != 0 {
		delivered, err := c.try(ctx, action, view)
		c.mu.Lock()
		next := c.finishLocked(ctx, e, action, delivered, err)
		if next != 0 && ctx.Err() != nil {
			c.unclaimLocked(e)
			next = 0
		}
		if next != 0 {
			e.doing = next
			view = e.entry(c.now(), c.wall())
		}
		c.mu.Unlock()
		if err != nil && ctx.Err() == nil && !errors.Is(err, ErrRefused) {
			c.report(action, view.ID, err)
		}
		action = next
	}
}

func (c *Cache) try(ctx context.Context, action Action, view Entry) (delivered bool, err error) {
	if c.cfg.ActionTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.ActionTimeout)
		defer cancel()
	}
	switch action {
	case Resend:
		return c.act.Resend(ctx, view)
	case Offline:
		return false, c.act.Offline(ctx, view)
	case Bounce:
		return false, c.act.Bounce(ctx, view)
	case withdraw:
		return false, c.act.Withdraw(ctx, view)
	default: // Drop
		return false, nil
	}
}

// finishLocked gives up the claim on e after action, or keeps it and returns the action that follows at once.
func (c *Cache) finishLocked(ctx context.Context, e *entry, action Action, delivered bool, err error) (next Action) {
	now := c.now()
	switch {
	case action == withdraw && err == nil:
		c.freeLocked(e)
	case action == withdraw:
		c.retryLocked(ctx, e, now)
	case e.closed != 0:
		return c.reconcileLocked(e, action, err, now)
	case action == Offline && errors.Is(err, ErrRefused):
		e.refused, e.tries = true, 0
		return Bounce
	case err != nil:
		c.retryLocked(ctx, e, now)
	case action == Resend:
		e.step++
		e.tries = 0
		c.dirty.push(e)
		if !delivered {
			return c.actionLocked(e)
		}
		c.counts.outcomes[outcomeResend]++
		e.sent()
		e.state = waiting
		e.deadline = after(now, c.cfg.Timeout)
		c.due.push(e)
	case action == Offline:
		c.counts.end(outcomeOffline, now-e.opened)
		c.lateLocked(e, after(now, c.cfg.Late))
	default:
		how := outcomeDrop
		if action == Bounce {
			how = outcomeBounce
		}
		c.counts.end(how, now-e.opened)
		c.removeLocked(e)
		c.leaveLocked(e)
		c.freeLocked(e)
	}
	return 0
}

// reconcileLocked ends an entry that was closed while action ran for it.
func (c *Cache) reconcileLocked(e *entry, action Action, err error, now int64) (next Action) {
	how := e.closed
	if action == Bounce && err == nil {
		how = outcomeBounce // the sender has the error, nothing takes it back
	}
	c.counts.end(how, now-e.opened)
	if action == Offline && !errors.Is(err, ErrRefused) {
		// Also after an error: it does not say that nothing was stored.
		e.tries = 0
		return withdraw
	}
	c.freeLocked(e)
	return 0
}

// retryLocked puts e back with a wait that grows with each failure. When Run ends, it was not e's fault.
func (c *Cache) retryLocked(ctx context.Context, e *entry, now int64) {
	if ctx.Err() != nil {
		c.unclaimLocked(e)
		return
	}
	wait := backoffLast
	if e.tries < 16 {
		wait = min(backoffFirst<<e.tries, backoffLast)
		e.tries++
	}
	c.counts.failures++
	e.state = waiting
	e.deadline = now + int64(wait)
	c.retry.pushEarly(e)
}

// report logs a failed try, and says nothing of those that follow soon: when a store is down, all of them fail.
func (c *Cache) report(action Action, id stanza.ID, err error) {
	now := c.now()
	if now < c.quiet {
		return
	}
	c.quiet = now + int64(quietFor)
	c.log.Warn("packet cache: an action failed and will be tried again", "action", action.String(), "id", id.String(),
		"error", err)
}
