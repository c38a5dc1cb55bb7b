package e2e

import (
	"slices"
	"testing"
	"time"

	"holdfast/internal/testkit/postgresproc"
	"holdfast/internal/testkit/redisproc"
	"holdfast/internal/testkit/xmppclient"
)

// impatient is a cluster that does not wait long for a Redis that does not answer.
func impatient() map[string]string {
	return map[string]string{"HOLDFAST_REDIS_PATIENCE": "300ms"}
}

// settled sees that no more than n of the user's stanzas are settled now.
func (u *user) settled(n string) {
	u.t.Helper()
	u.skipped = slices.DeleteFunc(u.skipped, func(e *xmppclient.Element) bool { return e.Is(xmppclient.NSSM, "a") })
	u.send("<r xmlns='urn:xmpp:sm:3'/>")
	e := u.expect("what is settled now", func(e *xmppclient.Element) bool { return e.Is(xmppclient.NSSM, "a") })
	if e.Attr("h") != n {
		u.t.Errorf("%v while the store is away, want %s", e, n)
	}
}

// TestClusterRedisPaused: while Redis does not answer, clients of one node go on talking, and acknowledgements wait;
// afterwards everything is as it should be.
func TestClusterRedisPaused(t *testing.T) {
	long(t)
	redis := redisproc.Standalone(t, redisproc.Durable...)
	nodes := startTroubled(t, redis.URL(), impatient())
	nodes[0].AddUsers("anna", "bert", "cleo")
	a, _ := managed(t, nodes[0], "anna")
	b, _ := managed(t, nodes[0], "bert")
	c := available(t, nodes[1], "cleo", "")
	for _, to := range []*user{b, c} { // the homes of both are known
		a.chat(to.JID, "before")
		to.message("before")
	}
	a.ack(2)
	redis.Pause(t)
	paused := time.Now()
	a.chat(b.JID, "meanwhile")
	b.message("meanwhile")
	t.Logf("a message between clients of one node took %v", time.Since(paused))
	b.chat(a.JID, "and back")
	a.message("and back")
	a.chat(c.JID, "for the other node")
	a.settled("2")
	if !await(within(t, 30*time.Second), func() bool { return !nodes[0].Ready() && !nodes[1].Ready() }) {
		t.Error("/readyz does not say that Redis is away")
	}
	<-time.After(time.Until(paused.Add(3 * time.Second))) // as long as that is the point
	redis.Resume(t)
	a.ack(4)
	c.message("for the other node")
	for _, g := range nodes {
		g.AwaitReady()
	}
	b.ack(1)
	for _, u := range []*user{a, b, c} {
		u.silent()
	}
}

// TestClusterRedisRestarted: Redis is killed and comes back with its append-only file while two pairs talk, one on one
// node and one across.
func TestClusterRedisRestarted(t *testing.T) {
	long(t)
	redis := redisproc.Standalone(t, redisproc.Durable...)
	nodes := startTroubled(t, redis.URL(), impatient())
	nodes[0].AddUsers("anna", "bert", "cleo", "dora")
	near := startPair(t, nodes[0], nodes[0], "anna", "bert")
	far := startPair(t, nodes[0], nodes[1], "cleo", "dora")
	for range 3 {
		near.say(100)
		far.say(100)
		redis.Kill()
		near.say(100)
		far.say(100)
		if !await(within(t, 30*time.Second), func() bool { return !nodes[0].Ready() && !nodes[1].Ready() }) {
			t.Error("/readyz does not say that Redis is away")
		}
		redis.Restart(t)
		for _, g := range nodes {
			g.AwaitReady()
		}
	}
	near.finish(t)
	far.finish(t)
	awaitMembers(t, nodes, 2)
}

// TestClusterPostgresStopped: without PostgreSQL chat goes on; what is for users who are away waits, and is stored when
// it is back.
func TestClusterPostgresStopped(t *testing.T) {
	long(t)
	nodes := startTroubled(t, redisproc.Shared(t).URL(), leased(longLease, nil))
	nodes[0].AddUsers("anna", "bert", "cleo")
	a, b := available(t, nodes[0], "anna", ""), available(t, nodes[1], "bert", "")
	a.chat(b.JID, "before")
	b.message("before")
	a.chat(bare("cleo"), "one")
	a.alive()
	postgresproc.Get(t).Stop(t)
	a.chat(b.JID, "meanwhile")
	b.message("meanwhile")
	b.chat(a.JID, "and back")
	a.message("and back")
	if !await(within(t, 30*time.Second), func() bool { return !nodes[0].Ready() && !nodes[1].Ready() }) {
		t.Error("/readyz does not say that PostgreSQL is away")
	}
	a.chat(bare("cleo"), "two")
	postgresproc.Get(t).Start(t)
	for _, g := range nodes {
		g.AwaitReady()
	}
	a.chat(bare("cleo"), "three")
	a.alive()
	c := available(t, nodes[1], "cleo", "")
	c.inOrder("one", "two", "three")
	for _, u := range []*user{a, b, c} {
		u.silent()
	}
}

// TestClusterOnRedisCluster runs the basics, a kill and a resumption over a Redis Cluster of three.
func TestClusterOnRedisCluster(t *testing.T) {
	long(t)
	nodes := startClusterOn(t, redisproc.SharedCluster(t).URL(), 3, nil)
	basics(t, nodes[0], nodes[1])
	time.Sleep(lease) // as in TestClusterResume
	nodes[0].AddUsers("dora", "emil")
	a := available(t, nodes[1], "emil", "")
	d, id := managed(t, nodes[0], "dora")
	a.chat(d.JID, "one")
	d.message("one")
	nodes[0].Kill()
	a.chat(d.JID, "two")
	again, _, took := resume(t, nodes[2], "dora", id, d)
	t.Logf("%v from <resume/> to <resumed/> after a kill", took)
	again.message("two")
	again.silent()
}

// TestClusterOnSentinel: with WAIT for the replica, a failover of Redis loses nothing that was acknowledged.
func TestClusterOnSentinel(t *testing.T) {
	long(t)
	redis := redisproc.NewPair(t, redisproc.Durable...)
	nodes := startTroubled(t, redis.URL(), map[string]string{"HOLDFAST_REDIS_WAIT_REPLICAS": "1"})
	basics(t, nodes[0], nodes[1])
	nodes[0].AddUsers("dora", "emil", "fred")
	p := startPair(t, nodes[0], nodes[1], "dora", "emil")
	p.say(200)
	redis.Failover(t)
	p.say(200)
	// Until there is a replica again nothing counts as safe.
	redis.Rejoin(t)
	p.finish(t)
	for _, g := range nodes {
		g.AwaitReady()
	}
}
