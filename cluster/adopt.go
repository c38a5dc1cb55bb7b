package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"holdfast/stanza"
)

const (
	adoptRetry = 200 * time.Millisecond
	syncTime   = 2 * time.Second
	tombTime   = 10 * time.Minute
	drainPage  = 256
	pinAtOnce  = 500
)

// adoptAll adopts dead nodes, one after the other.
func (n *Node) adoptAll() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case dead := <-n.adopt:
			start := time.Now()
			users, doubt := make(map[stanza.Addr]bool), n.doubt(dead)
			for wait := adoptRetry; ; wait = min(2*wait, 5*time.Second) {
				mine, err := n.adoptNode(n.ctx, dead, users, &doubt)
				if err == nil {
					if mine {
						n.metrics.adoptions.Inc()
						n.metrics.adoptTime.Observe(time.Since(start).Seconds())
						n.log.Info("estate of a dead node taken over", "dead", dead, "took", time.Since(start))
					}
					break
				}
				if n.ctx.Err() != nil {
					return
				}
				n.log.Error("estate of a dead node not taken over yet", "dead", dead, "error", err)
				if !n.sleep(wait) {
					return
				}
			}
			n.mu.Lock()
			if m := n.members[dead]; m != nil {
				m.adopting, m.moved, m.left = false, time.Now(), time.Now()
			}
			n.mu.Unlock()
		}
	}
}

// adoptNode takes over a dead node. It reports false when another node does. Whose home this node became by it is noted in
// users, as Heir.Adopt need not say it again when it is tried again. doubt is how long it has to wait after the fence.
func (n *Node) adoptNode(ctx context.Context, dead string, users map[stanza.Addr]bool, doubt *time.Duration) (mine bool, err error) {
	left, err := n.leftSomething(ctx, dead)
	if err != nil || !left {
		return false, err
	}
	holder, err := n.heir.Fence(ctx, dead, dead) // one that has left has fenced itself
	if err != nil {
		return false, err
	}
	if holder != n.id {
		lives, err := n.lives(ctx, holder)
		if err != nil || lives {
			return false, err
		}
		// It died over it, and was adopted and buried meanwhile.
		if holder, err = n.heir.Fence(ctx, dead, holder); err != nil || holder != n.id {
			return false, err
		}
	}
	if *doubt > 0 && !n.sleep(*doubt) {
		return true, ctx.Err()
	}
	*doubt = 0
	n.beginHeir(dead)
	estate, err := n.heir.Adopt(ctx, dead)
	for _, user := range estate.Users {
		users[user] = true
	}
	if err != nil {
		return true, err
	}
	for _, of := range estate.Adopted {
		if err := n.goOn(ctx, of, dead); err != nil {
			return true, err
		}
	}
	if err := n.sendRest(ctx, dead, estate.Unsent); err != nil {
		return true, err
	}
	// Whom the dead node handed over is known to be at the new home before the others count as this node's: to look for
	// them at the dead one would send what comes out of its mailbox back there, for ever.
	n.syncAll(ctx)
	n.inherit(dead)
	pinned := false
	for last := "0"; ; {
		before := last
		if last, err = n.drain(ctx, dead, last); err != nil {
			return true, err
		}
		// What was passed on is in the others' mailboxes before anybody hears that this mailbox is done with.
		if err := n.Checkpoint(ctx); err != nil {
			return true, err
		}
		if !pinned || last != before {
			n.syncAll(ctx) // and further, where it was passed on again
		}
		if !pinned {
			if err := n.pinAll(ctx, slices.Collect(maps.Keys(users)), dead); err != nil {
				return true, err
			}
			n.endInherit(dead)
			pinned = true
		}
		sealed, err := n.seal(ctx, dead, last)
		if err != nil {
			return true, err
		}
		if sealed {
			break
		}
	}
	if err := n.heir.Bury(ctx, dead); err != nil {
		return true, err
	}
	if err := n.rdb.Del(ctx, n.keys.Node(dead, "fence")).Err(); err != nil {
		return true, fmt.Errorf("cluster: bury: %w", err)
	}
	if err := n.rdb.HDel(ctx, n.keys.Nodes(), dead).Err(); err != nil {
		return true, fmt.Errorf("cluster: bury: %w", err)
	}
	n.mu.Lock()
	_, known := n.members[dead]
	delete(n.members, dead)
	delete(n.heirOf, dead)
	if known {
		close(n.changed)
		n.changed = make(chan struct{})
	}
	n.mu.Unlock()
	if known {
		n.noteSealed(dead)
		n.recv.Gone(dead)
	}
	return true, nil
}

// doubt is how long a node that is taken for dead may go on.
func (n *Node) doubt(dead string) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m := n.members[dead]; m != nil && m.certain {
		return 0
	}
	return n.cfg.Doubt
}

// leftSomething reports whether a dead node has not been buried yet: it may have been before this node heard of it.
func (n *Node) leftSomething(ctx context.Context, dead string) (bool, error) {
	member, err := n.rdb.HExists(ctx, n.keys.Nodes(), dead).Result()
	if err != nil || member {
		return member, err
	}
	fenced, err := n.rdb.Exists(ctx, n.keys.Node(dead, "fence")).Result()
	return fenced > 0, err
}

// goOn makes this node the one that goes on with an adoption over which the dead one died: what that had taken of it is
// here now, and anybody else would take it a second time. Others leave it to the dead one as long as that is a member.
func (n *Node) goOn(ctx context.Context, of, dead string) error {
	holder, err := n.heir.Fence(ctx, of, dead)
	if err != nil || holder != n.id {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.members[of]
	if m == nil {
		m = &member{moved: time.Now()}
	}
	if !m.adopting {
		m.adopting = true
		n.queueAdoptionLocked(of, m)
	}
	return nil
}

// beginHeir notes that the users of a dead node come here.
func (n *Node) beginHeir(dead string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.heirOf[dead]; !ok {
		n.heirOf[dead] = false
		n.homes.beginInherit(dead)
	}
}

// endInherit lets clients of the dead node's users be served.
func (n *Node) endInherit(dead string) { n.homes.endInherit(dead) }

// syncAll waits, within bounds, until what is on its way between the others has arrived.
func (n *Node) syncAll(ctx context.Context) {
	within, cancel := context.WithTimeout(ctx, syncTime)
	defer cancel()
	n.Sync(within, n.answering()...)
}

// inherit makes the users whose home a dead node is by Redis, and who have no sessions, anybody's to claim: all that it
// had of them is in the kept stores.
func (n *Node) inherit(dead string) {
	n.mu.Lock()
	n.heirOf[dead] = true
	n.mu.Unlock()
	n.homes.dead(dead)
}

// sendRest sends what a dead node had for others, in its name, so that they recognise what they have already.
func (n *Node) sendRest(ctx context.Context, dead string, unsent []Unsent) error {
	for len(unsent) > 0 {
		to := unsent[0].To
		var rest []Unsent
		l := &link{n: n, to: to, from: dead, ord: n.ords()}
		for i, u := range unsent {
			if u.To != to {
				rest = append(rest, unsent[i])
				continue
			}
			if err := n.sendOne(ctx, l, u); err != nil {
				return err
			}
		}
		unsent = rest
	}
	return nil
}

func (n *Node) sendOne(ctx context.Context, l *link, u Unsent) error {
	if l.to == l.from {
		// Parked there, and so before all that is still in its mailbox.
		return n.recv.Receive(ctx, l.from+"/"+l.to, u.Message)
	}
	// For this node too through the mailbox: others of the same link may be in it, unread.
	blob := u.Message.append(nil)
	for {
		sealed, err := l.post(blob, false, 0)
		switch {
		case err == nil && !sealed:
			return nil
		case err == nil:
			seen, err := n.tomb(ctx, l.to, l.from)
			if err != nil || int32(u.Message.Seq-seen) <= 0 {
				return err
			}
			// Under a link that this node counts for itself, so that it is done once even if this node dies.
			return n.recv.Receive(ctx, l.from+"/"+l.to, u.Message)
		case ctx.Err() != nil:
			return ctx.Err()
		}
		n.sleep(sendRetry)
	}
}

// drain carries out what lies in a dead node's mailbox behind the entry last, and returns the last entry.
func (n *Node) drain(ctx context.Context, dead, last string) (string, error) {
	key := n.keys.Node(dead, "mailbox:dead")
	for {
		start := "-"
		if last != "0" {
			start = "(" + last
		}
		entries, err := n.rdb.XRangeN(ctx, key, start, "+", drainPage).Result()
		if err != nil {
			return last, fmt.Errorf("cluster: mailbox of %s: %w", dead, err)
		}
		for _, entry := range entries {
			if err := n.carryOut(entry, dead); err != nil {
				return last, err
			}
			last = entry.ID
		}
		if len(entries) < drainPage {
			return last, nil
		}
	}
}

// sealScript deletes a dead node's mailbox, KEYS[1], if nothing is in it behind ARGV[1], and leaves in KEYS[2] how far
// each sender's messages were taken.
var sealScript = redis.NewScript(`
local start = '-'
if ARGV[1] ~= '0' then start = '(' .. ARGV[1] end
if #redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', 1) > 0 then
	return 0
end
redis.call('DEL', KEYS[1])
for i = 3, #ARGV, 2 do
	redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[2], '', '')
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1`)

func (n *Node) seal(ctx context.Context, dead, last string) (bool, error) {
	// What was carried out is safe before it is gone.
	if err := n.journal.Settle(ctx); err != nil {
		return false, err
	}
	args := []any{last, tombTime.Milliseconds()}
	for from, seen := range n.recv.Received(dead) {
		args = append(args, from, seen)
	}
	ok, err := sealScript.Run(ctx, n.rdb, []string{n.keys.Node(dead, "mailbox:dead"), n.keys.Node(dead, "tomb")}, args...).Bool()
	if err != nil && !errors.Is(err, redis.Nil) {
		return false, fmt.Errorf("cluster: seal mailbox of %s: %w", dead, err)
	}
	return ok, nil
}

// pinAll tells everybody that the users of a dead node are this node's.
func (n *Node) pinAll(ctx context.Context, users []stanza.Addr, dead string) error {
	for len(users) > 0 {
		some := users[:min(len(users), pinAtOnce)]
		users = users[len(some):]
		pipe := n.rdb.Pipeline()
		cmds := make([]*redis.Cmd, len(some))
		for i, user := range some {
			cmds[i] = pinScript.Eval(ctx, pipe, []string{n.keys.Home(user.String())}, n.id, dead)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("cluster: homes of %s: %w", dead, err)
		}
		for i, cmd := range cmds {
			if ok, err := cmd.Bool(); err == nil && !ok {
				if err := n.pinOver(ctx, some[i], dead); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// pinOver pins a user of a dead node who is somebody else's by the key: of a node that the dead one had adopted, or of
// one that handed the user over to the dead one, which did not live to say so. What the journals say counts, as long as
// the user has not moved on from here.
func (n *Node) pinOver(ctx context.Context, user stanza.Addr, dead string) error {
	key := n.keys.Home(user.String())
	for n.homes.Here(user) {
		home, err := n.rdb.Get(ctx, key).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return fmt.Errorf("cluster: homes of %s: %w", dead, err)
		}
		ok, err := pinScript.Run(ctx, n.rdb, []string{key}, n.id, home).Bool()
		if err != nil && !errors.Is(err, redis.Nil) {
			return fmt.Errorf("cluster: homes of %s: %w", dead, err)
		}
		if ok {
			n.log.Warn("user of a dead node was another's by name", "user", user.String(), "dead", dead, "home", home)
			return nil
		}
	}
	return nil
}

// endScript takes the streams of a node that ends, KEYS[1] and [2], if nobody has sent it anything that it has not
// carried out, which is what comes behind the entry ARGV[3], and nobody has fenced it (KEYS[3]), and leaves in KEYS[4]
// how far each sender's messages were taken.
var endScript = redis.NewScript(`
if redis.call('EXISTS', KEYS[3]) == 1 then
	return 0
end
local start = '-'
if ARGV[3] ~= '0' then start = '(' .. ARGV[3] end
if #redis.call('XRANGE', KEYS[2], start, '+', 'COUNT', 1) > 0 then
	return 0
end
redis.call('SET', KEYS[3], ARGV[1])
redis.call('DEL', KEYS[1], KEYS[2])
for i = 4, #ARGV, 2 do
	redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[4], '', '')
redis.call('PEXPIRE', KEYS[4], ARGV[2])
return 1`)

// End is for a node that has left nothing for others, after Close and a checkpoint: it buries itself. It reports false
// when there is something after all.
func (n *Node) End(ctx context.Context) (bool, error) {
	keys := []string{n.keys.Node(n.id, "journal"), n.keys.Node(n.id, "mailbox"), n.keys.Node(n.id, "fence"), n.keys.Node(n.id, "tomb")}
	n.mu.Lock()
	arrived := n.arrived
	n.mu.Unlock()
	args := []any{n.id, tombTime.Milliseconds(), arrived}
	for from, seen := range n.recv.Received("") {
		args = append(args, from, seen)
	}
	ok, err := endScript.Run(ctx, n.rdb, keys, args...).Bool()
	if err != nil && !errors.Is(err, redis.Nil) {
		return false, fmt.Errorf("cluster: end: %w", err)
	}
	if !ok {
		return false, nil
	}
	if err := n.heir.Bury(ctx, n.id); err != nil {
		return true, err
	}
	if err := n.rdb.Del(ctx, n.keys.Node(n.id, "fence")).Err(); err != nil {
		return true, fmt.Errorf("cluster: end: %w", err)
	}
	if err := n.rdb.HDel(ctx, n.keys.Nodes(), n.id).Err(); err != nil {
		return true, fmt.Errorf("cluster: end: %w", err)
	}
	return true, nil
}
