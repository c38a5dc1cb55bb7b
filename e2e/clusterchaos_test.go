package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/internal/testkit/boshclient"
	"holdfast/internal/testkit/cutproxy"
	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/haproxyproc"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/internal/testkit/redisproc"
	"holdfast/internal/testkit/tally"
	"holdfast/internal/testkit/xmppclient"
)

// secure is where clients connect through a balancer, or a proxy in front of it.
func secure(addr string) string { return "wss://" + addr + "/xmpp-websocket" }

// The model clients are further libraries beside strophe and xmppjs.
const (
	model     = "model"
	modelBOSH = "model-bosh"
)

// storm is a cluster behind a balancer, the clients that use it, and what is counted.
type storm struct {
	t        *testing.T
	prefix   string
	redis    *redisproc.Server
	nodes    []*gatewayproc.Gateway
	balancer *haproxyproc.Proxy
	servers  *supervisor
	weather  *weather
	count    *tally.Tally

	names  []string
	models map[string]*modelUser
	bosh   map[string]*boshUser
	stock  map[string]*nodeClient
	// Somebody has a second device, which gets everything too.
	twice  string
	second *boshUser
	copies *tally.Tally

	mu      sync.Mutex
	resumed []time.Duration // from <resume/> to <resumed/>, of the model clients
}

// startStorm makes everything up to clients that are online.
func startStorm(t *testing.T, clients map[string]string) *storm {
	t.Helper()
	s := &storm{
		t: t, prefix: redisproc.Prefix(), redis: redisproc.Standalone(t, redisproc.Durable...), count: new(tally.Tally), copies: new(tally.Tally),
		models: map[string]*modelUser{}, bosh: map[string]*boshUser{}, stock: map[string]*nodeClient{},
	}
	s.nodes = gatewayproc.StartNodes(t, gatewayproc.Cluster{
		RedisURL: s.redis.URL(), Prefix: s.prefix, DatabaseURL: postgresproc.New(t),
		Env: quick(leased(shortLease, map[string]string{
			"HOLDFAST_OFFLINE_LIMIT": "40", // so that some come back
			"HOLDFAST_DRAIN_SPREAD":  "100ms",
			"HOLDFAST_PROFILE":       "true",
		})),
	}, 3)
	var backends []haproxyproc.Backend
	for _, g := range s.nodes {
		backends = append(backends, haproxyproc.Backend{Clients: g.Addr(), Admin: strings.TrimPrefix(g.AdminURL(), "http://")})
	}
	s.balancer = haproxyproc.Start(t, backends...)
	s.servers = supervise(t, s.nodes, s.redis)
	s.weather = &weather{t: t, servers: s.servers}
	for name := range clients {
		s.names = append(s.names, name)
	}
	slices.Sort(s.names)
	s.nodes[0].AddUsers(append([]string{"away"}, s.names...)...)
	for _, name := range s.names {
		switch clients[name] {
		case model:
			u := s.model(name)
			s.models[name] = u
			s.weather.proxies = append(s.weather.proxies, u.proxy)
			continue
		case modelBOSH:
			u := s.modelBOSH(name, len(s.bosh), xmppclient.Account{}, s.count)
			s.bosh[name] = u
			s.weather.proxies = append(s.weather.proxies, u.proxy)
			continue
		}
		p, err := cutproxy.Listen(s.balancer.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		s.weather.proxies = append(s.weather.proxies, p)
		s.stock[name] = startNodeTLS(t, clients[name], name, secure(p.Addr()), s.balancer.File, true, countingEvents(name, s.count, true))
	}
	for _, u := range s.models {
		u.awaitAvailable(t)
	}
	s.twice = "fred"
	s.second = s.modelBOSH(s.twice, 0, account(s.twice, "page"), s.copies)
	s.second.awaitAvailable(t)
	for _, u := range s.bosh {
		u.awaitAvailable(t)
	}
	for _, c := range s.stock {
		c.awaitOnline()
	}
	return s
}

func (s *storm) model(name string) *modelUser {
	return runModel(s.t, name, s.balancer.Addr(), xmppclient.Config{
		Roots:    s.balancer.Roots,
		OnStanza: func(e *xmppclient.Element) { countStanza(name, e, s.count, true) },
		OnAck:    func(id string) { countAck(id, s.count) },
		OnResumed: func(took time.Duration) {
			s.mu.Lock()
			s.resumed = append(s.resumed, took)
			s.mu.Unlock()
		},
	})
}

// modelBOSH runs a client whose requests the balancer hands to one gateway after the other, and counts what it gets.
func (s *storm) modelBOSH(name string, way int, account xmppclient.Account, count *tally.Tally) *boshUser {
	cfg := boshWays[len(boshWays)-1-way%len(boshWays)]
	cfg.Roots, cfg.Wait = s.balancer.Roots, time.Second // less than the balancer's patience
	return runBOSH(s.t, name, s.balancer.Addr(), boshclient.ClientConfig{
		Config:   cfg,
		Account:  account,
		OnStanza: func(e *xmppclient.Element) { countStanza(name, e, count, true) },
		OnAck:    func(id string) { countAck(id, s.count) },
	})
}

// say has a client send the next n messages of a stream.
func (s *storm) say(st tally.Stream, n int) {
	for range n {
		id, xml := chatMessage(st, s.count.Send(st))
		if st.To == s.twice {
			countAck(id, s.copies) // whether it is acknowledged is counted once
			s.copies.Send(st)
		}
		switch {
		case s.models[st.From] != nil:
			s.models[st.From].client.Send(id, xml)
		case s.bosh[st.From] != nil:
			s.bosh[st.From].client.Send(id, xml)
		default:
			s.stock[st.From].chat(id, xml)
		}
	}
}

// TestClusterOnABadNetwork is the delivery contract in one run: stock clients of both libraries and model clients, over
// WebSocket and BOSH, talk through a balancer with a cluster of three, in pairs within and across libraries and to somebody who is away, while
// connections break, gateways are killed, stand still until others take them for dead and are restarted one by one, and
// Redis dies and comes back. What was acknowledged is delivered, came back, or is in offline storage, exactly once and
// in order; and when everybody has left nothing is left in Redis.
func TestClusterOnABadNetwork(t *testing.T) {
	long(t)
	needClients(t)
	messages := 3_000 * scale(t)
	s := startStorm(t, map[string]string{
		"anna": strophe, "bert": xmppjs, "cleo": model, "dora": strophe, "emil": xmppjs, "fred": model,
		"gina": modelBOSH, "hugo": modelBOSH,
	})
	var streams []tally.Stream
	for _, p := range [][2]string{{"anna", "bert"}, {"cleo", "dora"}, {"emil", "fred"}, {"cleo", "fred"}, {"gina", "hugo"}, {"hugo", "anna"}} {
		streams = append(streams, tally.Stream{From: p[0], To: p[1]}, tally.Stream{From: p[1], To: p[0]})
	}
	for _, from := range []string{"anna", "emil", "fred", "gina"} {
		streams = append(streams, tally.Stream{From: from, To: "away"})
	}
	plan := cutproxy.Plan(cutproxy.Script{
		Seed: seed(t), Clients: len(s.names), Servers: len(s.nodes), Pause: 1200 * time.Millisecond, Hold: time.Second,
		Rate: 20_000, Down: time.Second, Freeze: 3 * shortLease,
		Count: map[cutproxy.Kind]int{
			cutproxy.Cut: 16 * scale(t), cutproxy.Stall: 3 * scale(t), cutproxy.HalfOpen: 3 * scale(t), cutproxy.Slow: 2 * scale(t),
			cutproxy.Kill: 6 * scale(t), cutproxy.Pause: 2 * scale(t), cutproxy.Drain: (scale(t) + 2) / 3, cutproxy.StoreKill: scale(t),
		},
	})
	t.Cleanup(func() { s.weather.tell(s.servers) })
	s.weather.carryOut(plan, messages/len(streams), len(streams), func(i, n int) { s.say(streams[i], n) })
	if t.Failed() {
		return
	}
	s.settle()
	s.check()
	s.leave()
}

// settle waits until everything that was sent is acknowledged, and has arrived, came back or waits for who is away,
// who then comes.
func (s *storm) settle() {
	if !await(within(s.t, 60*time.Second), func() bool { c := s.count.Counts(); return c.Acknowledged == c.Sent }) {
		s.stuck()
	}
	s.models["away"] = s.model("away")
	s.names = append(s.names, "away")
	if !await(within(s.t, 30*time.Second), func() bool { return s.count.Counts().Complete() && s.copies.Counts().Complete() }) {
		s.stuck()
	}
	// What would come once too often comes soon.
	await(within(s.t, 2*time.Second), func() bool { return !s.count.Counts().Clean() || !s.copies.Counts().Clean() })
}

// stuck writes down, beside the logs, what the gateways do that nothing goes on.
func (s *storm) stuck() {
	for _, g := range s.nodes {
		if err := os.WriteFile(g.LogFile()+".goroutines", []byte(g.Goroutines()), 0o600); err != nil {
			s.t.Error(err)
		}
	}
}

// check holds the counts to be exact, and sees that enough happened.
func (s *storm) check() {
	t := s.t
	t.Helper()
	for _, name := range s.names {
		if c := s.stock[name]; c != nil {
			c.mu.Lock()
			t.Logf("%s (%s): %d sessions, %d resumptions", name, c.library, c.fresh, c.resumed)
			c.mu.Unlock()
			continue
		}
		if u := s.bosh[name]; u != nil {
			checkBOSH(t, u)
			continue
		}
		u := s.models[name]
		t.Logf("%s: %+v", name, u.client.Stats())
		u.check(t)
	}
	s.mu.Lock()
	slices.Sort(s.resumed)
	if n := len(s.resumed); n > 0 {
		t.Logf("%d resumptions of model clients: median %v, 95 of 100 within %v, longest %v", n, s.resumed[n/2], s.resumed[n*95/100], s.resumed[n-1])
	}
	s.mu.Unlock()
	// What went wrong for a moment and was made good.
	for i, g := range s.nodes {
		told := 0
		for line := range strings.Lines(g.Log()) {
			if strings.Contains(line, "level=ERROR") && !strings.Contains(line, "fenced") && told < 20 {
				told++
				t.Logf("gateway %d: %s", i, strings.TrimSpace(line))
			}
		}
	}
	w := s.weather
	ends := s.servers.ended()
	t.Logf("%v; processes ended by exit code: %v", w, ends)
	report(t, "clients of the cluster", s.count)
	checkBOSH(t, s.second)
	report(t, "the second device", s.copies)
	if w.hit[cutproxy.Kill] < 4 || w.hit[cutproxy.Pause] < 1 || w.hit[cutproxy.Drain] < 1 || w.hit[cutproxy.StoreKill] < 1 || ends[3] < 1 {
		t.Errorf("too little happened: %v; ends %v", w, ends)
	}
	if c := s.count.Counts(); c.Bounced == 0 {
		t.Error("nothing came back from a full mailbox")
	}
}

// leave has everybody log out and the gateways go, and sees what stays in Redis.
func (s *storm) leave() {
	for _, name := range s.names {
		if c := s.stock[name]; c != nil {
			c.awaitOnline()
			c.stop()
			continue
		}
		leave := s.models[name].leave
		if u := s.bosh[name]; u != nil {
			leave = u.leave
		}
		leave(s.t)
	}
	s.second.leave(s.t)
	s.servers.leave(s.prefix)
}

// leftovers lists the keys of a cluster, but for those that expire soon by design: what tells a dead node, should it wake
// up, that it is dead, and what a node made that was killed before it had entered the cluster.
func leftovers(t *testing.T, redis *redisproc.Server, prefix string) []string {
	t.Helper()
	ctx := within(t, 10*time.Second)
	var left []string
	it := redis.Admin().Scan(ctx, 0, prefix+"*", 1000).Iterator()
	for it.Next(ctx) {
		key := it.Val()
		ttl := redis.Admin().PTTL(ctx, key).Val()
		if ttl > 0 && (strings.HasSuffix(key, ":tomb") || strings.HasSuffix(key, ":journal") || strings.HasSuffix(key, ":mailbox") ||
			strings.HasSuffix(key, ":checkpoint") || strings.HasPrefix(key, prefix+"{e:")) {
			continue
		}
		left = append(left, fmt.Sprintf("%s (%s, expires in %v)", key, redis.Admin().Type(ctx, key).Val(), ttl))
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(left)
	return left
}
