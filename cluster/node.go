package cluster

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"holdfast/internal/redisx"
	"holdfast/stanza"
)

// Receiver is who the messages are for.
type Receiver interface {
	Releaser
	// Receive carries out one message that came through a link: the name of the node that sent it and, where it was
	// meant for a dead one, a slash and that one's name. It is called by one goroutine at a time, in the order of each
	// link, and again with what was carried out before: then it must recognise Message.Seq. It waits for what it
	// needs; an error ends the node.
	Receive(ctx context.Context, link string, m Message) error
	// Reroute carries out, here or by Forward, a message for a user whose home it did not reach.
	Reroute(ctx context.Context, user stanza.Addr, m Message, o Origin) error
	// Received says for each node up to which Message.Seq what it sent to a dead one has been carried out, there and
	// here; with "", what it sent to this one.
	Received(dead string) map[string]uint32
	// Gone is told of each node that is not a member any more.
	Gone(node string)
}

// Heir takes over what dead nodes leave.
type Heir interface {
	// Fence lets the dead node write nothing any more, and names who adopts it: this node, or another one that was
	// first, unless that is instead.
	Fence(ctx context.Context, dead, instead string) (holder string, err error)
	// Adopt takes over everything but the mailbox. It returns whose home this node is now, and what the dead one
	// had to send. It may be called again after an error, by any node.
	Adopt(ctx context.Context, dead string) (Estate, error)
	// Bury deletes what Adopt has taken over.
	Bury(ctx context.Context, dead string) error
}

// Estate is what a dead node leaves besides its sessions.
type Estate struct {
	Users   []stanza.Addr
	Unsent  []Unsent
	Adopted []string // nodes that the dead one was about to adopt, and whose sessions are among its own
}

// Unsent is a message that the dead node may not have sent.
type Unsent struct {
	To      string
	User    stanza.Addr
	Message Message
}

// Node is this process as one of the cluster.
type Node struct {
	// static
	id      string
	cfg     Config
	rdb     redis.UniversalClient
	keys    redisx.Keys
	log     *slog.Logger
	metrics *metrics
	homes   *homes
	journal Journal
	recv    Receiver
	heir    Heir
	ords    func() uint64
	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	loops   sync.WaitGroup
	fenced  chan struct{} // closed when others have taken this node for dead
	adopt   chan string   // nodes to be adopted, by name
	read    chan struct{} // one token: the mailbox has been read further
	beatNow chan struct{} // one token: what the next beat says should be known at once

	queued atomic.Int64 // bytes that wait in links

	calls calls

	entries map[string]uint64 // by sender: number of the newest entry of the mailbox; owned by readMailbox

	once sync.Once // of fenced

	loopsMu sync.Mutex // of loops, with closed
	closed  bool       // nothing may begin any more

	mu          sync.Mutex
	links       map[string]*link
	members     map[string]*member            // all but this one
	polled      time.Time                     // when Redis last answered who lives
	missed      bool                          // it did not since
	subscribed  time.Time                     // since when this node's subscription stands, zero while it does not
	roomier     chan struct{}                 // closed when queued shrank; nil while nobody waits
	asked       map[string]chan string        // what other nodes have to answer, by name
	straightens map[stanza.Addr]chan struct{} // by user whom this node is about to hand over: see Straighten
	toAnswer    map[string]struct{}           // the questions of others that goStraight works on
	arrived     string                        // id of the mailbox entry that was last carried out
	changed     chan struct{}
	heirOf      map[string]bool // nodes that this one adopts; true when their sessions are here
}

// member is another node as it looks from here.
type member struct {
	beat     string
	moved    time.Time // when beat last changed, or would have been seen to
	heard    time.Time // when it did
	adopting bool      // in Node.adopt or being adopted
	left     time.Time // when it was last left to another node to adopt

	suspected bool // somebody looks whether it is there
	certain   bool // when adopting: it is dead
}

// NewID makes the name of a node: a domain name by form, new for each process.
func NewID() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return "n" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// New makes a Node. Nothing happens before Start.
func New(cfg Config, id string, rdb redis.UniversalClient, keys redisx.Keys, log *slog.Logger, reg prometheus.Registerer) *Node {
	n := &Node{
		id: id, cfg: cfg, rdb: rdb, keys: keys, log: log.With("node", id),
		fenced: make(chan struct{}), adopt: make(chan string, 256), read: make(chan struct{}, 1), beatNow: make(chan struct{}, 1),
		links: make(map[string]*link), members: make(map[string]*member), asked: make(map[string]chan string),
		straightens: make(map[stanza.Addr]chan struct{}), toAnswer: make(map[string]struct{}),
		changed: make(chan struct{}), arrived: "0", heirOf: make(map[string]bool),
	}
	n.calls.patience = callPatience
	n.ctx, n.stop = context.WithCancel(context.Background())
	n.homes, n.entries = newHomes(id, cfg, rdb, keys.Home, n.lives), make(map[string]uint64)
	n.metrics = newMetrics(reg, n)
	return n
}

// Parts are what a Node needs of the rest of the process.
type Parts struct {
	Journal  Journal
	Receiver Receiver
	Heir     Heir
	// Callee answers the calls of other nodes; it may be nil.
	Callee Callee
	// Ords gives out numbers that name a link in the journal.
	Ords func() uint64
}

// Start enters the cluster. The node's journal and mailbox are there already, and stay from now on.
func (n *Node) Start(ctx context.Context, p Parts) error {
	n.journal, n.recv, n.heir, n.ords, n.calls.callee = p.Journal, p.Receiver, p.Heir, p.Ords, p.Callee
	if err := n.rdb.HSet(ctx, n.keys.Nodes(), n.id, "0").Err(); err != nil {
		return fmt.Errorf("cluster: join: %w", err)
	}
	for _, name := range []string{"journal", "mailbox"} {
		if err := n.rdb.Persist(ctx, n.keys.Node(n.id, name)).Err(); err != nil {
			return fmt.Errorf("cluster: join: %w", err)
		}
	}
	if err := n.beatOnce(ctx, 1); err != nil { // to know nobody would be to take what others have for lost
		return err
	}
	n.loops.Go(n.beat)
	n.loops.Go(n.subscribe)
	n.loops.Go(n.readMailbox)
	n.loops.Go(n.trim)
	n.loops.Go(n.adoptAll)
	n.loops.Go(n.watchJournal)
	n.loops.Go(func() { n.homes.keep(n.ctx, n.recv, n.log) })
	n.log.Info("joined the cluster")
	return nil
}

// ID is the node's name.
func (n *Node) ID() string { return n.id }

// Fenced is closed when the others have taken this node for dead: nothing that it does counts any more.
func (n *Node) Fenced() <-chan struct{} { return n.fenced }

func (n *Node) setFenced() {
	n.once.Do(func() {
		n.log.Error("fenced: other nodes have taken over what this one had")
		close(n.fenced)
	})
}

// watchJournal hears of the fence when the journal does. Until the heir has buried this node the beat goes on, and as long
// as it does others wait for what this node had set out to adopt itself.
func (n *Node) watchJournal() {
	select {
	case <-n.journal.Fenced():
		n.setFenced()
	case <-n.ctx.Done():
	}
}

// Close ends the background work.
func (n *Node) Close() {
	n.loopsMu.Lock()
	n.closed = true
	n.loopsMu.Unlock()
	n.stop()
	n.loops.Wait()
}

// run starts a goroutine that Close waits for. It reports false, and does not, after Close.
func (n *Node) run(f func()) bool {
	n.loopsMu.Lock()
	defer n.loopsMu.Unlock()
	if n.closed {
		return false
	}
	n.loops.Go(f)
	return true
}

// Leave gives up every user without sessions; the sessions are for others to adopt.
func (n *Node) Leave(ctx context.Context) error { return n.homes.giveUpAll(ctx, n.recv) }

// Left tells the others, after Close, that the estate can be adopted at once.
func (n *Node) Left(ctx context.Context) error {
	if err := n.rdb.HSet(ctx, n.keys.Nodes(), n.id, beatLeft).Err(); err != nil {
		return fmt.Errorf("cluster: leave: %w", err)
	}
	return nil
}

// Here reports whether this node is the home of a user; see homes.Here.
func (n *Node) Here(user stanza.Addr) bool { return n.homes.Here(user) }

// Where says to which node what a sender here has for a user is to go; see homes.Where.
func (n *Node) Where(user stanza.Addr) (node string, known bool) { return n.homes.Where(user) }

// Ready waits while what senders here have for a user has to wait; see homes.Ready.
func (n *Node) Ready(ctx context.Context, user stanza.Addr) bool { return n.homes.Ready(ctx, user) }

// Locate finds out who serves a user; see homes.Locate.
func (n *Node) Locate(ctx context.Context, user stanza.Addr, claim bool) error {
	err := n.homes.Locate(ctx, user, claim)
	if err == nil || errors.Is(err, ErrNowhere) {
		return err
	}
	n.metrics.locateErrors.Inc()
	return err
}

// LocateAll is Locate for many users; see homes.LocateAll.
func (n *Node) LocateAll(ctx context.Context, users []stanza.Addr) ([]stanza.Addr, error) {
	return n.homes.LocateAll(ctx, users)
}

// Claim returns a user's home as it is now; see homes.Claim.
func (n *Node) Claim(ctx context.Context, user stanza.Addr) (string, error) {
	return n.homes.Claim(ctx, user)
}

// Pin keeps this node a user's home; see homes.Pin.
func (n *Node) Pin(ctx context.Context, user stanza.Addr, from string) error {
	return n.homes.Pin(ctx, user, from)
}

// Unpin says that a user has no session left; see homes.Unpin.
func (n *Node) Unpin(user stanza.Addr) { n.homes.Unpin(user) }

// Moved takes another node's word on a user; see homes.Moved. Where more was sent meanwhile, as it is under a steady stream, the
// next word would come too late as well.
func (n *Node) Moved(user stanza.Addr, m Move) {
	if n.homes.Moved(user, m) {
		n.leaveWay(user, m.From)
	}
}

// Take makes this node the home of a user for a term, TermUnknown for a new one; see homes.take.
func (n *Node) Take(user stanza.Addr, from string, seen uint32, term uint64) {
	n.mu.Lock()
	_, adopted := n.heirOf[from]
	n.mu.Unlock()
	n.homes.take(user, from, seen, term, !adopted)
}

// link returns the way to a node.
func (n *Node) link(to string) *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.links[to]
	if l == nil {
		l = &link{n: n, to: to, from: n.id, ord: n.ords()}
		n.links[to] = l
	}
	return l
}

// Forward sends a message to where the user is served: journaled, in order, and once. ErrUnlocated says that this is not
// known, or was a moment ago; it returns the own name when it is here.
func (n *Node) Forward(user stanza.Addr, m Message, o Origin) (node string, term uint64, err error) {
	for {
		node, known := n.homes.next(user, m.Term)
		switch {
		case !known:
			return "", 0, ErrUnlocated
		case node == n.id:
			return node, 0, nil
		}
		m.User = user.String()
		l := n.link(node)
		term, ok, err := l.forward(user, m, o, toHome)
		if err != nil || ok {
			return node, term, err
		}
		if l.isClosed() {
			n.homes.buried(node) // somebody named it when it was dead already
		}
	}
}

// ForwardTo is Forward to a node that knows better where the user is.
func (n *Node) ForwardTo(to string, user stanza.Addr, m Message, o Origin) error {
	return n.forwardTo(to, user, m, o, anywhere)
}

// HandOver sends a user to another node, which is its home from now on. Under the user's lock.
func (n *Node) HandOver(to string, user stanza.Addr, m Message) error {
	return n.forwardTo(to, user, m, Origin{}, leaves)
}

func (n *Node) forwardTo(to string, user stanza.Addr, m Message, o Origin, w why) error {
	m.User = user.String()
	_, ok, err := n.link(to).forward(user, m, o, w)
	if err == nil && !ok {
		err = ErrUnlocated // it is dead and buried
	}
	return err
}

// Park journals a message that came here and cannot be carried out yet, since a store is away, and has it carried out
// as a message of the own name, behind those parked before: what is for others need not wait. It reports false when too
// much waits already.
func (n *Node) Park(user stanza.Addr, m Message, o Origin) (bool, error) {
	if n.cfg.LinkBytes > 0 && n.queued.Load() > n.cfg.LinkBytes {
		return false, nil
	}
	m.User = user.String()
	_, ok, err := n.link(n.id).forward(user, m, o, anywhere)
	return ok, err
}

// Tell sends a message that may be lost.
func (n *Node) Tell(to string, m Message) bool { return to != n.id && n.link(to).tell(m) }

// WhenSent calls f when a node's mailbox has everything that was forwarded to it before.
func (n *Node) WhenSent(to string, f func()) { n.link(to).whenSent(true, f) }

// Room waits while too much waits for other nodes. Nothing may be locked.
func (n *Node) Room(ctx context.Context) error {
	for n.cfg.LinkBytes > 0 && n.queued.Load() > n.cfg.LinkBytes {
		n.mu.Lock()
		if n.roomier == nil {
			n.roomier = make(chan struct{})
		}
		roomier := n.roomier
		n.mu.Unlock()
		if n.queued.Load() <= n.cfg.LinkBytes {
			return nil
		}
		select {
		case <-roomier:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (n *Node) release(size int64) {
	n.queued.Add(-size)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.roomier != nil {
		close(n.roomier)
		n.roomier = nil
	}
}

// sleep waits, and reports false when the node ends.
func (n *Node) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-n.ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Sync waits until other nodes have carried out, or passed on, everything that was sent to them before.
func (n *Node) Sync(ctx context.Context, nodes ...string) {
	waits := make(map[string]<-chan string)
	for _, node := range nodes {
		if node == n.id || !n.isMember(node) {
			continue
		}
		id, done := n.expect()
		waits[id] = done
		n.Tell(node, Message{Op: opSync, Payload: []byte(id)})
	}
	for id, done := range waits {
		select {
		case <-done:
		case <-ctx.Done():
		case <-n.ctx.Done():
		}
		n.forget(id)
	}
}
