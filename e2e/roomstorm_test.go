package e2e

import (
	"fmt"
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

const nsMUC = "http://jabber.org/protocol/muc"

// roomAddr is a room of the gateways that the tests run.
func roomAddr(name string) string { return name + "@conference." + gatewayproc.Domain }

// entering is the presence by which one enters a room, without its history.
func entering(room, nick string) string {
	return "<presence xmlns='jabber:client' id='enter' to='" + room + "/" + nick + "'><x xmlns='" + nsMUC + "'><history maxstanzas='0'/></x></presence>"
}

// plaza is a room whose occupants are model clients. Each of them has to get every message of each, once and in order, and
// all of them in the same one; and nobody may seem to leave.
type plaza struct {
	t     *testing.T
	room  string
	names []string
	heard map[string]*tally.Tally

	mu      sync.Mutex
	entered map[string]bool
	order   map[string][]string // ids that the room gave
	users   map[string]interface{ Send(id, xml string) }
}

func newPlaza(t *testing.T, names ...string) *plaza {
	p := &plaza{
		t: t, room: roomAddr("plaza"), names: names, heard: map[string]*tally.Tally{}, entered: map[string]bool{}, order: map[string][]string{},
		users: map[string]interface{ Send(id, xml string) }{},
	}
	for _, name := range names {
		p.heard[name] = new(tally.Tally)
	}
	return p
}

// stanza counts what an occupant got.
func (p *plaza) stanza(name string, e *xmppclient.Element) {
	count := p.heard[name]
	if e.Attr("type") == "error" || e.Name.Local == "iq" && e.Attr("type") != "get" {
		count.Fault("%s got %v", name, e)
		return
	}
	if !strings.HasPrefix(e.Attr("from"), p.room+"/") {
		return
	}
	nick := strings.TrimPrefix(e.Attr("from"), p.room+"/")
	switch e.Name.Local {
	case "presence":
		if e.Attr("type") != "" {
			count.Fault("%s got %v", name, e)
			return
		}
		if nick == name {
			p.mu.Lock()
			p.entered[name] = true
			p.mu.Unlock()
		}
	case "message":
		body := e.Child("", "body")
		if body == nil {
			return // the subject
		}
		s, n, ok := chatBody(body.Text)
		if !ok || s.From != nick || e.Attr("type") != "groupchat" {
			count.Fault("%s got %v", name, e)
			return
		}
		p.mu.Lock()
		p.order[name] = append(p.order[name], roomID(e, p.room))
		p.mu.Unlock()
		count.Arrive(s, n)
	}
}

// roomID is the id that a room gave a message (XEP-0359).
func roomID(e *xmppclient.Element, room string) string {
	for _, c := range e.Children {
		if c.Is("urn:xmpp:sid:0", "stanza-id") && c.Attr("by") == room {
			return c.Attr("id")
		}
	}
	return ""
}

func (p *plaza) ack(id string) {
	for _, count := range p.heard {
		countAck(id, count)
	}
}

// enter has everybody enter, and returns when all are in.
func (p *plaza) enter() {
	p.t.Helper()
	for _, name := range p.names {
		p.users[name].Send("enter", entering(p.room, name))
	}
	all := func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.entered) == len(p.names)
	}
	if !await(within(p.t, 20*time.Second), all) {
		p.t.Fatalf("only %v are in the room", p.entered)
	}
}

// say has an occupant send n messages.
func (p *plaza) say(i, n int) {
	s := tally.Stream{From: p.names[i], To: "plaza"}
	for range n {
		var number int
		for _, name := range p.names {
			number = p.heard[name].Send(s)
		}
		id := fmt.Sprintf("%s-plaza-%d", s.From, number)
		p.users[s.From].Send(id, fmt.Sprintf("<message xmlns='jabber:client' type='groupchat' id='%s' to='%s'><body>%s</body></message>",
			id, p.room, strings.ReplaceAll(id, "-", " ")))
	}
}

// finish waits for everything, and checks it.
func (p *plaza) finish() {
	t := p.t
	t.Helper()
	all := func(f func(tally.Counts) bool) bool {
		for _, count := range p.heard {
			if !f(count.Counts()) {
				return false
			}
		}
		return true
	}
	await(within(t, 60*time.Second), func() bool { return all(tally.Counts.Complete) })
	await(within(t, time.Second), func() bool { return !all(tally.Counts.Clean) })
	for _, name := range p.names {
		report(t, "in the room, "+name, p.heard[name])
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.order[p.names[0]]
	if slices.Contains(first, "") {
		t.Error("the room gave a message no id")
	}
	for _, name := range p.names[1:] {
		if !slices.Equal(p.order[name], first) {
			t.Errorf("%s and %s saw the messages in different orders", p.names[0], name)
		}
	}
}

// model runs a client over WebSocket.
func (p *plaza) model(name, target string, cfg xmppclient.Config) *modelUser {
	cfg.OnStanza = func(e *xmppclient.Element) { p.stanza(name, e) }
	cfg.OnAck = p.ack
	u := runModel(p.t, name, target, cfg)
	p.users[name] = u.client
	u.awaitAvailable(p.t)
	return u
}

// bosh runs a client over BOSH.
func (p *plaza) bosh(name, target string, cfg boshclient.Config) *boshUser {
	u := runBOSH(p.t, name, target, boshclient.ClientConfig{
		Config: cfg, OnStanza: func(e *xmppclient.Element) { p.stanza(name, e) }, OnAck: p.ack,
	})
	p.users[name] = u.client
	u.awaitAvailable(p.t)
	return u
}

// TestRoomOnABadNetwork: through cuts of every kind and kills of the gateway, a room sends everybody everything once.
func TestRoomOnABadNetwork(t *testing.T) {
	long(t)
	messages := 2_000 * scale(t)
	g := gatewayproc.Start(t, nil)
	p := newPlaza(t, "anna", "bert", "cleo", "dora")
	g.AddUsers(p.names...)
	w := &weather{t: t, servers: lone{g}}
	var models []*modelUser
	for _, name := range p.names[:3] {
		u := p.model(name, g.Addr(), xmppclient.Config{})
		models = append(models, u)
		w.proxies = append(w.proxies, u.proxy)
	}
	last := p.bosh("dora", g.Addr(), boshWays[0])
	w.proxies = append(w.proxies, last.proxy)
	p.enter()
	plan := cutproxy.Plan(cutproxy.Script{
		Seed: seed(t), Clients: len(p.names), Pause: 300 * time.Millisecond, Hold: time.Second, Rate: 20_000,
		Count: map[cutproxy.Kind]int{
			cutproxy.Cut: 20 * scale(t), cutproxy.Stall: 3 * scale(t), cutproxy.HalfOpen: 3 * scale(t), cutproxy.Slow: 2 * scale(t), cutproxy.Kill: 6 * scale(t),
		},
	})
	w.carryOut(plan, messages/len(p.names), len(p.names), p.say)
	p.finish()
	t.Logf("%v", w)
	for _, u := range models {
		u.check(t)
	}
	checkBOSH(t, last)
	if w.hit[cutproxy.Cut] < 15 || w.hit[cutproxy.Kill] < 6 {
		t.Errorf("too little happened: %v", w)
	}
}

// TestClusterRoomOnABadNetwork is the same with three gateways behind a balancer, which are killed, stand still until others
// take them for dead, and are restarted one by one, the room's home as well as those of its occupants; and Redis dies too.
func TestClusterRoomOnABadNetwork(t *testing.T) {
	long(t)
	messages := 1_500 * scale(t)
	redis := redisproc.Standalone(t, redisproc.Durable...)
	prefix := redisproc.Prefix()
	nodes := gatewayproc.StartNodes(t, gatewayproc.Cluster{
		RedisURL: redis.URL(), Prefix: prefix, DatabaseURL: postgresproc.New(t), Env: quick(leased(shortLease, map[string]string{"HOLDFAST_DRAIN_SPREAD": "100ms"})),
	}, 3)
	var backends []haproxyproc.Backend
	for _, g := range nodes {
		backends = append(backends, haproxyproc.Backend{Clients: g.Addr(), Admin: strings.TrimPrefix(g.AdminURL(), "http://")})
	}
	balancer := haproxyproc.Start(t, backends...)
	servers := supervise(t, nodes, redis)
	w := &weather{t: t, servers: servers}
	p := newPlaza(t, "anna", "bert", "cleo", "dora")
	nodes[0].AddUsers(p.names...)
	var models []*modelUser
	for _, name := range p.names[:3] {
		u := p.model(name, balancer.Addr(), xmppclient.Config{Roots: balancer.Roots})
		models = append(models, u)
		w.proxies = append(w.proxies, u.proxy)
	}
	way := boshWays[1]
	way.Roots, way.Wait = balancer.Roots, time.Second
	last := p.bosh("dora", balancer.Addr(), way)
	w.proxies = append(w.proxies, last.proxy)
	p.enter()
	t.Cleanup(func() { w.tell(servers) })
	plan := cutproxy.Plan(cutproxy.Script{
		Seed: seed(t), Clients: len(p.names), Servers: len(nodes), Pause: 1200 * time.Millisecond, Hold: time.Second,
		Rate: 20_000, Down: time.Second, Freeze: 3 * shortLease,
		Count: map[cutproxy.Kind]int{
			cutproxy.Cut: 6 * scale(t), cutproxy.Stall: scale(t), cutproxy.HalfOpen: scale(t),
			cutproxy.Kill: 5 * scale(t), cutproxy.Pause: 2 * scale(t), cutproxy.Drain: (scale(t) + 2) / 3, cutproxy.StoreKill: scale(t),
		},
	})
	w.carryOut(plan, messages/len(p.names), len(p.names), p.say)
	if t.Failed() {
		return
	}
	p.finish()
	t.Logf("%v; processes ended by exit code: %v", w, servers.ended())
	for _, u := range models {
		u.check(t)
		u.leave(t)
	}
	checkBOSH(t, last)
	last.leave(t)
	// When everybody has left there is no room any more, and nothing of it.
	empty := func() bool {
		for _, g := range nodes {
			if metric(g, "holdfast_session_hosted") != 0 {
				return false
			}
		}
		return true
	}
	if !await(within(t, 10*time.Second), empty) {
		t.Error("the room does not end")
	}
	servers.leave(prefix)
}
