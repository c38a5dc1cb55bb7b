package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// The messages that a gateway sends; package session has more of them.
const (
	opSay   uint8 = FirstOp + iota // "<sender> <number>" for a user
	opTake                         // a user is handed over
	opMove                         // what was sent here was passed on
	opWant                         // the sender wants to be a user's home
	opHello                        // a test's own, which may be lost
)

var errElsewhere = errors.New("the user is another node's")

// gateway is what package session is for a Node: the Receiver, and the sender of messages.
type gateway struct {
	w    *world
	id   string
	rdb  redis.UniversalClient
	gate *gate
	node *Node
	j    *memJournal

	ctx    context.Context
	cancel context.CancelFunc
	loops  sync.WaitGroup
	ords   atomic.Uint64
	dead   atomic.Bool

	names names

	slow    atomic.Int64 // nanoseconds that carrying out one message takes
	waiting atomic.Int64 // senders in Ready

	mu     sync.Mutex // every user's lock
	users  map[stanza.Addr]*person
	coming map[stanza.Addr]int
	peers  map[string]*peer
	taken  map[string]bool
	heard  []string // opHello
	goneBy []string
	got    []string // everything that Receive carried out, "<link> <seq>"

	release func(stanza.Addr) error                    // instead of success
	adopt   func(stage, dead string) error             // called on the way through Heir
	reroute func(user stanza.Addr, m Message)          // told of each
	deliver func(user stanza.Addr, say string)         // told of each
	receive func(link string, m Message) (bool, error) // instead of carrying out, where it says true
}

// peer counts what came through a link.
type peer struct {
	name    string
	from    string
	heir    bool
	ord     uint64
	handled uint32
}

func (g *gateway) peer(link string) (*peer, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.peerLocked(link, 0)
}

func (g *gateway) peerLocked(link string, count uint32) (*peer, error) {
	p := g.peers[link]
	if p == nil {
		from, _, heir := strings.Cut(link, "/")
		p = &peer{name: link, from: from, heir: heir, ord: g.ords.Add(1)}
		g.peers[link] = p
	}
	if int32(count-p.handled) > 0 {
		p.handled = count
	}
	return p, g.j.add(record{kind: "link", ord: p.ord, name: link, count: uint64(p.handled)})
}

// Receive is session.Service.Receive in small.
func (g *gateway) Receive(ctx context.Context, link string, m Message) error {
	g.mu.Lock()
	p, instead := g.peers[link], g.receive
	g.mu.Unlock()
	if p == nil {
		var err error
		if p, err = g.peer(link); err != nil {
			return err
		}
	}
	if instead != nil {
		if done, err := instead(link, m); done || err != nil {
			return err
		}
	}
	g.mu.Lock()
	before := m.Seq != 0 && int32(m.Seq-p.handled) <= 0
	g.mu.Unlock()
	if before {
		return nil
	}
	if d := g.slow.Load(); d > 0 {
		select {
		case <-time.After(time.Duration(d)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	user, err := stanza.ParseAddr(m.User)
	if err != nil && m.User != "" {
		return err
	}
	if m.Seq == 0 {
		g.hear(p, user, m)
		return nil
	}
	return g.insist(ctx, user, func() error {
		recorded, err := g.carryOut(p, user, m, Origin{Session: p.ord, N: m.Seq})
		if err == nil && !recorded {
			err = g.j.Count(journal.KindHandled, p.ord, uint64(m.Seq))
		}
		if err == nil {
			g.mu.Lock()
			p.handled = m.Seq
			g.got = append(g.got, fmt.Sprint(link, " ", m.Seq))
			g.mu.Unlock()
		}
		return err
	})
}

func (g *gateway) insist(ctx context.Context, user stanza.Addr, f func() error) error {
	for {
		err := f()
		if !errors.Is(err, ErrUnlocated) && !errors.Is(err, errElsewhere) {
			return err
		}
		if err := g.node.Locate(ctx, user, true); err != nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
}

// Reroute implements Receiver.
func (g *gateway) Reroute(ctx context.Context, user stanza.Addr, m Message, o Origin) error {
	g.mu.Lock()
	told := g.reroute
	g.mu.Unlock()
	if told != nil {
		told(user, m)
	}
	g.w.trace("%s: rerouted %s %s", g.id, user, m.Payload)
	p := &peer{name: g.id, from: g.id, heir: true, ord: o.Session}
	return g.insist(ctx, user, func() error {
		_, err := g.carryOut(p, user, m, o)
		return err
	})
}

// carryOut reports whether the message's number is in a record.
func (g *gateway) carryOut(p *peer, user stanza.Addr, m Message, o Origin) (recorded bool, err error) {
	if m.Op == opTake {
		return true, g.takeOver(p, user, m, o)
	}
	if m.Op != opSay {
		return false, fmt.Errorf("message %d not understood", m.Op)
	}
	x := Message{Op: m.Op, Term: max(m.Term, TermPassed), Payload: m.Payload}
	if p.heir {
		x.Term = TermHome
	}
	for {
		node, term, err := g.node.Forward(user, x, o)
		switch {
		case err != nil:
			return false, err
		case node == g.id:
			if err := g.say(user, string(m.Payload), o); !errors.Is(err, errElsewhere) {
				return true, err
			}
			continue
		}
		g.w.trace("%s: passed %s %s (%s %d term %d) to %s term %d", g.id, user, m.Payload, p.name, m.Seq, m.Term%1e9, node, term%1e9)
		if !p.heir && !g.node.Here(user) {
			move, err := json.Marshal(Move{Was: m.Term, Seq: o.N, Node: node, Term: term})
			if err != nil {
				return false, err
			}
			g.node.WhenSent(node, func() {
				g.node.Tell(p.from, Message{Op: opMove, User: user.String(), Payload: move})
			})
		}
		return true, nil
	}
}

// detour is session.Service.detour.
func (g *gateway) detour(user stanza.Addr) bool {
	node, known := g.node.Where(user)
	return known && node != g.id
}

// say delivers to a user who is here, and notices what is lost, repeated or out of order.
func (g *gateway) say(user stanza.Addr, text string, o Origin) error {
	from, num, ok := strings.Cut(text, " ")
	var n uint32
	if _, err := fmt.Sscan(num, &n); err != nil || !ok {
		return fmt.Errorf("cannot read %q", text)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.node.Here(user) {
		return errElsewhere
	}
	p, err := g.personLocked(user)
	if err != nil {
		return err
	}
	if err := g.j.add(record{kind: "deliver", user: user, name: from, num: n, origin: o.Session, n: o.N}); err != nil {
		return err
	}
	g.w.trace("%s: %s gets %s", g.id, user, text)
	if n != p.Last[from]+1 {
		g.w.fault("%s got %d of %s behind %d at %s", user, n, from, p.Last[from], g.id)
	}
	p.Last[from] = n
	if g.deliver != nil {
		g.deliver(user, text)
	}
	return nil
}

// personLocked returns a user whose home this is, from the kept store when it is new here.
func (g *gateway) personLocked(user stanza.Addr) (*person, error) {
	if p := g.users[user]; p != nil {
		return p, nil
	}
	p := g.w.load(user)
	p.Session = false
	return p, g.enterLocked(user, p, Origin{})
}

func (g *gateway) enterLocked(user stanza.Addr, p *person, o Origin) error {
	p.ord = g.ords.Add(1)
	if err := g.j.add(record{kind: "user", user: user, ord: p.ord, state: p.clone(), origin: o.Session, n: o.N}); err != nil {
		return err
	}
	g.users[user] = p
	return nil
}

func (g *gateway) hear(p *peer, user stanza.Addr, m Message) {
	switch m.Op {
	case opMove:
		before, move := g.place(user), Move{From: p.from}
		if json.Unmarshal(m.Payload, &move) != nil {
			return
		}
		move.From = p.from
		g.node.Moved(user, move)
		g.w.trace("%s: moved %s, %+v: %s => %s", g.id, user, move, before, g.place(user))
	case opWant:
		to := p.from
		g.loops.Go(func() { g.handOver(to, user, true) })
	case opHello:
		g.mu.Lock()
		g.heard = append(g.heard, p.name+" "+string(m.Payload))
		g.mu.Unlock()
	}
}

// handOver is session.Service.handOver: what the user has sent is seen to before the user goes on elsewhere, and, if
// straight, that what others send to the user is there.
func (g *gateway) handOver(to string, user stanza.Addr, straight bool) bool {
	g.mu.Lock()
	p := g.users[user]
	stays := p == nil || p.attached || g.coming[user] > 0
	var nodes []string
	if p != nil {
		for node := range p.Sent {
			nodes = append(nodes, node)
		}
	}
	g.mu.Unlock()
	if stays || !g.node.Here(user) {
		return false
	}
	ctx, cancel := context.WithTimeout(g.ctx, 5*time.Second)
	if straight {
		g.node.Straighten(ctx, user)
	}
	g.node.Sync(ctx, nodes...)
	cancel()
	g.mu.Lock()
	defer g.mu.Unlock()
	p = g.users[user]
	if p == nil || p.attached || g.coming[user] > 0 || !g.node.Here(user) {
		return false
	}
	var seen uint32
	if from := g.peers[to]; from != nil && !g.detour(user) {
		seen = from.handled
	}
	body, err := json.Marshal(p)
	if err != nil {
		return false
	}
	body = append(binary.LittleEndian.AppendUint32(nil, seen), body...)
	if g.node.HandOver(to, user, Message{Op: opTake, Payload: body}) != nil {
		return false
	}
	delete(g.users, user)
	g.w.trace("%s: handed %s to %s, seen %d: %s", g.id, user, to, seen, g.place(user))
	return true
}

func (g *gateway) place(user stanza.Addr) string {
	g.node.homes.mu.RLock()
	defer g.node.homes.mu.RUnlock()
	p := g.node.homes.places[user]
	if p == nil {
		return "-"
	}
	return fmt.Sprintf("{%s term %d last %d trails %v detours %v pinned %v}", p.node, p.term%1e9, p.last, p.trails, p.detours, p.pinned)
}

func (g *gateway) takeOver(p *peer, user stanza.Addr, m Message, o Origin) error {
	state := newPerson()
	if err := json.Unmarshal(m.Payload[4:], state); err != nil {
		return err
	}
	state.Sent = make(map[string]bool)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.enterLocked(user, state, o); err != nil {
		return err
	}
	before := g.place(user)
	g.node.Take(user, p.from, binary.LittleEndian.Uint32(m.Payload), m.Term)
	g.w.trace("%s: takes %s from %s seen %d: %s => %s", g.id, user, p.from, binary.LittleEndian.Uint32(m.Payload), before, g.place(user))
	g.loops.Go(func() { g.pin(user, p.from) })
	return nil
}

// pin is session.Service.pinTaken.
func (g *gateway) pin(user stanza.Addr, from string) {
	for g.ctx.Err() == nil {
		if g.j.Settle(g.ctx) == nil {
			if !g.node.Here(user) {
				return
			}
			if g.node.Pin(g.ctx, user, from) == nil || !g.node.Here(user) {
				g.unpinWithoutSession(user)
				return
			}
		}
		g.pause(2 * time.Millisecond)
	}
}

// unpinWithoutSession is for a session that ended while its user was pinned.
func (g *gateway) unpinWithoutSession(user stanza.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.users[user]; p != nil && !p.Session {
		g.node.Unpin(user)
	}
}

func (g *gateway) pause(d time.Duration) {
	select {
	case <-g.ctx.Done():
	case <-time.After(d):
	}
}

// bring is session.Service.bring: the user's client is here.
func (g *gateway) bring(ctx context.Context, user stanza.Addr) error {
	g.mu.Lock()
	g.coming[user]++
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		if g.coming[user]--; g.coming[user] == 0 {
			delete(g.coming, user)
		}
		g.mu.Unlock()
	}()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if g.dead.Load() {
			return errKilled
		}
		if g.node.Here(user) && g.node.Pin(ctx, user, "") == nil {
			if ok, err := g.attach(user); ok || err != nil {
				return err
			}
		}
		node, err := g.node.Claim(ctx, user)
		if err == nil && node != g.id {
			g.node.Tell(node, Message{Op: opWant, User: user.String()})
			asked := time.Now()
			for !g.node.Here(user) && time.Since(asked) < 250*time.Millisecond && ctx.Err() == nil && !g.dead.Load() {
				time.Sleep(time.Millisecond)
				if time.Since(asked) > 40*time.Millisecond {
					g.node.Suspect(ctx, node)
				}
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-g.ctx.Done():
			return errKilled
		case <-time.After(wait):
		}
	}
}

func (g *gateway) attach(user stanza.Addr) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.node.Here(user) {
		return false, nil
	}
	p, err := g.personLocked(user)
	if err != nil {
		return false, err
	}
	if !p.Session {
		p.Session = true
		if err := g.enterLocked(user, p, Origin{}); err != nil {
			return false, err
		}
	}
	p.attached = true
	return true, nil
}

// detach is the end of the client's connection; its session waits.
func (g *gateway) detach(user stanza.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.users[user]; p != nil {
		p.attached = false
	}
}

// heardOf is how far the user's client was heard.
func (g *gateway) heardOf(user stanza.Addr) uint32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.users[user]; p != nil {
		return p.In
	}
	return 0
}

// send handles the n-th stanza of a client that is attached here: session's routeMessage.
func (g *gateway) send(ctx context.Context, from, to stanza.Addr, n uint32, text string) error {
	if err := g.node.Room(ctx); err != nil {
		return err
	}
	g.mu.Lock()
	p := g.users[from]
	if p == nil || !p.attached || n != p.In+1 {
		g.mu.Unlock()
		return errElsewhere
	}
	o := Origin{Session: p.ord, N: n}
	g.mu.Unlock()
	for ctx.Err() == nil {
		if g.dead.Load() {
			return errKilled
		}
		g.waiting.Add(1)
		ready := g.node.Ready(ctx, to)
		g.waiting.Add(-1)
		if !ready {
			if err := g.node.Locate(ctx, to, true); err != nil {
				g.pause(2 * time.Millisecond)
			}
			continue
		}
		node, _, err := g.node.Forward(to, Message{Op: opSay, Payload: []byte(text)}, o)
		if err == nil && node == g.id {
			err = g.say(to, text, o)
		}
		switch {
		case errors.Is(err, ErrUnlocated), errors.Is(err, errElsewhere):
			continue
		case err != nil:
			return err
		}
		g.w.trace("%s: sent %s %s to %s: %s", g.id, to, text, node, g.place(to))
		g.mu.Lock()
		p.In = n
		if node != g.id {
			p.Sent[node] = true
		}
		g.mu.Unlock()
		return nil
	}
	return ctx.Err()
}

// Received implements Receiver.
func (g *gateway) Received(dead string) map[string]uint32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	seen := make(map[string]uint32)
	for link, p := range g.peers {
		if node, of, _ := strings.Cut(link, "/"); of == dead {
			seen[node] = p.handled
		}
	}
	return seen
}

// Gone implements Receiver.
func (g *gateway) Gone(node string) {
	g.w.trace("%s: %s is gone", g.id, node)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.goneBy = append(g.goneBy, node)
}

// Vacate implements Releaser.
func (g *gateway) Vacate(user stanza.Addr, leave func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.users[user]; p != nil && p.Session || g.coming[user] > 0 {
		return false
	}
	leave()
	return true
}

// Release implements Releaser.
func (g *gateway) Release(ctx context.Context, user stanza.Addr) error {
	g.mu.Lock()
	instead := g.release
	p := g.users[user]
	g.mu.Unlock()
	if instead != nil {
		if err := instead(user); err != nil {
			return err
		}
	}
	if p != nil {
		g.w.keep(user, p)
	}
	left := journal.Forward{Leaves: true, User: user}
	if err := g.j.Append(journal.KindForward, left.AppendHead(nil), nil); err != nil {
		return err
	}
	if err := g.j.Settle(ctx); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.users, user)
	return nil
}

// fenceOf is resume's fence script.
var fenceOf = redis.NewScript(`
local holder = redis.call('GET', KEYS[1])
if not holder or holder == ARGV[2] or holder == '' then
	holder = ARGV[1]
	redis.call('SET', KEYS[1], holder)
end
for i = 2, 3 do
	if redis.call('EXISTS', KEYS[i]) == 1 then
		redis.call('RENAME', KEYS[i], KEYS[i + 2])
	end
end
return holder`)

func (g *gateway) stage(stage, dead string) error {
	g.mu.Lock()
	f := g.adopt
	g.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(stage, dead)
}

// Fence implements Heir.
func (g *gateway) Fence(ctx context.Context, dead, instead string) (string, error) {
	if err := g.stage("fence", dead); err != nil {
		return "", err
	}
	return g.fence(ctx, dead, g.id, instead)
}

func (g *gateway) fence(ctx context.Context, dead, by, instead string) (string, error) {
	var keys []string
	for _, what := range []string{"fence", "journal", "mailbox", "journal:dead", "mailbox:dead"} {
		keys = append(keys, g.w.keys.Node(dead, what))
	}
	holder, err := fenceOf.Run(ctx, g.rdb, keys, by, instead).Text()
	if err == nil {
		if d := g.w.gateway(dead); d != nil {
			d.j.end(errFenced, g.w.pick)
		}
	}
	return holder, err
}

// Adopt implements Heir. As cmd/gateway's, it names users only when it publishes them.
func (g *gateway) Adopt(ctx context.Context, dead string) (Estate, error) {
	var estate Estate
	if err := g.stage("adopt", dead); err != nil {
		return estate, err
	}
	d := g.w.gateway(dead)
	if d == nil {
		return estate, nil
	}
	e := d.j.replay()
	g.mu.Lock()
	for _, of := range e.taken {
		g.taken[of] = true
	}
	taken := g.taken[dead]
	g.mu.Unlock()
	estate.Adopted = e.taken
	if !taken {
		if err := g.inherit(ctx, dead, e); err != nil {
			return estate, err
		}
		for user, p := range e.users {
			if p.Session {
				estate.Users = append(estate.Users, user)
			}
		}
	}
	for _, f := range e.unsent {
		estate.Unsent = append(estate.Unsent, Unsent{To: f.To, User: f.User, Message: Message{Op: f.Op, Seq: f.Seq, Term: f.Term, User: f.User.String(), Payload: f.Payload}})
	}
	return estate, g.stage("adopted", dead)
}

// inherit makes the estate this gateway's own, in its journal first.
func (g *gateway) inherit(ctx context.Context, dead string, e *estateOf) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for link, n := range e.links {
		from, of, _ := strings.Cut(link, "/")
		if of == "" {
			of = dead
		}
		if _, err := g.peerLocked(from+"/"+of, n); err != nil {
			return err
		}
	}
	for user, p := range e.users {
		if !p.Session {
			g.w.keep(user, p) // the kept stores get what the journal knows
			continue
		}
		p.ord = g.ords.Add(1)
		if err := g.j.add(record{kind: "user", user: user, ord: p.ord, state: p.clone()}); err != nil {
			return err
		}
	}
	for _, of := range append(e.taken, dead) {
		if err := g.j.add(record{kind: "inherit", dead: of}); err != nil {
			return err
		}
	}
	if err := g.j.Settle(ctx); err != nil {
		return err
	}
	g.taken[dead] = true
	for user, p := range e.users {
		if p.Session {
			g.users[user] = p
			before := g.place(user)
			if !g.node.Here(user) {
				g.node.Take(user, dead, 0, TermUnknown)
			}
			g.w.trace("%s: inherits %s from %s: %s => %s", g.id, user, dead, before, g.place(user))
		}
	}
	return nil
}

// Bury implements Heir.
func (g *gateway) Bury(_ context.Context, dead string) error {
	if err := g.stage("bury", dead); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for link := range g.peers {
		if _, of, ok := strings.Cut(link, "/"); ok && of == dead {
			delete(g.peers, link)
		}
	}
	delete(g.taken, dead)
	if d := g.w.gateway(dead); d != nil {
		d.j.set(func(j *memJournal) { j.recs, j.safe = nil, 0 })
	}
	return g.j.add(record{kind: "bury", dead: dead})
}
