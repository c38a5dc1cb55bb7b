package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// beatLeft is the last beat of a node that has left.
const beatLeft = "left"

// beatScript shows that ARGV[1] lives, if the others have not struck it out.
var beatScript = redis.NewScript(`
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
	return false
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return redis.call('HGETALL', KEYS[1])`)

// beat shows that this node lives, and looks at the others.
func (n *Node) beat() {
	t := time.NewTicker(n.cfg.Beat)
	defer t.Stop()
	var told time.Time // when an error was last logged
	for count := 2; ; count++ {
		select {
		case <-n.ctx.Done():
			return
		case <-t.C:
		case <-n.beatNow:
		}
		switch err := n.beatOnce(n.ctx, count); {
		case n.ctx.Err() != nil || errors.Is(err, errNoMember):
			return
		case err != nil && time.Since(told) > tellEvery:
			n.log.Warn("no sign of life given, trying on", "error", err)
			told = time.Now()
		}
	}
}

var errNoMember = errors.New("cluster: this node is no member any more")

func (n *Node) beatOnce(ctx context.Context, count int) error {
	ctx, cancel := context.WithTimeout(ctx, max(n.cfg.Lease/2, time.Second))
	defer cancel()
	all, err := beatScript.Run(ctx, n.rdb, []string{n.keys.Nodes()}, n.id, n.says(count)).StringSlice()
	switch {
	case err == redis.Nil: //nolint:errorlint // it is returned as it is
		n.setFenced()
		return errNoMember
	case err != nil:
		n.mu.Lock()
		n.missed = true
		n.mu.Unlock()
		return fmt.Errorf("cluster: beat: %w", err)
	}
	n.look(all, time.Now())
	return nil
}

// Healthy says why this node gives no sign of life, or nil: it is seen also where there is nothing to write.
func (n *Node) Healthy() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.missed {
		return fmt.Errorf("redis has not answered this node's beat since %s", n.polled.Format(time.RFC3339))
	}
	return nil
}

// beatDeaf ends the beat of a node whose subscription does not stand, which says nothing of its death.
const beatDeaf = "-"

func (n *Node) says(count int) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.subscribed.IsZero() {
		return strconv.Itoa(count) + beatDeaf
	}
	return strconv.Itoa(count)
}

// look takes in who shows which beat.
func (n *Node) look(all []string, now time.Time) {
	n.mu.Lock()
	gap := now.Sub(n.polled)
	blind := !n.polled.IsZero() && (n.missed || gap > 3*n.cfg.Beat)
	n.polled, n.missed = now, false
	seen := make(map[string]bool, len(all)/2)
	changed := false
	for i := 0; i+1 < len(all); i += 2 {
		name, beat := all[i], all[i+1]
		if name == n.id {
			continue
		}
		seen[name] = true
		m := n.members[name]
		if m == nil {
			m = &member{moved: now}
			n.members[name] = m
			changed = true
		}
		switch {
		case beat == beatLeft && !m.adopting:
			m.beat, m.adopting, m.certain = beat, true, true
			n.queueAdoptionLocked(name, m)
		case m.beat != beat && !blind:
			m.beat, m.moved, m.heard, m.certain = beat, now, now, false
		case blind:
			m.beat = beat // if that is another one, it may be of before
			// While Redis did not answer nobody can have shown anything, and not all find it again at the same time: a
			// connection pool that was refused often tries once a second.
			m.moved = now.Add(n.cfg.Lease)
		case now.Sub(m.moved) > n.cfg.Lease && !m.adopting:
			m.adopting = true
			n.queueAdoptionLocked(name, m)
		}
	}
	var gone []string
	for name := range n.members {
		if !seen[name] {
			delete(n.members, name)
			gone = append(gone, name)
			changed = true
		}
	}
	if changed {
		n.changedLocked()
	}
	n.mu.Unlock()
	for _, name := range gone {
		n.noteSealed(name)
		n.recv.Gone(name)
	}
}

func (n *Node) queueAdoptionLocked(name string, m *member) {
	select {
	case n.adopt <- name:
	default:
		m.adopting = false // next time
	}
}

func (n *Node) changedLocked() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// strike takes a dead and buried node for no member, and reports whether it was one.
func (n *Node) strike(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.members[name] == nil {
		return false
	}
	delete(n.members, name)
	n.changedLocked()
	return true
}

func (n *Node) isMember(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.members[name] != nil
}

func (n *Node) isSealed(name string) bool {
	n.mu.Lock()
	l := n.links[name]
	n.mu.Unlock()
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sealed
}

// inherited reports whether this node has adopted the dead one as far as its sessions go.
func (n *Node) inherited(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.heirOf[name]
}

// Members returns the names of the other nodes.
func (n *Node) Members() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	names := make([]string, 0, len(n.members))
	for name := range n.members {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// answering returns the nodes that were heard of lately and are nobody's to adopt.
func (n *Node) answering() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var names []string
	for name, m := range n.members {
		if !m.adopting && time.Since(m.moved) < n.cfg.Lease && time.Since(m.left) > n.cfg.Lease {
			names = append(names, name)
		}
	}
	return names
}

// lives reports whether a node is a member, asking Redis about one that this node has not seen. One whose mailbox is
// sealed does not live, though its heir may not have struck it out yet: who took it for a home would send there what
// has just come back from there, for ever.
func (n *Node) lives(ctx context.Context, name string) (bool, error) {
	switch {
	case name == n.id:
		return true, nil
	case n.isSealed(name) || n.inherited(name):
		return false, nil
	case n.isMember(name):
		return true, nil
	}
	ok, err := n.rdb.HExists(ctx, n.keys.Nodes(), name).Result()
	if err != nil {
		return false, fmt.Errorf("cluster: members: %w", err)
	}
	return ok, nil
}

// The kernel closes the connections of a process that is killed, and Redis knows at once. So each node holds a
// subscription, and who waits for one that does not answer asks whether it is still there.

func (n *Node) channel(node string) string { return n.keys.Node(node, "alive") }

// subscribe holds the subscription.
func (n *Node) subscribe() {
	for n.ctx.Err() == nil {
		n.listen()
		n.setSubscribed(time.Time{})
		n.sleep(subscribeRetry)
	}
}

const subscribeRetry = 20 * time.Millisecond

// listen subscribes, and returns when the subscription has ended: with its connection, or as its slot has moved.
func (n *Node) listen() {
	ps := n.rdb.SSubscribe(n.ctx, n.channel(n.id))
	defer ps.Close()
	// The end of the context does not end a Receive that waits.
	defer context.AfterFunc(n.ctx, func() { _ = ps.Close() })()
	for {
		got, err := ps.Receive(n.ctx)
		if err != nil {
			return
		}
		if sub, ok := got.(*redis.Subscription); ok {
			if sub.Kind != "ssubscribe" {
				return
			}
			n.setSubscribed(time.Now())
		}
	}
}

// setSubscribed notes since when the subscription stands. The others hear at once that it does not.
func (n *Node) setSubscribed(since time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	changed := n.subscribed.IsZero() != since.IsZero()
	n.subscribed = since
	if changed {
		select {
		case n.beatNow <- struct{}{}:
		default:
		}
	}
}

const (
	suspectTries = 3
	suspectEvery = 8 * time.Millisecond
)

// Suspect looks whether a node that does not answer is dead, and has it adopted if so. It is of no use, and does
// nothing, when this node's own subscription is young: Redis was restarted then, and the other may not be back yet. Nor
// when the other has said that it has none: a server of a Redis Cluster may restart, or a slot move, for it alone. Nor
// when somebody else looks already: a thousand clients may wait for the same node.
func (n *Node) Suspect(ctx context.Context, node string) {
	if !n.suspects(node) {
		return
	}
	defer n.suspected(node)
	for range suspectTries {
		n.mu.Lock()
		m := n.members[node]
		stands := !n.subscribed.IsZero() && time.Since(n.subscribed) > n.cfg.Lease
		if m != nil && time.Since(m.left) < n.cfg.Lease {
			n.mu.Unlock()
			return // somebody is at it
		}
		n.mu.Unlock()
		if !stands || m == nil {
			return
		}
		count, err := n.rdb.SPublish(ctx, n.channel(node), "?").Result()
		if err != nil || count > 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(suspectEvery):
		}
	}
	// A node that loses its subscription says so at once, and one that is new before it has one.
	beat, err := n.rdb.HGet(ctx, n.keys.Nodes(), node).Result()
	if err != nil || beat == "0" || strings.HasSuffix(beat, beatDeaf) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if m := n.members[node]; m != nil && !m.adopting {
		n.log.Warn("node is gone", "dead", node)
		// Its connection to Redis stood until just now, with answers on it: had it lost Redis in another way, and gone
		// on without, its beat would have been missed.
		m.adopting, m.certain = true, time.Since(m.heard) < 2*n.cfg.Beat
		n.queueAdoptionLocked(node, m)
	}
}

// suspects reports whether the caller is the one who looks after a node; suspected must follow.
func (n *Node) suspects(node string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.members[node]
	if m == nil || m.suspected {
		return false
	}
	m.suspected = true
	return true
}

func (n *Node) suspected(node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m := n.members[node]; m != nil {
		m.suspected = false
	}
}

// AwaitChange returns a channel that is closed when somebody joins or is gone.
func (n *Node) AwaitChange() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}
