package auth

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"holdfast/stanza"
)

const (
	watchEvery  = time.Second      // how often Watch looks for removals by other processes
	pruneEvery  = 10 * time.Minute // how often Watch prunes the log of changes
	changesKept = time.Hour        // how long the log keeps a change
	changesPage = 1000
	pendingPage = 100
	// claimTime is how long a gateway has a removal to itself; one that died meanwhile is succeeded after it.
	claimTime = time.Minute
)

// look brings the caches up to date with other processes unless that was done within cacheAge.
func (a *Accounts) look(ctx context.Context) error {
	if a.cacheAge > 0 && time.Since(a.opened)-time.Duration(a.looked.Load()) < a.cacheAge {
		return nil
	}
	a.lookMu.Lock()
	defer a.lookMu.Unlock()
	now := time.Since(a.opened)
	age := now - time.Duration(a.looked.Load())
	if a.cacheAge > 0 && age < a.cacheAge {
		return nil // another goroutine was first
	}
	if age > changesKept/2 {
		// The log may have been pruned behind our back.
		return a.startOverLocked(ctx, now)
	}
	changes, err := a.store.Changes(ctx, a.seen, changesPage)
	if err != nil {
		return err
	}
	if len(changes) == changesPage {
		return a.startOverLocked(ctx, now)
	}
	for _, c := range changes {
		a.forget(c.Addr)
		a.seen = c.Seq
	}
	a.looked.Store(int64(now))
	return nil
}

func (a *Accounts) startOverLocked(ctx context.Context, now time.Duration) error {
	last, err := a.store.Last(ctx)
	if err != nil {
		return err
	}
	a.epoch.Add(1)
	a.creds.clear()
	a.known.clear()
	a.seen = last
	a.looked.Store(int64(now))
	return nil
}

// forget takes user out of the caches.
func (a *Accounts) forget(user stanza.Addr) {
	a.epoch.Add(1)
	for _, f := range a.hasher.families {
		a.creds.remove(credKey{user, f.name})
	}
	a.known.remove(user)
}

// removals is what Watch works off: accounts that are gone while other rooms still have something of them.
type removals struct {
	claimant string // static: this process among those that work off removals of the same store

	mu       sync.Mutex
	hooks    []hook        // guarded by mu
	watching bool          // guarded by mu
	last     int64         // Seq of the last removal by this process; guarded by mu
	handled  int64         // everything up to it is handled; guarded by mu
	progress chan struct{} // closed and made new when handled grew or watching ended; guarded by mu

	poke chan struct{} // one token: there is something to do
}

type hook struct {
	room string
	f    func(context.Context, stanza.Addr) error
}

func (r *removals) init() {
	r.claimant = rand.Text()
	r.progress = make(chan struct{})
	r.poke = make(chan struct{}, 1)
}

func (r *removals) add(seq int64) {
	r.mu.Lock()
	r.last = max(r.last, seq)
	r.mu.Unlock()
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// wait returns when every removal by this process is worked off, so that a new account of the same name does not lose
// what it has to the removal of the old one.
func (r *removals) wait(ctx context.Context) error {
	for {
		r.mu.Lock()
		done, progress := !r.watching || r.handled >= r.last, r.progress
		r.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *removals) changeLocked() {
	close(r.progress)
	r.progress = make(chan struct{})
}

// OnRemoved has Watch call f for each user who was removed, by whichever process. f removes what room has of the user
// and may be called again for one who is gone already, or whose name is taken again. The removal stays pending until
// all functions have returned nil. Call it before Watch.
func (a *Accounts) OnRemoved(room string, f func(ctx context.Context, user stanza.Addr) error) {
	a.removals.mu.Lock()
	defer a.removals.mu.Unlock()
	a.removals.hooks = append(a.removals.hooks, hook{room, f})
}

// Watch works off removals until ctx ends: those that were left behind at once, those of this process as they come,
// those of others within a second. Every gateway runs it: a removal is worked off by the one that claims it first, by
// another when that one does not come to an end within a minute. It also prunes the log of changes.
func (a *Accounts) Watch(ctx context.Context) {
	r := &a.removals
	r.mu.Lock()
	r.watching = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.watching = false
		r.changeLocked()
		r.mu.Unlock()
	}()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	prune := time.NewTicker(pruneEvery)
	defer prune.Stop()
	for {
		if err := a.workOff(ctx); err != nil && ctx.Err() == nil {
			a.log.LogAttrs(ctx, slog.LevelError, "removal of a user's data failed and will be tried again", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-r.poke:
		case <-tick.C:
		case <-prune.C:
			if err := a.store.Prune(ctx, time.Now().Add(-changesKept)); err != nil && ctx.Err() == nil {
				a.log.LogAttrs(ctx, slog.LevelWarn, "log of account changes was not pruned", slog.Any("error", err))
			}
		}
	}
}

// workOff handles every pending removal that no other gateway has claimed, oldest first.
func (a *Accounts) workOff(ctx context.Context) error {
	r := &a.removals
	for {
		r.mu.Lock()
		last := r.last
		r.mu.Unlock()
		pending, err := a.store.Pending(ctx, pendingPage)
		if err != nil {
			return err
		}
		mine := 0
		for _, c := range pending {
			ok, err := a.removed(ctx, c)
			if err != nil {
				return err
			}
			if ok {
				mine++
			}
		}
		if mine > 0 {
			continue // there may be more behind the page
		}
		if len(pending) > 0 {
			last = min(last, pending[0].Seq-1)
		}
		r.mu.Lock()
		r.handled = max(r.handled, last)
		r.changeLocked()
		r.mu.Unlock()
		return nil
	}
}

// removed works off one removal, and reports false when it is another gateway's.
func (a *Accounts) removed(ctx context.Context, c Change) (mine bool, err error) {
	r := &a.removals
	if mine, err = a.store.Claim(ctx, c.Seq, r.claimant, claimTime); err != nil || !mine {
		return false, err
	}
	r.mu.Lock()
	hooks := r.hooks
	r.mu.Unlock()
	a.forget(c.Addr)
	for _, h := range hooks {
		if err := h.f(ctx, c.Addr); err != nil {
			return false, fmt.Errorf("auth: %s: %w", h.room, err)
		}
	}
	if err := a.store.Handled(ctx, c.Seq); err != nil {
		return false, err
	}
	a.forget(c.Addr) // an account of that name can be used now
	return true, nil
}
