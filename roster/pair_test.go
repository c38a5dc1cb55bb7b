package roster

import (
	"context"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"holdfast/stanza"
)

// pair carries subscription stanzas between two users' rosters, as sessions do.
type pair struct {
	t    *rapid.T
	s    *Service
	lose func() bool // asked before each delivery
}

var kindOf = rapid.SampledFrom([]Kind{Subscribe, Subscribed, Unsubscribe, Unsubscribed})

func newPair(t *rapid.T) *pair {
	return &pair{
		t:    t,
		s:    New(DefaultConfig(), newMemory(), slog.New(slog.DiscardHandler), prometheus.NewRegistry()),
		lose: func() bool { return false },
	}
}

func (p *pair) send(from, to stanza.Addr, kind Kind) {
	o, err := p.s.Outbound(context.Background(), from, to, kind)
	if err != nil {
		p.t.Fatal(err)
	}
	if o.AutoReply != NoKind {
		p.t.Fatalf("%v is answered on the sender's side: %+v", kind, o)
	}
	if o.Route {
		p.deliver(from, to, kind, 0)
	}
	if o.AskAgain {
		p.deliver(from, to, Subscribe, 0)
	}
}

func (p *pair) deliver(from, to stanza.Addr, kind Kind, depth int) {
	if p.lose() {
		return
	}
	if depth > 2 {
		p.t.Fatal("an answer was answered")
	}
	o, err := p.s.Inbound(context.Background(), to, from, kind, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if o.AutoReply != NoKind {
		p.deliver(to, from, o.AutoReply, depth+1)
	}
	if o.AskAgain {
		p.deliver(to, from, Subscribe, depth+1)
	}
}

func (p *pair) remove(user, contact stanza.Addr) {
	_, owed, err := p.s.Remove(context.Background(), user, contact)
	if err == nil {
		p.settle(user, owed)
	}
}

func (p *pair) removeUser(user stanza.Addr) {
	all, err := p.s.RemoveUser(context.Background(), user)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, owed := range all {
		p.settle(user, owed)
	}
}

func (p *pair) settle(user stanza.Addr, owed Removed) {
	if owed.Unsubscribe {
		p.deliver(user, owed.Contact, Unsubscribe, 0)
	}
	if owed.Unsubscribed {
		p.deliver(user, owed.Contact, Unsubscribed, 0)
	}
}

func (p *pair) state(user, contact stanza.Addr) state {
	r, err := p.s.read(context.Background(), user)
	if err != nil {
		p.t.Fatal(err)
	}
	if e := r.find(contact); e != nil {
		return e.state()
	}
	return state{}
}

// agree checks that each side believes of the other's subscription what the other does.
func (p *pair) agree() {
	a, b := p.state(romeo, juliet), p.state(juliet, romeo)
	for _, v := range []struct{ my, your state }{{a, b}, {b, a}} {
		if v.my.sub.HasTo() != v.your.sub.HasFrom() || v.my.ask != v.your.pendingIn {
			p.t.Fatalf("romeo has %+v, juliet %+v", a, b)
		}
		if v.my.ask && v.my.sub.HasTo() || v.my.pendingIn && (v.my.sub.HasFrom() || v.my.approved) {
			p.t.Fatalf("%+v is no state", v.my)
		}
	}
}

func (p *pair) actions() map[string]func(*rapid.T) {
	sides := rapid.SampledFrom([][2]stanza.Addr{{romeo, juliet}, {juliet, romeo}})
	return map[string]func(*rapid.T){
		"send": func(t *rapid.T) {
			side := sides.Draw(t, "side")
			p.send(side[0], side[1], kindOf.Draw(t, "kind"))
		},
		"set": func(t *rapid.T) {
			side := sides.Draw(t, "side")
			if _, err := p.s.Set(context.Background(), side[0], Item{Contact: side[1]}); err != nil {
				t.Fatal(err)
			}
		},
		"remove": func(t *rapid.T) {
			side := sides.Draw(t, "side")
			p.remove(side[0], side[1])
		},
		"remove user": func(t *rapid.T) { p.removeUser(sides.Draw(t, "side")[0]) },
	}
}

// TestPairAgrees: when nothing is lost, two rosters never disagree.
func TestPairAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPair(t)
		actions := p.actions()
		actions[""] = func(t *rapid.T) { p.agree() }
		t.Repeat(actions)
	})
}

// TestPairRecovers: whatever was lost between two rosters (a gateway that died between the two writes), one request and
// one approval bring them together, and one unsubscribe apart.
func TestPairRecovers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPair(t)
		p.lose = func() bool { return rapid.Bool().Draw(t, "lose") }
		t.Repeat(p.actions())
		p.lose = func() bool { return false }

		p.send(romeo, juliet, Subscribe)
		p.send(juliet, romeo, Subscribed)
		if a, b := p.state(romeo, juliet), p.state(juliet, romeo); !a.sub.HasTo() || !b.sub.HasFrom() || a.ask || b.pendingIn {
			t.Fatalf("after the approval romeo has %+v, juliet %+v", a, b)
		}
		p.send(romeo, juliet, Unsubscribe)
		if a, b := p.state(romeo, juliet), p.state(juliet, romeo); a.sub.HasTo() || b.sub.HasFrom() || a.ask || b.pendingIn {
			t.Fatalf("after giving up romeo has %+v, juliet %+v", a, b)
		}
	})
}
