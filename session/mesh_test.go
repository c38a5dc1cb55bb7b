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

// Ready has nobody wait, and Straighten nothing to wait for: what goes by an earlier home is package cluster's business.
func (n *node) Ready(_ context.Context, user stanza.Addr) bool {
	_, known := n.Where(user)
	return known
}

func (n *node) Straighten(context.Context, stanza.Addr) {}

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

func (n *node) Take(user stanza.Addr, from string, seen uint32, _ uint64) {
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

func (n *node) Moved(user stanza.Addr, m Move) {
	from, home, seq := m.From, m.Node, m.Seq
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

// handled counts the records that say that an inbound stanza of a session, or a link, came to nothing else.
func (j *fakeJournal) handled(ord uint64) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range j.records {
		if r.kind != journal.KindHandled {
			continue
		}
		if of, _, err := journal.DecodeCount(r.b); err == nil && of == ord {
			n++
		}
	}
	return n
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

func (m *mesh) homeOf(a string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.keys[stanza.MustParseAddr(a)]
}
