package session

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// estate is what a dead node leaves, recovered from its journal alone.
type estate struct {
	all    []Restored // links first
	unsent []*journal.Forward
	awaits []journal.Await
}

// die ends a node without a word. What it sent so far has arrived or will never be sent.
func (m *mesh) die(n *node) estate {
	n.stop()
	n.loops.Wait()
	n.journal.die()
	n.sv.Close()
	var e estate
	sessions := n.disk.copied()
	sent := make(map[uint64]uint32)
	var forwards []*journal.Forward
	box := n.world.box
	n.world.box = newMailbox() // what is stored has reached the kept store already
	for _, r := range n.journal.records {
		n.replay(sessions, r)
		switch r.kind {
		case journal.KindForward:
			f, _ := journal.DecodeForward(r.b)
			if f.To != "" {
				forwards = append(forwards, f)
			}
		case journal.KindHandled:
			ord, count, _ := journal.DecodeCount(r.b)
			sent[ord] = max(sent[ord], uint32(count))
		}
	}
	n.world.box = box
	for _, f := range forwards {
		if f.Seq > sent[f.Link] {
			e.unsent = append(e.unsent, f)
		}
	}
	for _, s := range slices.SortedFunc(maps.Values(sessions), func(a, b *Restored) int {
		return cmp.Or(cmp.Compare(b.State.Flags&journal.FlagLink, a.State.Flags&journal.FlagLink), cmp.Compare(a.State.Ord, b.State.Ord))
	}) {
		e.all = append(e.all, *s)
	}
	for _, st := range n.receipts.waiting() {
		e.awaits = append(e.awaits, journal.Await{ID: st.ID, From: st.From, To: st.To, MsgID: st.Attr("id"), Stanza: st})
	}
	m.mu.Lock()
	for _, x := range m.nodes {
		m.cut[x.id+">"+n.id] = true // what is sent to it from now on waits for the heir
	}
	m.nodes = slices.DeleteFunc(m.nodes, func(x *node) bool { return x == n })
	m.mu.Unlock()
	return e
}

// save is a checkpoint. The journal keeps what may still have to be sent.
func (n *node) save() {
	j := n.journal
	c := n.sv.Checkpoint(func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.records = slices.DeleteFunc(j.records, func(r logged) bool {
			f, err := journal.DecodeForward(r.b)
			return r.kind != journal.KindHandled && (r.kind != journal.KindForward || err != nil || f.Leaves)
		})
	})
	if n.disk == nil {
		n.disk = newDisk()
	}
	n.disk.write(c)
	c.Commit()
}

// adopt has one node take the estate over, as cmd/gateway and package cluster do.
func (m *mesh) adopt(dead *node, heir *node, e estate) {
	m.t.Helper()
	marked := false
	h, err := heir.sv.Inherit(dead.id, e.all, func() { marked = true })
	if err != nil || !marked {
		m.t.Fatalf("inherit: %v, marked %v", err, marked)
	}
	heir.PutIn(e.awaits)
	heir.save()
	for _, user := range h.Publish() {
		if err := heir.Pin(heir.ctx, user, dead.id); err != nil {
			m.t.Fatalf("pin: %v", err)
		}
	}
	for _, f := range e.unsent {
		if to := m.node(f.To); to != nil {
			to.box <- letter{from: dead.id, m: Message{Op: f.Op, Seq: f.Seq, User: f.User.String(), Payload: f.Payload}}
		}
	}
	for len(dead.box) > 0 {
		if x := <-dead.box; x.m.Seq != 0 {
			if err := heir.sv.Receive(heir.ctx, x.from+"/"+dead.id, x.m); err != nil {
				m.t.Fatalf("mailbox: %v", err)
			}
		}
	}
	seen := heir.sv.Received(dead.id)
	m.mu.Lock()
	m.dead[dead.id] = true
	m.mu.Unlock()
	synctest.Wait()
	for _, n := range m.nodes {
		n.mu.Lock()
		var rest []letter
		if l := n.links[dead.id]; l != nil {
			rest, l.queue = l.queue, nil
		}
		for user, p := range n.places {
			if p.via == dead.id {
				p.via = ""
			}
			if p.node == dead.id {
				delete(n.places, user)
			}
		}
		delete(n.links, dead.id)
		n.mu.Unlock()
		for _, x := range rest {
			if x.m.Seq == 0 || int32(x.m.Seq-seen[n.id]) <= 0 {
				continue
			}
			user := stanza.MustParseAddr(x.m.User)
			if err := n.sv.Reroute(n.ctx, user, x.m, Origin{Session: 1 << 59, N: x.m.Seq}); err != nil {
				m.t.Fatalf("reroute: %v", err)
			}
		}
		n.sv.Gone(dead.id)
	}
	heir.sv.ForgetLinks(dead.id)
	for _, a := range e.awaits {
		if err := heir.sv.PassOn(heir.ctx, a.To.Bare()); err != nil {
			m.t.Fatalf("pass on: %v", err)
		}
	}
	m.rest()
}

func TestEstate(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		juliet.frames()
		had := juliet.count()
		romeo.send(asking("juliet", "1"))
		juliet.chat("romeo", "a")
		m.rest()
		dead := m.nodes[0]
		// On the way when it dies: from it, and to it.
		m.partition(dead, m.nodes[1], true)
		juliet.chat("romeo", "b")
		m.partition(m.nodes[1], dead, true)
		romeo.chat("juliet", "2")
		synctest.Wait()
		e := m.die(dead)
		m.adopt(dead, m.nodes[1], e)
		if got := romeo.bodiesOf(); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("romeo got %q", got)
		}
		again := juliet.resumedAt(m.nodes[0], had)
		got := again.frames()
		if len(got) < 3 || !got[0].Is(stanza.NSSM, "resumed") || got[0].Attr("h") != "3" {
			t.Errorf("resumed with %q", briefs(got))
		}
		var texts []string
		for _, x := range got {
			if x.Kind() == stanza.Message {
				texts = append(texts, body(x))
			}
		}
		if !slices.Equal(texts, numbers(1, 2)) {
			t.Errorf("juliet got %q", texts)
		}
		again.ack(had + 1)
		for _, n := range m.nodes {
			if n := len(n.receipts.waiting()); n > 0 {
				t.Errorf("%d receipts awaited", n)
			}
			n.repeat()
		}
		again.want()
		romeo.want()
	})
}

// Two sessions of one user were given one message: it is one record of the journal.
func TestEstateOfTwoDevices(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		heir := m.nodes[1]
		st, err := stanza.Parse([]byte(chat("juliet@capulet.example", "both")), stanza.NewID())
		if err != nil {
			t.Fatal(err)
		}
		rec := &journal.Stanza{Stanza: st, Flags: journal.Copied, Targets: []journal.Target{{Session: 7, Pos: 1}, {Session: 8, Pos: 3}}}
		var all []Restored
		for i, device := range []string{"juliet/a", "juliet/b"} {
			all = append(all, Restored{
				State: &journal.Session{Ord: uint64(7 + i), Addr: addr(device), Managed: true, Token: device, Max: time.Minute, CreatedAt: time.Now(), Detached: time.Now()},
				Acked: uint64(2 * i), Queue: []*journal.Stanza{rec},
			})
		}
		h, err := heir.sv.Inherit("dead", all, func() {})
		if err != nil {
			t.Fatal(err)
		}
		if users := h.Publish(); !slices.Equal(users, []stanza.Addr{addr("juliet").Bare()}) {
			t.Errorf("inherited %v", users)
		}
		if len(rec.Targets) != 2 {
			t.Error("the record is not as it was")
		}
		for i, s := range heir.sessionsOf("juliet") {
			q := all[i].Queue[0]
			if s.queued() != 1 || len(q.Targets) != 1 || q.Targets[0].Pos != uint64(2*i+1) {
				t.Errorf("%s: %d queued, %v", s.addr, s.queued(), q.Targets)
			}
		}
	})
}

// What was not published is not found, and can be inherited again.
func TestEstateIsDiscarded(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, _ := two(m)
		m.rest()
		dead, heir := m.nodes[0], m.nodes[1]
		e := m.die(dead)
		h, err := heir.sv.Inherit(dead.id, e.all, func() {})
		if err != nil {
			t.Fatal(err)
		}
		if heir.sv.byToken(juliet.token) != nil || len(heir.sessionsOf("juliet")) > 0 {
			t.Error("found before it was published")
		}
		cp := heir.sv.Checkpoint(func() {})
		if !slices.ContainsFunc(cp.Changed, func(r Restored) bool { return r.State.Token == juliet.token }) {
			t.Error("not in the checkpoint")
		}
		cp.Commit()
		unmarked := false
		h.Discard(func() { unmarked = true })
		if cp := heir.sv.Checkpoint(func() {}); len(cp.Gone) == 0 || !unmarked {
			t.Error("what was discarded stays in the checkpoint")
		}
		for i := range e.all { // read anew
			r := &e.all[i]
			for j, q := range r.Queue {
				q.Targets = []journal.Target{{Session: r.State.Ord, Pos: r.Acked + uint64(j) + 1}}
			}
		}
		m.adopt(dead, heir, e)
		juliet.resumedAt(heir, 0).frames()
		m.atHome(heir, "juliet", 1)
	})
}

// Nodes die one after the other while messages are under way and clients move: nothing is lost, nothing comes twice, and
// from one to the other in order.
func TestDeathsAtRandom(t *testing.T) {
	for seed := range uint64(25) {
		inMesh(t, 4, func(t *testing.T, m *mesh) {
			r := rand.New(rand.NewPCG(seed, 1))
			romeo := m.nodes[3].managed("romeo/orchard").available()
			juliet := m.nodes[0].managed("juliet/balcony").available()
			juliet.frames()
			last := m.nodes[3]
			var got, sent []string
			take := func() {
				for _, e := range juliet.frames() {
					if e.Kind() == stanza.Message {
						got = append(got, body(e))
					}
				}
			}
			say := func() {
				for range 1 + r.IntN(3) {
					sent = append(sent, fmt.Sprint(len(sent)))
					romeo.chat("juliet", sent[len(sent)-1])
				}
			}
			for range 12 {
				say()
				if r.IntN(2) == 0 {
					m.rest()
				}
				at := m.node(m.home("juliet"))
				switch r.IntN(5) {
				case 0, 1: // she comes elsewhere
					take()
					had := juliet.count()
					juliet.cut()
					say()
					juliet = juliet.resumedAt(m.nodes[r.IntN(len(m.nodes))], had)
				case 2: // her node dies, with something on the way to it
					if at == last || len(m.nodes) < 3 {
						continue
					}
					take()
					had := juliet.count()
					m.partition(last, at, r.IntN(2) == 0)
					say()
					synctest.Wait()
					e := m.die(at)
					say()
					heir := m.nodes[r.IntN(len(m.nodes))]
					m.adopt(at, heir, e)
					say()
					juliet = juliet.resumedAt(m.nodes[r.IntN(len(m.nodes))], had)
				case 3:
					take()
					juliet.ack(juliet.count())
				case 4:
					for _, n := range m.nodes {
						n.save()
					}
				}
			}
			m.rest()
			m.rest()
			take()
			if !slices.Equal(got, sent) {
				t.Errorf("seed %d: got %q, want %q", seed, got, sent)
			}
		})
	}
}
