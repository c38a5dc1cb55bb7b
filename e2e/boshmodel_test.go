package e2e

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/internal/testkit/boshclient"
	"holdfast/internal/testkit/cutproxy"
	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/tally"
	"holdfast/internal/testkit/xmppclient"
)

// boshUser is a model client over BOSH behind its own proxy.
type boshUser struct {
	name   string
	proxy  *cutproxy.Proxy
	client *boshclient.Client
}

// runBOSH runs a model client over BOSH behind a proxy of its own in front of target; with Roots it speaks TLS. Its account is
// that of name where cfg has none.
func runBOSH(t *testing.T, name, target string, cfg boshclient.ClientConfig) *boshUser {
	t.Helper()
	p, err := cutproxy.Listen(target)
	if err != nil {
		t.Fatal(err)
	}
	cfg.URL = gatewayproc.BOSHURL(p.Addr())
	if cfg.Account.User == "" {
		cfg.Account = account(name, "model")
	}
	if cfg.Roots != nil {
		cfg.URL = "https" + cfg.URL[len("http"):]
	}
	u := &boshUser{name: name, proxy: p, client: boshclient.New(cfg)}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { u.client.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		run.Wait()
		p.Close()
	})
	return u
}

// awaitAvailable is as modelUser's.
func (u *boshUser) awaitAvailable(t *testing.T) {
	t.Helper()
	err := u.client.Await(within(t, 20*time.Second), func() bool { return u.client.Online() && u.client.Unacknowledged() == 0 })
	if err != nil {
		t.Fatalf("%s does not become available: %v; %+v, %q", u.name, err, u.client.Stats(), u.client.Faults())
	}
}

// leave logs out.
func (u *boshUser) leave(t *testing.T) {
	t.Helper()
	if err := u.client.Leave(within(t, 15*time.Second)); err != nil {
		t.Errorf("%s does not get away: %v; %+v", u.name, err, u.client.Stats())
	}
}

// boshWays are the ways in which the model clients differ: whether they acknowledge, whether keys protect them, how much
// goes in one request.
var boshWays = []boshclient.Config{
	{RepeatEvery: 3, Batch: 2},
	{RepeatEvery: 3, Acks: true},
	{RepeatEvery: 3, Keys: 20},
	{RepeatEvery: 3, Acks: true, Keys: 50, Batch: 2},
}

// TestBOSHModelClientsOnABadNetwork is TestModelClientsOnABadNetwork over BOSH: with nothing but rids and what is sent
// again after a lost connection, every session goes on through everything, a kill of the gateway included, and every
// message arrives once and in order.
func TestBOSHModelClientsOnABadNetwork(t *testing.T) {
	long(t)
	messages := 10_000 * scale(t)
	g := gatewayproc.Start(t, nil)
	names := []string{"anna", "bert", "cleo", "dora"}
	g.AddUsers(names...)
	count := new(tally.Tally)
	w := &weather{t: t, servers: lone{g}}
	var users []*boshUser
	for i, n := range names {
		u := runBOSH(t, n, g.Addr(), boshclient.ClientConfig{
			Config:   boshWays[i],
			OnStanza: func(e *xmppclient.Element) { countStanza(n, e, count, false) },
			OnAck:    func(id string) { countAck(id, count) },
		})
		users = append(users, u)
		w.proxies = append(w.proxies, u.proxy)
	}
	for _, u := range users {
		u.awaitAvailable(t)
	}
	streams := []tally.Stream{{From: "anna", To: "bert"}, {From: "bert", To: "anna"}, {From: "cleo", To: "dora"}, {From: "dora", To: "cleo"}}
	plan := cutproxy.Plan(cutproxy.Script{
		Seed: seed(t), Clients: len(users), Pause: 300 * time.Millisecond, Hold: 1500 * time.Millisecond, Rate: 20_000,
		Count: map[cutproxy.Kind]int{
			cutproxy.Cut: 50 * scale(t), cutproxy.Stall: 12 * scale(t), cutproxy.HalfOpen: 8 * scale(t),
			cutproxy.Slow: 6 * scale(t), cutproxy.Kill: 5 * scale(t),
		},
	})
	w.carryOut(plan, messages/len(streams), len(streams), func(i, n int) {
		for range n {
			id, xml := chatMessage(streams[i], count.Send(streams[i]))
			users[i].client.Send(id, xml)
		}
	})

	await(within(t, 60*time.Second), func() bool { return count.Counts().Complete() })
	// What would come once too often comes soon.
	await(within(t, time.Second), func() bool { return !count.Counts().Clean() })
	t.Logf("%v", w)
	report(t, "model clients over BOSH", count)
	retried := 0
	for _, u := range users {
		retried += checkBOSH(t, u)
	}
	if w.hit[cutproxy.Cut] < 40 || w.hit[cutproxy.Kill] < 5 || retried < 30 {
		t.Errorf("too little happened: %v, %d requests sent again", w, retried)
	}
	for _, u := range users {
		u.leave(t)
	}
}

// checkBOSH sees that a model client had one session and found no fault with it, and returns how often it sent a request
// again for want of an answer.
func checkBOSH(t *testing.T, u *boshUser) (retried int) {
	t.Helper()
	s := u.client.Stats()
	t.Logf("%s: %+v", u.name, s)
	for _, f := range u.client.Faults() {
		t.Errorf("%s: the gateway broke a rule: %s", u.name, f)
	}
	if s.Bound != 1 || s.Repeated == 0 {
		t.Errorf("%s: %d sessions, %d answers repeated", u.name, s.Bound, s.Repeated)
	}
	return s.Retried
}

// TestBOSHDrain is TestDrain over BOSH: held requests are let go, those that come then are told to come back later, and
// the sessions go on when the gateway is there again.
func TestBOSHDrain(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, nil)
	g.AddUsers("anna", "bert")
	count := new(tally.Tally)
	users := map[string]*boshUser{}
	for i, n := range []string{"anna", "bert"} {
		users[n] = runBOSH(t, n, g.Addr(), boshclient.ClientConfig{
			Config:   boshWays[i],
			OnStanza: func(e *xmppclient.Element) { countStanza(n, e, count, false) },
			OnAck:    func(id string) { countAck(id, count) },
		})
	}
	say := func(n int) {
		for range n {
			for _, s := range []tally.Stream{{From: "anna", To: "bert"}, {From: "bert", To: "anna"}} {
				id, xml := chatMessage(s, count.Send(s))
				users[s.From].client.Send(id, xml)
			}
		}
	}
	for range 3 {
		for _, u := range users {
			u.awaitAvailable(t)
		}
		say(300)
		code, took := g.Term(25 * time.Second)
		if code != 0 {
			t.Fatalf("exit code %d", code)
		}
		t.Logf("ended %v after SIGTERM", took)
		if took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		say(300)
		g.Run()
	}
	await(within(t, 30*time.Second), func() bool { return count.Counts().Complete() })
	report(t, "drain over BOSH", count)
	for _, u := range users {
		checkBOSH(t, u)
		u.leave(t)
	}
	if log := g.Log(); strings.Contains(log, "panic") || strings.Contains(log, "level=ERROR") {
		t.Errorf("errors in the log")
	}
}

// TestChangingTransportsOnABadNetwork: clients with XEP-0198 come back over BOSH when their WebSocket broke and over
// WebSocket when a request got no answer, and resume the same session, also after a kill of the gateway.
func TestChangingTransportsOnABadNetwork(t *testing.T) {
	long(t)
	messages := 4_000 * scale(t)
	g := gatewayproc.Start(t, nil)
	names := []string{"anna", "bert"}
	g.AddUsers(names...)
	count := new(tally.Tally)
	w := &weather{t: t, servers: lone{g}}
	var users []*modelUser
	var dials [2]atomic.Int64
	for _, n := range names {
		p, err := cutproxy.Listen(g.Addr())
		if err != nil {
			t.Fatal(err)
		}
		var turn int
		u := &modelUser{name: n, proxy: p, client: xmppclient.New(xmppclient.Config{
			Account:  account(n, "model"),
			OnStanza: func(e *xmppclient.Element) { countStanza(n, e, count, false) },
			OnAck:    func(id string) { countAck(id, count) },
			Dial: func(ctx context.Context) (*xmppclient.Conn, error) {
				turn++
				dials[turn%2].Add(1)
				if turn%2 == 0 {
					return xmppclient.Dial(ctx, gatewayproc.WebSocketURL(p.Addr()))
				}
				return boshclient.Dial(boshclient.Config{URL: gatewayproc.BOSHURL(p.Addr()), Domain: gatewayproc.Domain, Once: true}), nil
			},
		})}
		runUser(t, u)
		users = append(users, u)
		w.proxies = append(w.proxies, p)
	}
	for _, u := range users {
		u.awaitAvailable(t)
	}
	streams := []tally.Stream{{From: "anna", To: "bert"}, {From: "bert", To: "anna"}}
	plan := cutproxy.Plan(cutproxy.Script{
		Seed: seed(t), Clients: len(users), Pause: 300 * time.Millisecond, Hold: 1500 * time.Millisecond, Rate: 20_000,
		Count: map[cutproxy.Kind]int{
			cutproxy.Cut: 30 * scale(t), cutproxy.Stall: 4 * scale(t), cutproxy.HalfOpen: 4 * scale(t), cutproxy.Kill: 4 * scale(t),
		},
	})
	w.carryOut(plan, messages/len(streams), len(streams), func(i, n int) {
		for range n {
			id, xml := chatMessage(streams[i], count.Send(streams[i]))
			users[i].client.Send(id, xml)
		}
	})
	await(within(t, 60*time.Second), func() bool { return count.Counts().Complete() })
	await(within(t, time.Second), func() bool { return !count.Counts().Clean() })
	t.Logf("%v; %d times over WebSocket, %d over BOSH", w, dials[0].Load(), dials[1].Load())
	report(t, "clients that change transports", count)
	resumed := 0
	for _, u := range users {
		s := u.client.Stats()
		t.Logf("%s: %+v", u.name, s)
		resumed += s.Resumed
		for _, f := range u.client.Faults() {
			t.Errorf("%s: the gateway broke a rule: %s", u.name, f)
		}
		if s.Bound != 1 || s.Refused > 0 {
			t.Errorf("%s: %d sessions, %d resumptions refused", u.name, s.Bound, s.Refused)
		}
	}
	if resumed < 15 || dials[0].Load() < 10 || dials[1].Load() < 10 {
		t.Errorf("too little happened: %v, resumed %d", w, resumed)
	}
}
