package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"holdfast/stanza"
)

// This file keeps the keys of the users whose home this node is.

// pinScript keeps KEYS[1] for ever if it is ARGV[1]'s, or makes it so in place of ARGV[2].
var pinScript = redis.NewScript(`
local home = redis.call('GET', KEYS[1])
if home == ARGV[1] then
	redis.call('PERSIST', KEYS[1])
	return 1
end
if not home or home == ARGV[2] then
	redis.call('SET', KEYS[1], ARGV[1])
	return 1
end
return 0`)

// expireScript lets KEYS[1] live for another ARGV[2] milliseconds if it is ARGV[1]'s; 0 deletes it.
var expireScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
	return 0
end
if ARGV[2] == '0' then
	redis.call('DEL', KEYS[1])
else
	redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1`)

// ErrLost says that another node has become the user's home.
var ErrLost = errors.New("cluster: another node is the user's home")

// Pin makes this node the user's home for as long as there are sessions; from is the node that it may still be the
// home of in Redis. Nothing may be locked.
func (h *homes) Pin(ctx context.Context, user stanza.Addr, from string) error {
	h.mu.RLock()
	p := h.places[user]
	pinned := p != nil && p.node == h.self && p.pinned
	h.mu.RUnlock()
	if pinned && from == "" {
		return nil
	}
	ok, err := pinScript.Run(ctx, h.rdb, []string{h.key(user.String())}, h.self, from).Bool()
	if err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("cluster: pin user: %w", err)
	}
	if !ok {
		return ErrLost
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.places[user]; p != nil && p.node == h.self && p.leaving == nil {
		p.pinned = true
		delete(h.unsaid, user)
		return nil
	}
	return ErrUnlocated
}

// awaitPins waits a little until everybody who was handed over to this node so far is this node's in Redis too.
func (h *homes) awaitPins(ctx context.Context) {
	h.mu.RLock()
	unsaid := slices.Collect(maps.Keys(h.unsaid))
	h.mu.RUnlock()
	for end := time.Now().Add(syncTime); len(unsaid) > 0 && ctx.Err() == nil && time.Now().Before(end); {
		h.mu.RLock()
		_, waits := h.unsaid[unsaid[0]]
		h.mu.RUnlock()
		if !waits {
			unsaid = unsaid[1:]
			continue
		}
		time.Sleep(time.Millisecond)
	}
}

// Unpin says that a user has no session left. Under the user's lock.
func (h *homes) Unpin(user stanza.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.places[user]; p != nil && p.node == h.self && p.pinned {
		p.pinned = false
		p.use()
		// The key does not expire yet, and the keeper comes before it does.
		p.until = time.Now().Add(h.cfg.HomeTime)
		select {
		case h.loose <- user: // so that it expires even if this node dies
		default:
		}
	}
}

// Releaser gives up what a node has of a user without sessions.
type Releaser interface {
	// Vacate runs leave under the user's lock if there is nothing of the user here but what is in kept stores, and
	// reports whether it did.
	Vacate(user stanza.Addr, leave func()) bool
	// Release returns when everything that concerns the user is in the kept stores.
	Release(ctx context.Context, user stanza.Addr) error
}

// keep looks after the users without sessions until ctx ends: those in use stay, the others are given up.
func (h *homes) keep(ctx context.Context, r Releaser, log *slog.Logger) {
	t := time.NewTicker(h.cfg.HomeTime / 6)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case user := <-h.loose:
			loose := []stanza.Addr{user}
			for len(h.loose) > 0 && len(loose) < extendAtOnce {
				loose = append(loose, <-h.loose)
			}
			if err := h.extend(ctx, loose); err != nil && ctx.Err() == nil {
				log.Warn("homes of users without sessions not extended", "error", err)
			}
			continue
		case <-t.C:
		}
		stay, leave := h.idlers(time.Now().Add(-h.cfg.HomeTime / 2))
		if err := h.extend(ctx, stay); err != nil && ctx.Err() == nil {
			log.Warn("homes of users without sessions not extended", "error", err)
		}
		for _, user := range leave {
			if err := h.giveUp(ctx, user, r); err != nil && ctx.Err() == nil {
				log.Warn("home of a user without sessions not given up", "error", err)
			}
		}
	}
}

// idlers returns the own users that have no session: used since, or not.
func (h *homes) idlers(since time.Time) (stay, leave []stanza.Addr) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for user, p := range h.places {
		if p.node != h.self || p.pinned || p.leaving != nil {
			continue
		}
		if p.usedAt().After(since) {
			stay = append(stay, user)
		} else {
			leave = append(leave, user)
		}
	}
	return stay, leave
}

// extendAtOnce bounds one pipeline.
const extendAtOnce = 500

func (h *homes) extend(ctx context.Context, users []stanza.Addr) error {
	for len(users) > 0 {
		some := users[:min(len(users), extendAtOnce)]
		users = users[len(some):]
		start := time.Now()
		pipe := h.rdb.Pipeline()
		cmds := make([]*redis.Cmd, len(some))
		for i, user := range some {
			cmds[i] = expireScript.Eval(ctx, pipe, []string{h.key(user.String())}, h.self, h.ttl().Milliseconds())
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("cluster: extend homes: %w", err)
		}
		h.mu.Lock()
		for i, user := range some {
			p := h.places[user]
			if p == nil || p.node != h.self || p.pinned {
				continue
			}
			if ok, err := cmds[i].Bool(); err == nil && ok {
				p.until = start.Add(h.cfg.HomeTime)
			}
		}
		h.mu.Unlock()
	}
	return nil
}

// giveUp makes a user nobody's.
func (h *homes) giveUp(ctx context.Context, user stanza.Addr, r Releaser) error {
	var left chan struct{}
	r.Vacate(user, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if p := h.places[user]; p != nil && p.node == h.self && !p.pinned && p.leaving == nil {
			p.leaving = make(chan struct{})
			left = p.leaving
		}
	})
	if left == nil {
		return nil
	}
	err := r.Release(ctx, user)
	if err == nil {
		err = expireScript.Run(ctx, h.rdb, []string{h.key(user.String())}, h.self, 0).Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	defer close(left)
	p := h.places[user]
	if err != nil {
		p.leaving = nil // it stays ours, and is tried again
		return err
	}
	if p.via == "" {
		delete(h.places, user)
	} else {
		p.leaving, p.until = nil, time.Time{}
	}
	return nil
}

// giveUpAll makes every user without sessions nobody's, at the end.
func (h *homes) giveUpAll(ctx context.Context, r Releaser) error {
	_, all := h.idlers(time.Now().Add(time.Hour))
	var errs []error
	for _, user := range all {
		if err := h.giveUp(ctx, user, r); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
