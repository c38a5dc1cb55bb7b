package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/internal/testkit/cutproxy"
	"holdfast/internal/testkit/gatewayproc"
)

// weather carries out a plan of events over some clients' proxies, and feeds the clients messages meanwhile.
type weather struct {
	t       *testing.T
	servers servers
	proxies []*cutproxy.Proxy
	hit     [cutproxy.Kinds]int // events that found something to break
	missed  int
	diary   []string // what happened when
}

// servers is where the events happen that are not the network's.
type servers interface {
	happen(e cutproxy.Event)
	calm() // waits until what has happened is over
}

// lone is one gateway, which can only be killed.
type lone struct{ *gatewayproc.Gateway }

func (l lone) happen(cutproxy.Event) { l.Restart() }
func (l lone) calm()                 {}

func (w *weather) String() string {
	s := "weather:"
	for k := cutproxy.Cut; k < cutproxy.Kinds; k++ {
		s += fmt.Sprintf(" %d %v,", w.hit[k], k)
	}
	return s + fmt.Sprintf(" %d found nothing to break", w.missed)
}

// carryOut lets every event happen, and before each of them hands out an equal share of the messages, so that they
// flow from the first event to the last. When all is over everybody says one thing more: whose message is acknowledged
// then is connected, and can log out.
func (w *weather) carryOut(plan []cutproxy.Event, messages, streams int, say func(stream, n int)) {
	given := 0
	for i, e := range plan {
		next := messages * (i + 1) / len(plan)
		for s := range streams {
			say(s, next-given)
		}
		given = next
		time.Sleep(e.Pause) // the plan's own clock, not a wait for anything
		w.happen(e)
		if w.t.Failed() {
			return
		}
	}
	w.servers.calm()
	for s := range streams {
		say(s, 1)
	}
}

func (w *weather) happen(e cutproxy.Event) {
	w.diary = append(w.diary, time.Now().Format("15:04:05.000 ")+e.String())
	if e.Kind >= cutproxy.Kill {
		w.servers.happen(e)
		w.hit[e.Kind]++
		return
	}
	p := w.proxies[e.Target]
	// A client that is just coming back is waited for, so that a cut is one. It may take long: xmppjs needs 8 s to
	// notice that a connection is half-open.
	await(within(w.t, 30*time.Second), func() bool { return len(p.Live()) > 0 })
	var n int
	switch e.Kind {
	case cutproxy.Cut:
		n = p.Each((*cutproxy.Link).Cut)
	case cutproxy.HalfOpen:
		n = p.Each((*cutproxy.Link).HalfOpen)
	case cutproxy.Stall:
		for _, l := range p.Live() {
			n++
			l.Stall()
			time.AfterFunc(e.For, l.Flow)
		}
	case cutproxy.Slow:
		for _, l := range p.Live() {
			n++
			l.Slow(e.Rate)
			time.AfterFunc(e.For, func() { l.Slow(0) })
		}
	}
	if n == 0 {
		w.missed++
		return
	}
	w.hit[e.Kind]++
}

// tell says what happened when, to the network and to the gateways, after a failure.
func (w *weather) tell(s *supervisor) {
	if !w.t.Failed() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	diary := append(slices.Clone(w.diary), s.diary...)
	slices.Sort(diary)
	w.t.Logf("what happened:\n%s", strings.Join(diary, "\n"))
}
