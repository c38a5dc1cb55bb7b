package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"holdfast/stanza"
)

// This file keeps the keys of the users whose home this node is.

// pinScript keeps KEYS[1] for ever, for the term ARGV[2], if it is ARGV[1]'s, or makes it so in place of one of the others.
var pinScript = redis.NewScript(luaHome + `
local free = not home or node(home) == ARGV[1]
for i = 3, #ARGV do
	free = free or node(home) == ARGV[i]
end
if not free then
	return 0
end
local newest = tonumber(ARGV[2])
if node(home) == ARGV[1] then
	newest = math.max(newest, term(home))
end
redis.call('SET', KEYS[1], says(ARGV[1], newest))
return 1`)

// expireScript lets KEYS[1] live for another ARGV[2] milliseconds if it is ARGV[1]'s; 0 deletes it.
var expireScript = redis.NewScript(luaHome + `
if node(home) ~= ARGV[1] then
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
	h.mu.Lock()
	var p *place
	for {
		if p = h.places[user]; p == nil || p.node != h.self || p.leaving != nil {
			h.mu.Unlock()
			return ErrUnlocated
		}
		wait := p.inherits
		if wait == nil && p.pinned && from == "" {
			h.mu.Unlock()
			return nil
		}
		if wait == nil {
			wait = p.extending
		}
		if wait == nil {
			break
		}
		h.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
		h.mu.Lock()
		if p.inherits == wait {
			p.inherits = nil
		}
	}
	p.pinning++
	term := p.term
	h.mu.Unlock()
	ok, err := pinScript.Run(ctx, h.rdb, []string{h.key(user.String())}, h.self, term, from).Bool()
	h.mu.Lock()
	defer h.mu.Unlock()
	p.pinning--
	switch {
	case err != nil && !errors.Is(err, redis.Nil):
		return fmt.Errorf("cluster: pin user: %w", err)
	case !ok:
		return ErrLost
	case h.places[user] != p || p.node != h.self || p.leaving != nil:
		return ErrUnlocated
	}
	p.pinned = true
	delete(h.unsaid, user)
	return nil
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
	var loops sync.WaitGroup
	loops.Go(func() { h.keepKeys(ctx, log) })
	loops.Go(func() { h.giveUpIdle(ctx, r, log) })
	loops.Wait()
}

// keepKeys has the keys of users without sessions live on while they are in use, and no longer.
func (h *homes) keepKeys(ctx context.Context, log *slog.Logger) {
	t := time.NewTicker(h.cfg.HomeTime / 6)
	defer t.Stop()
	for {
		var users []stanza.Addr
		select {
		case <-ctx.Done():
			return
		case user := <-h.loose:
			users = append(users, user)
			for len(h.loose) > 0 && len(users) < extendAtOnce {
				users = append(users, <-h.loose)
			}
		case <-t.C:
			users, _ = h.idlers(time.Now().Add(-h.cfg.HomeTime / 2))
		}
		if err := h.extend(ctx, users); err != nil && ctx.Err() == nil {
			log.Warn("homes of users without sessions not extended", "error", err)
		}
	}
}

// givenUpAtOnce is how many users are given up at a time: each has to wait for stores.
const givenUpAtOnce = 16

// giveUpIdle gives up the users who were not in use.
func (h *homes) giveUpIdle(ctx context.Context, r Releaser, log *slog.Logger) {
	var under sync.WaitGroup
	defer under.Wait()
	slots := make(chan struct{}, givenUpAtOnce)
	t := time.NewTicker(h.cfg.HomeTime / 6)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		_, leave := h.idlers(time.Now().Add(-h.cfg.HomeTime / 2))
		for _, user := range leave {
			select {
			case <-ctx.Done():
				return
			case slots <- struct{}{}:
			}
			under.Go(func() {
				if err := h.giveUp(ctx, user, r); err != nil && ctx.Err() == nil {
					log.Warn("home of a user without sessions not given up", "error", err)
				}
				<-slots
			})
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
		if err := h.extendSome(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

func (h *homes) extendSome(ctx context.Context, users []stanza.Addr) error {
	done := make(chan struct{})
	places := make([]*place, 0, len(users))
	cmds := make([]*redis.Cmd, 0, len(users))
	pipe := h.rdb.Pipeline()
	h.mu.Lock()
	for _, user := range users {
		p := h.places[user]
		if p == nil || p.node != h.self || p.pinned || p.pinning > 0 || p.leaving != nil || p.extending != nil {
			continue
		}
		p.extending = done
		places = append(places, p)
		cmds = append(cmds, expireScript.Eval(ctx, pipe, []string{h.key(user.String())}, h.self, h.ttl().Milliseconds()))
	}
	h.mu.Unlock()
	start := time.Now()
	_, err := pipe.Exec(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, p := range places {
		p.extending = nil
		ok, failed := cmds[i].Bool()
		switch {
		case failed != nil || p.node != h.self || p.pinned:
		case ok:
			p.until = start.Add(h.cfg.HomeTime)
		default:
			p.until = time.Time{} // somebody else may be the home
		}
	}
	close(done)
	if err != nil {
		return fmt.Errorf("cluster: extend homes: %w", err)
	}
	return nil
}

// giveUp makes a user nobody's.
func (h *homes) giveUp(ctx context.Context, user stanza.Addr, r Releaser) error {
	var p *place
	r.Vacate(user, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		q := h.places[user]
		if q != nil && q.node == h.self && !q.pinned && q.pinning == 0 && q.leaving == nil {
			p = q
			p.leaving = make(chan struct{})
		}
	})
	if p == nil {
		return nil
	}
	released := r.Release(ctx, user)
	var deleted error
	if released == nil {
		deleted = expireScript.Run(ctx, h.rdb, []string{h.key(user.String())}, h.self, 0).Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	close(p.leaving)
	p.leaving = nil
	switch {
	case released != nil:
		return released // it stays ours, and is tried again
	case deleted != nil:
		p.until = time.Time{} // the same, but the key may be gone
		return fmt.Errorf("cluster: give up user: %w", deleted)
	}
	h.turns++
	if p.pinned || p.node != h.self {
		return nil // it was taken over meanwhile
	}
	delete(h.unsaid, user)
	if len(p.detours) == 0 {
		delete(h.places, user)
		return nil
	}
	// Senders here go on by the earlier home until that has passed on everything.
	p.node, p.term, p.last, p.until = "", TermUnknown, 0, time.Time{}
	h.away++
	return nil
}

// giveUpAll makes every user without sessions nobody's, at the end.
func (h *homes) giveUpAll(ctx context.Context, r Releaser) error {
	_, all := h.idlers(time.Now().Add(time.Hour))
	errs := make([]error, givenUpAtOnce)
	var under sync.WaitGroup
	for i := range errs {
		under.Go(func() {
			for at := i; at < len(all); at += len(errs) {
				if err := h.giveUp(ctx, all[at], r); err != nil {
					errs[i] = errors.Join(errs[i], err)
				}
			}
		})
	}
	under.Wait()
	return errors.Join(errs...)
}
