package cluster

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// A user who is to go to a node that is dead and buried stays: what a new link to it had would pass for what the dead
// one took long ago.
func TestNobodyGoesToABuriedNode(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		a, b, s, u := pair(t, w)
		s.sends(t, u, 10)
		w.arrived(u.addr, s.name, 10)
		b.kill()
		w.goneFrom(b, a)
		must(t, u.connect(within(t), a))
		w.await("the link is closed", func() bool { return a.node.link(b.id).isClosed() })
		if err := a.node.HandOver(b.id, u.addr, Message{Op: opTake}); !errors.Is(err, ErrUnlocated) {
			t.Errorf("handed over to a node that is buried: %v", err)
		}
		if home := w.home(u.addr); home != a.id {
			t.Errorf("the home is %q, want %q", home, a.id)
		}
		s.sends(t, u, 5)
		w.arrived(u.addr, s.name, 15)
	})
}

// The others hear of a burial from the heir, and need not look who lives.
func TestBurialIsTold(t *testing.T) {
	w := shared(t)
	w.cfg.Lease = 10 * time.Minute
	leaves, heir := w.start(), w.start()
	w.cfg.Beat = time.Minute
	far := w.start()
	w.await("the heir knows the others", func() bool { return len(heir.node.Members()) == 2 })
	s, u := w.client("sender"), w.client("user")
	must(t, s.connect(within(t), far))
	must(t, u.connect(within(t), leaves))
	s.sends(t, u, 3)
	w.arrived(u.addr, s.name, 3)
	leaves.leaveNow()
	w.goneFrom(leaves, far)
	s.sends(t, u, 3)
	w.arrived(u.addr, s.name, 6)
	w.await("the link is closed", func() bool { return far.node.link(leaves.id).isClosed() })
	w.await("its Receiver is told", func() bool {
		far.mu.Lock()
		defer far.mu.Unlock()
		return slices.Equal(far.goneBy, []string{leaves.id})
	})
}

// What a node has in Redis goes away by itself if it dies before it has entered the cluster, and not afterwards.
func TestStreamsStay(t *testing.T) {
	w := shared(t)
	early, g := w.make(), w.start()
	for _, name := range []string{"journal", "mailbox"} {
		if d := w.admin.TTL(bg, w.keys.Node(early.id, name)).Val(); d <= 0 {
			t.Errorf("%s of a node that has not entered: %v", name, d)
		}
		if d := w.admin.TTL(bg, w.keys.Node(g.id, name)).Val(); d != -1 {
			t.Errorf("%s of a node of the cluster: %v", name, d)
		}
	}
}
