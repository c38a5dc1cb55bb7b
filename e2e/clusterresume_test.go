package e2e

import (
	"strconv"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/testkit/cutproxy"
	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/xmppclient"
)

// TestClusterResume: a session goes on on another node (XEP-0198 §5), with what came meanwhile and nothing twice,
// however the client and its node parted.
func TestClusterResume(t *testing.T) {
	long(t)
	for _, c := range []struct {
		name  string
		lease time.Duration
		part  func(t *testing.T, g *gatewayproc.Gateway, u *user)
	}{
		{"connection cut", longLease, func(_ *testing.T, _ *gatewayproc.Gateway, u *user) { u.Abort() }},
		// The client has a new connection, the gateway does not know yet that the old one is dead.
		{"connection half-open", longLease, func(*testing.T, *gatewayproc.Gateway, *user) {}},
		{"node killed", lease, func(_ *testing.T, g *gatewayproc.Gateway, _ *user) { g.Kill() }},
		{"node drained", longLease, func(t *testing.T, g *gatewayproc.Gateway, u *user) {
			if err := g.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			var err error
			for err == nil {
				_, err = u.Read(within(t, 5*time.Second))
			}
			if xmppclient.Status(err) != 1012 {
				t.Errorf("the connection ended with %v, want 1012", err)
			}
			if code := g.AwaitExit(10 * time.Second); code != 0 {
				t.Errorf("exit code %d", code)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			nodes := startCluster(t, 3, leased(c.lease, nil))
			if c.lease == lease {
				// As long as a subscription is young nobody is taken for dead because of a missing one.
				time.Sleep(lease)
			}
			nodes[0].AddUsers("anna", "bert")
			a := available(t, nodes[1], "anna", "")
			b, id := managed(t, nodes[0], "bert")
			a.chat(b.JID, "one")
			b.message("one")
			b.chat(a.JID, "first")
			a.message("first")
			b.ack(1)
			c.part(t, nodes[0], b)
			a.chat(b.JID, "two")
			a.chat(bare("bert"), "three")
			again, handled, took := resume(t, nodes[2], "bert", id, b)
			t.Logf("%s: %v from <resume/> to <resumed/>", c.name, took)
			if handled != "1" {
				t.Errorf("the new node counts %s stanzas, want 1", handled)
			}
			again.inOrder("two", "three")
			again.chat(a.JID, "second")
			a.message("second")
			again.ack(2)
			a.chat(b.JID, "four")
			again.message("four")
			again.silent()
			a.silent()

			// And back, or to the third, with the present node alive.
			again.Abort()
			a.chat(b.JID, "five")
			third, handled, took := resume(t, nodes[1], "bert", id, again)
			t.Logf("and again, with the node alive: %v", took)
			// The ping of silent counts.
			if n, err := strconv.Atoi(handled); err != nil || n != 3 {
				t.Errorf("the third node counts %s stanzas, want 3", handled)
			}
			third.message("five")
			third.silent()
		})
	}
}

// TestClusterFenced: a node that stands still for longer than its lease is taken over; when it goes on it finds that
// out, and ends with code 3 without having done harm.
func TestClusterFenced(t *testing.T) {
	long(t)
	nodes := startCluster(t, 2, leased(shortLease, nil))
	nodes[0].AddUsers("anna", "bert")
	a := available(t, nodes[1], "anna", "")
	b, id := managed(t, nodes[0], "bert")
	a.chat(b.JID, "one")
	b.message("one")
	nodes[0].Pause()
	// The old connection stands, and what is sent over it is read only when nobody counts with it any more.
	b.chat(a.JID, "too late")
	a.chat(b.JID, "two")
	again, handled, took := resume(t, nodes[1], "bert", id, b)
	t.Logf("%v from <resume/> to <resumed/>, with a lease of %v", took, shortLease)
	if handled != "0" {
		t.Errorf("%s stanzas are counted, want none", handled)
	}
	again.message("two")
	again.chat(a.JID, "in time")
	a.message("in time")
	nodes[0].Resume()
	if code := nodes[0].AwaitExit(10 * time.Second); code != 3 {
		t.Errorf("the fenced gateway ended with code %d, want 3", code)
	}
	again.silent()
	a.silent()
	nodes[0].Run()
	awaitMembers(t, nodes, 2)
	third, _, _ := resume(t, nodes[0], "bert", id, again)
	a.chat(b.JID, "three")
	third.message("three")
	third.silent()
}

// TestClusterSenderKilled: what a client has sent and not seen acknowledged when its node is killed it sends again, and
// nothing arrives twice; what was acknowledged was safe.
func TestClusterSenderKilled(t *testing.T) {
	long(t)
	nodes := startCluster(t, 3, nil)
	nodes[0].AddUsers("anna", "bert")
	p := startPair(t, nodes[0], nodes[1], "anna", "bert")
	for i := range 4 {
		from := p.count.Counts().Acknowledged
		p.say(300)
		// In the midst of it.
		if !await(within(t, 10*time.Second), func() bool { return p.count.Counts().Acknowledged >= from+20 }) {
			t.Fatalf("nothing is acknowledged in round %d", i)
		}
		dead := nodes[i%3] // where the first of the two is
		p.a.proxy.Retarget(nodes[(i+1)%3].Addr())
		p.b.proxy.Retarget(nodes[(i+2)%3].Addr())
		dead.Kill()
		p.b.proxy.Each((*cutproxy.Link).Cut)
		p.say(100)
		p.a.awaitOnline(t)
		p.b.awaitOnline(t)
		dead.Run()
		awaitMembers(t, nodes, 3)
	}
	p.finish(t)
}

// TestClusterRollingRestart restarts one node after the other while two clients on them talk.
func TestClusterRollingRestart(t *testing.T) {
	long(t)
	nodes := startCluster(t, 3, leased(longLease, map[string]string{"HOLDFAST_DRAIN_SPREAD": "0"}))
	nodes[0].AddUsers("anna", "bert")
	p := startPair(t, nodes[0], nodes[1], "anna", "bert")
	for i, g := range nodes {
		p.say(100)
		// Their next connections go to the next node, as a balancer would send them.
		p.a.proxy.Retarget(nodes[(i+1)%3].Addr())
		p.b.proxy.Retarget(nodes[(i+1)%3].Addr())
		code, took := g.Term(25 * time.Second)
		t.Logf("gateway %d ended with %d after %v", i, code, took)
		if code != 0 || took > 10*time.Second {
			t.Errorf("gateway %d ended with %d after %v", i, code, took)
		}
		p.say(100)
		g.Run()
		awaitMembers(t, nodes, 3)
	}
	p.finish(t)
}
