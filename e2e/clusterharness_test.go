package e2e

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/internal/testkit/redisproc"
	"holdfast/internal/testkit/tally"
	"holdfast/internal/testkit/xmppclient"
)

// After a lease others take a node for dead that shows nothing, and on a machine that stalls one that lives may show
// nothing for a while. The ordinary one is for tests that kill nodes: nobody is suspected before it.
const (
	lease      = 2500 * time.Millisecond
	shortLease = time.Second      // where a node stands still until others take it for dead
	longLease  = 15 * time.Second // where none dies
)

// leased adds a lease to the settings of a cluster.
func leased(lease time.Duration, more map[string]string) map[string]string {
	env := map[string]string{"HOLDFAST_CLUSTER_LEASE": lease.String()}
	maps.Copy(env, more)
	return env
}

// quick are the settings of a cluster that notices soon.
func quick(more map[string]string) map[string]string {
	env := map[string]string{
		"HOLDFAST_CLUSTER_BEAT":      "200ms",
		"HOLDFAST_CLUSTER_LEASE":     lease.String(),
		"HOLDFAST_CLUSTER_HOME_TIME": "3s",
		"HOLDFAST_ENDED_SESSIONS":    "0",
		"HOLDFAST_LOG_LEVEL":         "debug",
	}
	maps.Copy(env, more)
	return env
}

// startCluster runs n gateways over the Redis that the tests share and a database of their own.
func startCluster(t *testing.T, n int, more map[string]string) []*gatewayproc.Gateway {
	t.Helper()
	return startClusterOn(t, redisproc.Shared(t).URL(), n, more)
}

func startClusterOn(t *testing.T, redisURL string, n int, more map[string]string) []*gatewayproc.Gateway {
	t.Helper()
	nodes := startAny(t, redisURL, n, more)
	t.Cleanup(func() { noErrors(t, nodes, "level=ERROR") })
	return nodes
}

// startTroubled runs two gateways that will have errors to log, because a store goes away.
func startTroubled(t *testing.T, redisURL string, more map[string]string) []*gatewayproc.Gateway {
	t.Helper()
	nodes := startAny(t, redisURL, 2, more)
	t.Cleanup(func() { noErrors(t, nodes, "panic:") })
	return nodes
}

func startAny(t *testing.T, redisURL string, n int, more map[string]string) []*gatewayproc.Gateway {
	t.Helper()
	nodes := gatewayproc.StartNodes(t, gatewayproc.Cluster{
		RedisURL: redisURL, Prefix: redisproc.Prefix(), DatabaseURL: postgresproc.New(t), Env: quick(more),
	}, n)
	awaitMembers(t, nodes, n)
	return nodes
}

// noErrors sees that no gateway panicked, or logged what must not happen.
func noErrors(t *testing.T, nodes []*gatewayproc.Gateway, sign string) {
	t.Helper()
	for i, g := range nodes {
		for line := range strings.Lines(g.Log()) {
			if strings.Contains(line, "panic:") || strings.Contains(line, sign) && !strings.Contains(line, "msg=\"fenced") {
				t.Errorf("gateway %d: %s", i, strings.TrimSpace(line))
				break
			}
		}
	}
}

// metric is the value of one of a gateway's metrics, -1 when it has none of that name.
func metric(g *gatewayproc.Gateway, name string) float64 {
	for line := range strings.Lines(g.Metrics()) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			if v, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
				return v
			}
		}
	}
	return -1
}

// awaitMembers waits until each of the gateways that run sees n.
func awaitMembers(t *testing.T, nodes []*gatewayproc.Gateway, n int) {
	t.Helper()
	see := func() bool {
		for _, g := range nodes {
			if g.Alive() && metric(g, "holdfast_cluster_members") != float64(n) {
				return false
			}
		}
		return true
	}
	if !await(within(t, 20*time.Second), see) {
		for i, g := range nodes {
			t.Errorf("gateway %d (alive %v) sees %v members, want %d", i, g.Alive(), metric(g, "holdfast_cluster_members"), n)
		}
		t.FailNow()
	}
}

// ack asks how many of the user's stanzas are settled, until it is n.
func (u *user) ack(n int) {
	u.t.Helper()
	u.send("<r xmlns='urn:xmpp:sm:3'/>")
	u.expect(fmt.Sprintf("the acknowledgement of %d", n), func(e *xmppclient.Element) bool {
		return e.Is(xmppclient.NSSM, "a") && e.Attr("h") == strconv.Itoa(n)
	})
}

// resume comes back on g to the session with that id; had is the client before. It returns the count that the gateway
// gave, and how long it took from <resume/> to <resumed/>.
func resume(t *testing.T, g *gatewayproc.Gateway, name, id string, had *user) (u *user, handled string, took time.Duration) {
	t.Helper()
	ctx := within(t, 10*time.Second)
	c, err := xmppclient.Dial(ctx, g.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Abort)
	if err := c.Prepare(ctx, account(name, "")); err != nil {
		t.Fatalf("%s comes back: %v", name, err)
	}
	u = &user{Conn: c, t: t, stanzas: had.stanzas}
	u.JID = had.JID
	start := time.Now()
	u.send(fmt.Sprintf("<resume xmlns='urn:xmpp:sm:3' h='%d' previd='%s'/>", had.stanzas, id))
	e := u.expect("<resumed/>", func(e *xmppclient.Element) bool { return e.Name.Space == xmppclient.NSSM })
	if !e.Is(xmppclient.NSSM, "resumed") {
		t.Fatalf("%s wants to resume and gets %v", name, e)
	}
	return u, e.Attr("h"), time.Since(start)
}

// chat sends a message with this text.
func (u *user) chat(to, text string) {
	u.t.Helper()
	u.send(fmt.Sprintf("<message xmlns='jabber:client' type='chat' id='%s' to='%s'><body>%s</body></message>", strings.ReplaceAll(text, " ", "-"), to, text))
}

// inOrder waits for messages with these bodies, and for no others between them.
func (u *user) inOrder(bodies ...string) {
	u.t.Helper()
	for _, want := range bodies {
		m := u.expect("the message "+want, func(e *xmppclient.Element) bool { return e.Name.Local == "message" })
		if b := m.Child("", "body"); b == nil || b.Text != want {
			u.t.Errorf("%s got %v, want %s", u.JID, m, want)
		}
	}
}

// silent sees that no message has come that nobody expected, up to the answer to a ping.
func (u *user) silent() {
	u.t.Helper()
	u.alive()
	for _, e := range u.skipped {
		if e.Name.Local == "message" {
			u.t.Errorf("%s got %v as well", u.JID, e)
		}
	}
}

// pair is two model clients that talk to each other.
type pair struct {
	count       *tally.Tally
	a, b        *modelUser
	there, back tally.Stream
}

func startPair(t *testing.T, a, b *gatewayproc.Gateway, first, second string) *pair {
	t.Helper()
	p := &pair{
		count: new(tally.Tally),
		there: tally.Stream{From: first, To: second}, back: tally.Stream{From: second, To: first},
	}
	p.a, p.b = startModel(t, a, first, p.count), startModel(t, b, second, p.count)
	p.a.awaitAvailable(t)
	p.b.awaitAvailable(t)
	return p
}

// say sends n messages each way.
func (p *pair) say(n int) {
	for range n {
		id, xml := chatMessage(p.there, p.count.Send(p.there))
		p.a.client.Send(id, xml)
		id, xml = chatMessage(p.back, p.count.Send(p.back))
		p.b.client.Send(id, xml)
	}
}

// finish waits for everything, and sees that nothing is lost, repeated or out of order, and no session was lost.
func (p *pair) finish(t *testing.T) {
	t.Helper()
	await(within(t, 30*time.Second), func() bool { return p.count.Counts().Complete() })
	await(within(t, 500*time.Millisecond), func() bool { return !p.count.Counts().Clean() })
	report(t, p.a.name+" and "+p.b.name, p.count)
	for _, u := range []*modelUser{p.a, p.b} {
		s := u.client.Stats()
		t.Logf("%s: %+v", u.name, s)
		if s.Bound != 1 || s.Refused != 0 {
			t.Errorf("%s: %d sessions, %d resumptions refused", u.name, s.Bound, s.Refused)
		}
		for _, f := range u.client.Faults() {
			t.Errorf("%s: the gateway broke a rule: %s", u.name, f)
		}
	}
}
