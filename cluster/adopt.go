package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
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

// adoption is the taking over of one dead node and, before it, of those over whose adoption it died: what that had taken
// of them is here with what it had itself, and anybody else would take it a second time.
type adoption struct {
	dead  string
	doubt time.Duration // how long to wait after the fence yet
	// Whose home this node became by it: Heir.Adopt need not say it again when it is tried again.
	users map[stanza.Addr]bool
	nodes []remains // those of this try, the dead one last
}

// remains is what this node has not got yet of a dead one whose sessions it has.
type remains struct {
	node    string
	unsent  []Unsent
	drained string // the last entry of the mailbox that was carried out
}

// adoptAll adopts dead nodes, one after the other.
func (n *Node) adoptAll() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case dead := <-n.adopt:
			start := time.Now()
			a := &adoption{dead: dead, doubt: n.doubt(dead), users: make(map[stanza.Addr]bool)}
			for wait := adoptRetry; ; wait = min(2*wait, 5*time.Second) {
				err := n.adoptNode(n.ctx, a)
				if err == nil {
					n.endHeir(dead) // it may have been buried without word of it
					for _, e := range a.nodes {
						n.metrics.adoptions.Inc()
						n.metrics.adoptTime.Observe(time.Since(start).Seconds())
						n.log.Info("estate of a dead node taken over", "dead", e.node, "took", time.Since(start))
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

// adoptNode takes over a dead node, and notes what it took. That is nothing when another node does it.
func (n *Node) adoptNode(ctx context.Context, a *adoption) error {
	a.nodes = a.nodes[:0]
	left, err := n.leftSomething(ctx, a.dead)
	if err != nil || !left {
		return err
	}
	if mine, err := n.inheritFrom(ctx, a, a.dead, nil); err != nil || !mine {
		return err
	}
	for _, e := range a.nodes {
		if err := n.sendRest(ctx, e.node, e.unsent); err != nil {
			return err
		}
	}
	n.awaitEarlier(ctx, a)
	// Whom the dead node handed over is known to be at the new home before the others count as this node's: to look for
	// them at the dead one would send what comes out of its mailbox back there, for ever.
	n.syncAll(ctx)
	for _, e := range a.nodes {
		n.inherit(e.node)
	}
	if err := n.drainAll(ctx, a); err != nil {
		return err
	}
	for _, e := range a.nodes {
		if err := n.bury(ctx, e.node); err != nil {
			return err
		}
	}
	return nil
}

// inheritFrom takes over all that a dead node had but its mailbox, after that of the nodes which it was taking over itself.
// over names those over whose adoption this is done. It reports false when another node does it.
func (n *Node) inheritFrom(ctx context.Context, a *adoption, dead string, over []string) (mine bool, err error) {
	if mine, err := n.fenceOff(ctx, dead, over); err != nil || !mine {
		return false, err
	}
	if a.doubt > 0 && !n.sleep(a.doubt) {
		return false, ctx.Err()
	}
	a.doubt = 0
	if err := n.openAll(ctx, dead); err != nil {
		return false, err
	}
	n.beginHeir(dead)
	estate, err := n.heir.Adopt(ctx, dead)
	for _, user := range estate.Users {
		a.users[user] = true
	}
	if err != nil {
		return false, err
	}
	over = append(over, dead)
	for _, of := range estate.Adopted {
		if slices.ContainsFunc(a.nodes, func(e remains) bool { return e.node == of }) || slices.Contains(over, of) {
			continue
		}
		left, err := n.leftSomething(ctx, of)
		if err == nil && left {
			_, err = n.inheritFrom(ctx, a, of, over)
		} else if err == nil {
			err = n.heir.Bury(ctx, of) // the dead one, or this one before, had come as far as that
			n.endHeir(of)
		}
		if err != nil {
			return false, err
		}
	}
	a.nodes = append(a.nodes, remains{node: dead, unsent: estate.Unsent, drained: "0"})
	return true, nil
}

// fenceOff keeps a dead node from writing, and reports whether this node is the one to take it over: also in the place of
// one of over, which were about to, or of any other that is dead.
func (n *Node) fenceOff(ctx context.Context, dead string, over []string) (mine bool, err error) {
	holder, err := n.heir.Fence(ctx, dead, dead) // one that has left has fenced itself
	if err == nil && holder != n.id {
		if !slices.Contains(over, holder) {
			lives, err := n.lives(ctx, holder)
			if err != nil || lives {
				return false, err
			}
			// It died over it, and was adopted and buried meanwhile.
		}
		holder, err = n.heir.Fence(ctx, dead, holder)
	}
	if err != nil || holder != n.id {
		return false, err
	}
	member, err := n.rdb.HExists(ctx, n.keys.Nodes(), dead).Result()
	if err == nil && !member {
		// It was buried in that moment, so the fence is new, and nobody's.
		err = n.rdb.Del(ctx, n.keys.Node(dead, "fence")).Err()
	}
	if err == nil && member {
		err = deathScript.Run(ctx, n.rdb, []string{n.keys.Deaths()}, dead).Err()
	}
	if err != nil {
		return false, fmt.Errorf("cluster: fence of %s: %w", dead, err)
	}
	return member, nil
}

// deathScript notes when the node ARGV[1] died, by the one clock of Redis.
var deathScript = redis.NewScript(`
local t = redis.call('TIME')
return redis.call('HSETNX', KEYS[1], ARGV[1], string.format('%.0f', t[1] * 1000000 + t[2]))`)

// awaitEarlier waits, within bounds, until the nodes that died before the dead one are buried: what it had sent, or its users
// were sent, may still lie there, and clients may have to send anew what comes behind that. Later ones are not waited for,
// whose heirs wait for this one.
func (n *Node) awaitEarlier(ctx context.Context, a *adoption) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Doubt+syncTime)
	defer cancel()
	deaths, err := n.rdb.HGetAll(ctx, n.keys.Deaths()).Result()
	if err != nil {
		return
	}
	died := func(node string) uint64 {
		at, _ := strconv.ParseUint(deaths[node], 10, 64)
		return at
	}
	for node := range deaths {
		if died(node) < died(a.dead) && !slices.ContainsFunc(a.nodes, func(e remains) bool { return e.node == node }) {
			n.awaitBuried(ctx, node)
		}
	}
}

func (n *Node) awaitBuried(ctx context.Context, dead string) {
	for ctx.Err() == nil {
		changed := n.AwaitChange()
		if left, err := n.leftSomething(ctx, dead); err == nil && !left {
			return
		}
		select {
		case <-changed:
		case <-time.After(adoptingRetry):
		case <-ctx.Done():
		}
	}
}

// drainAll carries out what lies in the mailboxes of an adoption's nodes and makes this node the home of their users; then
// it closes the mailboxes, carries out what came meanwhile, and says how far each sender's messages were taken.
func (n *Node) drainAll(ctx context.Context, a *adoption) error {
	if _, err := n.drainOnce(ctx, a); err != nil {
		return err
	}
	// Also without anything drained: the dead node may have passed something on, or handed somebody over.
	n.syncAll(ctx)
	if err := n.pinAll(ctx, a); err != nil {
		return err
	}
	for _, e := range a.nodes {
		n.endInherit(e.node)
	}
	for _, e := range a.nodes {
		if err := n.close(ctx, e.node); err != nil {
			return err
		}
	}
	came, err := n.drainOnce(ctx, a)
	if err != nil {
		return err
	}
	if came {
		n.syncAll(ctx)
	}
	// What was carried out is safe before it is gone.
	if err := n.journal.Settle(ctx); err != nil {
		return err
	}
	for _, e := range a.nodes {
		if err := n.seal(ctx, e.node); err != nil {
			return err
		}
	}
	return nil
}

// drainOnce carries out what lies in the mailboxes of an adoption's nodes, the earliest first, and reports whether there
// was something. What it passed on is in the others' mailboxes then: before anybody hears that these are done with.
func (n *Node) drainOnce(ctx context.Context, a *adoption) (came bool, err error) {
	for i := range a.nodes {
		e, before := &a.nodes[i], a.nodes[i].drained
		if e.drained, err = n.drain(ctx, e.node, before); err != nil {
			return came, err
		}
		came = came || e.drained != before
	}
	return came, n.awaitPassedOn(ctx, false)
}

// bury deletes what is left of a dead node, and forgets it.
func (n *Node) bury(ctx context.Context, dead string) error {
	if err := n.heir.Bury(ctx, dead); err != nil {
		return err
	}
	if err := n.rdb.Del(ctx, n.keys.Node(dead, "fence")).Err(); err != nil {
		return fmt.Errorf("cluster: bury: %w", err)
	}
	for _, key := range []string{n.keys.Deaths(), n.keys.Nodes()} {
		if err := n.rdb.HDel(ctx, key, dead).Err(); err != nil {
			return fmt.Errorf("cluster: bury: %w", err)
		}
	}
	known := n.strike(dead)
	n.endHeir(dead)
	for _, node := range n.Members() { // it would see that at its next beat
		n.Tell(node, Message{Op: opBuried, Payload: []byte(dead)})
	}
	n.noteSealed(dead) // senders here went by its mailbox, even if this node never saw it alive
	if known {
		n.recv.Gone(dead)
	}
	return nil
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

// beginHeir notes that the users of a dead node come here.
func (n *Node) beginHeir(dead string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.heirOf[dead]; !ok {
		n.heirOf[dead] = false
		n.homes.beginInherit(dead)
	}
}

// endHeir notes that this node is done with a dead one.
func (n *Node) endHeir(dead string) {
	n.endInherit(dead)
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.heirOf[dead]; ok {
		delete(n.heirOf, dead)
		n.changedLocked()
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

// A dead node's mailbox takes what is still sent to the node under the first name, and nothing under the second: what is
// left in it is then carried out, and a tomb says how much that was. Senders wait so long.
const (
	mailboxDead   = "mailbox:dead"
	mailboxClosed = "mailbox:closed"
)

// drain carries out what lies in a dead node's mailbox behind the entry last, and returns the last entry. What comes
// meanwhile stays.
func (n *Node) drain(ctx context.Context, dead, last string) (string, error) {
	for _, name := range []string{mailboxDead, mailboxClosed} { // it is one of them
		key := n.keys.Node(dead, name)
		newest, err := n.rdb.XRevRangeN(ctx, key, "+", "-", 1).Result()
		if err != nil {
			return last, fmt.Errorf("cluster: mailbox of %s: %w", dead, err)
		}
		for full := len(newest) > 0; full; {
			start := "-"
			if last != "0" {
				start = "(" + last
			}
			entries, err := n.rdb.XRangeN(ctx, key, start, newest[0].ID, drainPage).Result()
			if err != nil {
				return last, fmt.Errorf("cluster: mailbox of %s: %w", dead, err)
			}
			for _, entry := range entries {
				if err := n.carryOut(entry, dead); err != nil {
					return last, err
				}
				last = entry.ID
			}
			full = len(entries) == drainPage
		}
	}
	return last, nil
}

// renameScript renames KEYS[1] to KEYS[2] if it is there.
var renameScript = redis.NewScript(`
if redis.call('EXISTS', KEYS[1]) == 1 then
	redis.call('RENAME', KEYS[1], KEYS[2])
end
return 1`)

// close lets nothing more into a dead node's mailbox: who sends to it could keep this node busy for ever.
func (n *Node) close(ctx context.Context, dead string) error {
	return n.renameMailbox(ctx, dead, mailboxDead, mailboxClosed)
}

// openAll opens again what an adoption had closed that came to nothing, this node's or that of a dead one: before it is
// tried again nobody may have to wait for the end of it, as this node's checkpoints do.
func (n *Node) openAll(ctx context.Context, dead string) error {
	names, err := n.rdb.HKeys(ctx, n.keys.Nodes()).Result()
	if err != nil {
		return fmt.Errorf("cluster: members: %w", err)
	}
	for _, name := range names {
		holder, err := n.rdb.Get(ctx, n.keys.Node(name, "fence")).Result()
		switch {
		case errors.Is(err, redis.Nil):
			continue
		case err != nil:
			return fmt.Errorf("cluster: fence of %s: %w", name, err)
		}
		if holder == n.id || holder == dead {
			if err := n.renameMailbox(ctx, name, mailboxClosed, mailboxDead); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *Node) renameMailbox(ctx context.Context, dead, from, to string) error {
	err := renameScript.Run(ctx, n.rdb, []string{n.keys.Node(dead, from), n.keys.Node(dead, to)}).Err()
	if err != nil {
		return fmt.Errorf("cluster: mailbox of %s: %w", dead, err)
	}
	return nil
}

// sealScript deletes a dead node's mailbox, KEYS[1], and leaves in KEYS[2] how far each sender's messages were taken.
var sealScript = redis.NewScript(`
redis.call('DEL', KEYS[1])
for i = 2, #ARGV, 2 do
	redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[2], '', '')
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1`)

func (n *Node) seal(ctx context.Context, dead string) error {
	args := []any{tombTime.Milliseconds()}
	for from, seen := range n.recv.Received(dead) {
		args = append(args, from, seen)
	}
	err := sealScript.Run(ctx, n.rdb, []string{n.keys.Node(dead, mailboxClosed), n.keys.Node(dead, "tomb")}, args...).Err()
	if err != nil {
		return fmt.Errorf("cluster: seal mailbox of %s: %w", dead, err)
	}
	return nil
}

// pinAll tells everybody that the users of the adoption's nodes are this node's.
func (n *Node) pinAll(ctx context.Context, a *adoption) error {
	users := slices.Collect(maps.Keys(a.users))
	dead := make([]any, 0, len(a.nodes))
	for _, e := range a.nodes {
		dead = append(dead, e.node)
	}
	for some := range slices.Chunk(users, pinAtOnce) {
		pipe := n.rdb.Pipeline()
		cmds := make([]*redis.Cmd, len(some))
		for i, user := range some {
			args := append([]any{n.id, n.homes.termHere(user)}, dead...)
			cmds[i] = pinScript.Eval(ctx, pipe, []string{n.keys.Home(user.String())}, args...)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("cluster: homes of %s: %w", a.dead, err)
		}
		for i, cmd := range cmds {
			if ok, err := cmd.Bool(); err == nil && !ok {
				if err := n.pinOver(ctx, some[i], a.dead); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// pinOver pins a user of a dead node who is somebody else's by the key: of one that handed the user over to the dead one,
// which did not live to say so. What the journals say counts, as long as the user has not moved on from here.
func (n *Node) pinOver(ctx context.Context, user stanza.Addr, dead string) error {
	key := n.keys.Home(user.String())
	for n.homes.Here(user) {
		value, err := n.rdb.Get(ctx, key).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return fmt.Errorf("cluster: homes of %s: %w", dead, err)
		}
		home, _ := cutHome(value)
		ok, err := pinScript.Run(ctx, n.rdb, []string{key}, n.id, n.homes.termHere(user), home).Bool()
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
