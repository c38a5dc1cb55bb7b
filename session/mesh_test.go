package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/internal/journal"
	"holdfast/route"
	"holdfast/stanza"
)

// mesh is several gateways of one cluster in one test: worlds that share the kept stores, joined by a Cluster in memory
// that follows the rules of package cluster. A test can delay, cut, lose and repeat what goes from one to another.
type mesh struct {
	t     tester
	nodes []*node

	mu    sync.Mutex
	keys  map[stanza.Addr]string // the homes, as Redis has them
	down  bool                   // Redis does not answer
	dead  map[string]bool        // nodes that are buried
	cut   map[string]bool        // "from>to": nothing arrives until it is mended
	delay time.Duration          // of every message
	lose  func(from, to string, m Message) bool
}

var errRedis = errors.New("redis does not answer")

// node is one world and its place in the cluster: a Cluster and a Moving.
type node struct {
	*world
	m  *mesh
	id string

	ctx   context.Context
	stop  context.CancelFunc
	loops sync.WaitGroup

	mu        sync.Mutex
	places    map[stanza.Addr]*place
	links     map[string]*meshLink
	box       chan letter
	read      []letter      // everything journaled that came, for repeat
	full      chan struct{} // when not nil, Room waits for it
	suspected []string
	parks     bool // whether Park does anything
	unpinned  int
	ords      uint64
	disk      *disk                           // what its checkpoints wrote; see save
	refuse    func(m Message) bool            // when not nil, says what Tell cannot send
	release   func(ctx context.Context) error // when not nil, what Moving.Release does
}

type place struct {
	node    string
	last    uint32
	via     string
	viaLast uint32
	pinned  bool
}

// letter is one message on its way.
type letter struct {
	from string
	m    Message
	done chan struct{} // of Sync
}

type meshLink struct {
	ord     uint64
	seq     uint32
	done    uint32
	queue   []letter
	sending bool
	waiters []func()
	waitSeq []uint32
}

// inMesh runs f with n nodes in virtual time.
func inMesh(t *testing.T, n int, f func(t *testing.T, m *mesh), edit ...func(*Config, *Parts)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, n, edit...)
		defer m.stop()
		f(t, m)
	})
}

func newMesh(t tester, n int, edit ...func(*Config, *Parts)) *mesh {
	m := &mesh{t: t, keys: make(map[stanza.Addr]string), dead: make(map[string]bool), cut: make(map[string]bool)}
	var first *world
	for i := range n {
		m.add(fmt.Sprint("n", i+1), first, edit...)
		first = m.nodes[0].world
	}
	return m
}

// add starts one more node, which shares the kept stores with like.
func (m *mesh) add(id string, like *world, edit ...func(*Config, *Parts)) *node {
	n := &node{m: m, id: id, places: make(map[stanza.Addr]*place), links: make(map[string]*meshLink), box: make(chan letter, 1<<12)}
	n.ctx, n.stop = context.WithCancel(context.Background())
	n.world = newWorld(m.t, slices.Concat([]func(*Config, *Parts){func(_ *Config, p *Parts) {
		if like != nil {
			p.Accounts, p.Roster, p.Subs, p.Mailbox, p.Ended = like.accounts, like.roster, like.roster, like.box, like.ended
		}
		p.Cluster, p.Moving = n, n
		p.NewRouter = n.newRouter
	}}, edit)...)
	if like != nil {
		n.accounts, n.roster, n.world.box, n.ended = like.accounts, like.roster, like.box, like.ended
	}
	n.world.pause = m.rest
	n.journal.mu.Lock()
	n.journal.guard = func() {
		if n.sv != nil && n.sv.barrier.TryLock() {
			n.sv.barrier.Unlock()
			m.t.Errorf("%s: written to the journal with nothing that a checkpoint waits for", id)
		}
	}
	n.journal.mu.Unlock()
	m.mu.Lock()
	m.nodes = append(m.nodes, n)
	m.mu.Unlock()
	n.loops.Go(n.reader)
	return n
}

func (m *mesh) stop() {
	for _, n := range m.nodes {
		n.stop()
		n.loops.Wait()
	}
	for _, n := range m.nodes {
		n.sv.Close()
	}
}

// rest lets everything under way arrive.
func (m *mesh) rest() {
	for range 3 {
		synctest.Wait()
		time.Sleep(60 * time.Millisecond)
	}
	synctest.Wait()
}

func (m *mesh) node(id string) *node {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

// partition keeps everything from one node to another until it is mended.
func (m *mesh) partition(from, to *node, cut bool) {
	m.mu.Lock()
	m.cut[from.id+">"+to.id] = cut
	m.mu.Unlock()
}

func (m *mesh) redis(down bool) {
	m.mu.Lock()
	m.down = down
	m.mu.Unlock()
}

func (m *mesh) home(user string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.keys[addr(user)]
}

func (n *node) newRouter(sv *Service) Router {
	h := route.New[*Session, Verdict](sv)
	h.Gate(n.Here)
	return gatedHub{hub{h}}
}

type gatedHub struct{ hub }

func (h gatedHub) Message(from *Session, st *stanza.Stanza) error {
	return gated(h.hub.Message(from, st))
}

func (h gatedHub) Direct(to stanza.Addr, from *Session, st *stanza.Stanza) (bool, error) {
	ok, err := h.hub.Direct(to, from, st)
	return ok, gated(err)
}

func gated(err error) error {
	if errors.Is(err, route.ErrElsewhere) {
		return ErrElsewhere
	}
	return err
}

// Homes.

func (n *node) ID() string { return n.id }

func (n *node) Here(user stanza.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.places[user]
	return p != nil && p.node == n.id
}

func (n *node) Where(user stanza.Addr) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch p := n.places[user]; {
	case p == nil:
		return "", false
	case p.via != "":
		return p.via, true
	default:
		return p.node, p.node != ""
	}
}

func (n *node) resolve(user stanza.Addr, claim bool) (string, error) {
	m := n.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return "", errors.Join(ErrBusy, errRedis)
	}
	home := m.keys[user]
	if home == "" || m.dead[home] {
		if !claim {
			return "", ErrNowhere
		}
		home = n.id
		m.keys[user] = home
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.places[user]; p == nil || p.node == "" {
		if p == nil {
			p = new(place)
			n.places[user] = p
		}
		p.node = home
	}
	return home, nil
}

func (n *node) Locate(_ context.Context, user stanza.Addr, claim bool) error {
	n.mu.Lock()
	p := n.places[user]
	known := p != nil && p.node != ""
	n.mu.Unlock()
	if known {
		return nil
	}
	_, err := n.resolve(user, claim)
	return err
}

func (n *node) LocateAll(_ context.Context, users []stanza.Addr) (nowhere []stanza.Addr, err error) {
	for _, u := range users {
		switch _, err := n.resolve(u, false); {
		case errors.Is(err, ErrNowhere):
			nowhere = append(nowhere, u)
		case err != nil:
			return nil, err
		}
	}
	return nowhere, nil
}

func (n *node) Claim(_ context.Context, user stanza.Addr) (string, error) {
	return n.resolve(user, true)
}

func (n *node) Take(user stanza.Addr, from string, seen uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.places[user]
	if p == nil {
		p = new(place)
		n.places[user] = p
	}
	if p.via == "" && p.node == from && int32(p.last-seen) > 0 {
		p.via, p.viaLast = from, p.last
	}
	if p.via == n.id {
		p.via = ""
	}
	p.node, p.last, p.pinned = n.id, 0, true
}

func (n *node) Pin(_ context.Context, user stanza.Addr, from string) error {
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	n.mu.Lock()
	p := n.places[user]
	pinned := p != nil && p.node == n.id && p.pinned
	n.mu.Unlock()
	if pinned && from == "" {
		return nil
	}
	if n.m.down {
		return errRedis
	}
	if home := n.m.keys[user]; home != "" && home != n.id && home != from {
		return errors.New("another node is the user's home")
	}
	n.m.keys[user] = n.id
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.places[user]; p != nil && p.node == n.id {
		p.pinned = true
		return nil
	}
	return ErrUnlocated
}

func (n *node) Unpin(user stanza.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.places[user]; p != nil && p.node == n.id && p.pinned {
		p.pinned = false
		n.unpinned++
	}
}

func (n *node) Moved(user stanza.Addr, from, home string, seq uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.places[user]
	switch {
	case p == nil:
	case p.via == from:
		if int32(p.viaLast-seq) <= 0 {
			p.via = ""
		}
	case p.node == from && int32(p.last-seq) <= 0:
		if home == n.id {
			delete(n.places, user)
			return
		}
		p.node, p.last = home, 0
	}
}

// Links.

func (n *node) link(to string) *meshLink {
	l := n.links[to]
	if l == nil {
		n.ords++
		l = &meshLink{ord: 1<<60 + n.ords}
		n.links[to] = l
	}
	return l
}

func (n *node) Forward(user stanza.Addr, m Message, o Origin) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.places[user]
	if p == nil {
		return "", ErrUnlocated
	}
	to := p.node
	if !o.Passed && p.via != "" {
		to = p.via
	}
	switch to {
	case "":
		return "", ErrUnlocated
	case n.id:
		return to, nil
	}
	if err := n.forwardLocked(to, user, m, o, false); err != nil {
		return "", err
	}
	switch {
	case o.Passed:
	case p.via == to:
		p.viaLast = n.links[to].seq
	default:
		p.last = n.links[to].seq
	}
	return to, nil
}

func (n *node) ForwardTo(to string, user stanza.Addr, m Message, o Origin) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.forwardLocked(to, user, m, o, false)
}

func (n *node) HandOver(to string, user stanza.Addr, m Message) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.forwardLocked(to, user, m, Origin{}, true); err != nil {
		return err
	}
	if p := n.places[user]; p != nil {
		p.node, p.last, p.pinned = to, n.links[to].seq, false
	}
	return nil
}

func (n *node) forwardLocked(to string, user stanza.Addr, m Message, o Origin, leaves bool) error {
	l := n.link(to)
	rec := journal.Forward{Origin: o.Session, N: o.N, Link: l.ord, To: to, Seq: l.seq + 1, Op: m.Op, Leaves: leaves, User: user}
	if err := n.journal.Append(journal.KindForward, rec.AppendHead(nil), m.Payload); err != nil {
		return err
	}
	l.seq++
	m.Seq, m.User = l.seq, user.String()
	n.pushLocked(to, letter{from: n.id, m: m})
	return nil
}

// Park keeps a message for later: it comes back behind what is there.
func (n *node) Park(user stanza.Addr, m Message, o Origin) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.parks {
		return false, nil
	}
	return true, n.forwardLocked(n.id, user, m, o, false)
}

func (n *node) pushLocked(to string, x letter) {
	l := n.link(to)
	l.queue = append(l.queue, x)
	if !l.sending {
		l.sending = true
		n.loops.Go(func() { n.send(to, l) })
	}
}

// send carries the messages of one link, in order.
func (n *node) send(to string, l *meshLink) {
	for {
		n.mu.Lock()
		if n.ctx.Err() != nil { // it ends, and sends nothing more
			n.mu.Unlock()
			return
		}
		if len(l.queue) == 0 {
			l.sending = false
			n.mu.Unlock()
			return
		}
		x := l.queue[0]
		n.mu.Unlock()
		if !n.carry(to, x) {
			continue
		}
		var due []func()
		n.mu.Lock()
		l.queue = l.queue[1:]
		if x.m.Seq != 0 {
			l.done = x.m.Seq
			_ = n.journal.append(journal.KindHandled, journal.AppendCount(nil, l.ord, uint64(l.done)))
			for len(l.waiters) > 0 && int32(l.waitSeq[0]-l.done) <= 0 {
				due = append(due, l.waiters[0])
				l.waiters, l.waitSeq = l.waiters[1:], l.waitSeq[1:]
			}
		}
		n.mu.Unlock()
		for _, f := range due {
			f()
		}
	}
}

// carry reports false for what has to be tried again.
func (n *node) carry(to string, x letter) bool {
	n.m.mu.Lock()
	delay, cut, lose := n.m.delay, n.m.cut[n.id+">"+to] || n.m.dead[to], n.m.lose
	n.m.mu.Unlock()
	if cut {
		time.Sleep(5 * time.Millisecond)
		return false
	}
	if delay > 0 {
		time.Sleep(delay)
	}
	if x.m.Seq == 0 && x.done == nil && lose != nil && lose(n.id, to, x.m) {
		return true
	}
	other := n.m.node(to)
	if other == nil {
		return true // a test made it up
	}
	select {
	case other.box <- x:
	case <-n.ctx.Done():
	}
	return true
}

func (n *node) Tell(to string, m Message) bool {
	if to == n.id {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse != nil && n.refuse(m) {
		return false
	}
	n.pushLocked(to, letter{from: n.id, m: m})
	return true
}

func (n *node) WhenSent(to string, f func()) {
	n.mu.Lock()
	l := n.link(to)
	if l.done == l.seq {
		n.mu.Unlock()
		f()
		return
	}
	l.waiters, l.waitSeq = append(l.waiters, f), append(l.waitSeq, l.seq)
	n.mu.Unlock()
}

func (n *node) Room(ctx context.Context) error {
	n.mu.Lock()
	full := n.full
	n.mu.Unlock()
	if full == nil {
		return nil
	}
	select {
	case <-full:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *node) Suspect(_ context.Context, node string) {
	n.mu.Lock()
	n.suspected = append(n.suspected, node)
	n.mu.Unlock()
}

func (n *node) Sync(ctx context.Context, nodes ...string) {
	for _, to := range nodes {
		x := letter{from: n.id, done: make(chan struct{})}
		n.mu.Lock()
		n.pushLocked(to, x)
		n.mu.Unlock()
		select {
		case <-x.done:
		case <-ctx.Done():
		}
	}
}

// reader carries out what others send.
func (n *node) reader() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case x := <-n.box:
			if x.done != nil {
				close(x.done)
				continue
			}
			n.mu.Lock()
			if x.m.Seq != 0 {
				n.read = append(n.read, x)
			}
			n.mu.Unlock()
			if err := n.sv.Receive(n.ctx, x.from, x.m); err != nil && n.ctx.Err() == nil {
				n.t.Errorf("%s: message %d of %s not carried out: %v", n.id, x.m.Seq, x.from, err)
			}
		}
	}
}

// repeat has everything that came once come again, as after a kill of the reader.
func (n *node) repeat() {
	n.mu.Lock()
	again := slices.Clone(n.read)
	n.mu.Unlock()
	for _, x := range again {
		n.box <- x
	}
	n.m.rest()
}

// Moving.

func (n *node) TakeOut(user stanza.Addr) (out []journal.Await) {
	r := n.receipts
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, st := range r.open {
		if st.To.Bare() == user {
			out = append(out, journal.Await{ID: id, From: st.From, To: st.To, MsgID: st.Attr("id"), Stanza: st})
			delete(r.open, id)
		}
	}
	slices.SortFunc(out, func(a, b journal.Await) int { return a.ID.Compare(b.ID) })
	return out
}

func (n *node) PutIn(awaited []journal.Await) {
	for _, a := range awaited {
		n.receipts.Open(a.Stanza)
	}
}

func (n *node) Awaits(user stanza.Addr) bool {
	return slices.ContainsFunc(n.receipts.waiting(), func(st *stanza.Stanza) bool { return st.To.Bare() == user })
}

func (n *node) Release(ctx context.Context, _ stanza.Addr) error {
	n.mu.Lock()
	f := n.release
	n.mu.Unlock()
	if f != nil {
		return f(ctx)
	}
	return ctx.Err()
}

// kinds counts the records of a journal by kind.
func (j *fakeJournal) kinds() map[journal.Kind]int {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make(map[journal.Kind]int)
	for _, r := range j.records {
		all[r.kind]++
	}
	return all
}

// sessionsOf lists a user's sessions at a node.
func (n *node) sessionsOf(user string) (all []*Session) {
	n.sv.router.Each(addr(user), func(s *Session) { all = append(all, s) })
	return all
}

// atHome checks that a user is at one node, by the key and by everybody's sessions.
func (m *mesh) atHome(n *node, user string, sessions int) {
	m.t.Helper()
	m.rest()
	if home := m.home(user); home != n.id {
		m.t.Errorf("%s is at home at %q, want %s", user, home, n.id)
	}
	for _, other := range m.nodes {
		want := 0
		if other == n {
			want = sessions
		}
		if got := len(other.sessionsOf(user)); got != want {
			m.t.Errorf("%s has %d sessions at %s, want %d", user, got, other.id, want)
		}
		if other.Here(addr(user)) != (other == n) {
			m.t.Errorf("%s takes %s to be here: %v", other.id, user, other != n)
		}
	}
}
