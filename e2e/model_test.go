package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/internal/testkit/cutproxy"
	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/tally"
	"holdfast/internal/testkit/xmppclient"
)

// modelUser is a model client behind its own proxy.
type modelUser struct {
	name   string
	proxy  *cutproxy.Proxy
	client *xmppclient.Client
}

// chat numbers and counts messages between users; bodies are "FROM TO N".
func chatMessage(s tally.Stream, n int) (id, xml string) {
	body := fmt.Sprintf("%s %s %d", s.From, s.To, n)
	id = strings.ReplaceAll(body, " ", "-")
	return id, fmt.Sprintf("<message xmlns='jabber:client' type='chat' id='%s' to='%s'><body>%s</body></message>", id, bare(s.To), body)
}

// chatBody reads a body made by chatMessage.
func chatBody(body string) (tally.Stream, int, bool) {
	f := strings.Fields(body)
	if len(f) != 3 {
		return tally.Stream{}, 0, false
	}
	n, err := strconv.Atoi(f[2])
	return tally.Stream{From: f[0], To: f[1]}, n, err == nil
}

func chatID(id string) (tally.Stream, int, bool) {
	return chatBody(strings.ReplaceAll(id, "-", " "))
}

func startModel(t *testing.T, g *gatewayproc.Gateway, name string, count *tally.Tally) *modelUser {
	t.Helper()
	return runModel(t, name, g.Addr(), xmppclient.Config{
		OnStanza: func(e *xmppclient.Element) { countStanza(name, e, count, false) },
		OnAck:    func(id string) { countAck(id, count) },
	})
}

// countStanza counts what a client got. Unless bounces may come, an error is a fault.
func countStanza(name string, e *xmppclient.Element, count *tally.Tally, bounces bool) {
	if e.Name.Local != "message" {
		return
	}
	if e.Attr("type") == "error" && bounces {
		if s, n, ok := chatID(e.Attr("id")); ok && s.From == name {
			count.Bounce(s, n)
			return
		}
	}
	body := e.Child("", "body")
	if e.Attr("type") == "error" || body == nil {
		count.Fault("%s got %v", name, e)
		return
	}
	s, n, ok := chatBody(body.Text)
	if !ok || s.To != name || !strings.HasPrefix(e.Attr("from"), bare(s.From)+"/") {
		count.Fault("%s got %v", name, e)
		return
	}
	count.Arrive(s, n)
}

func countAck(id string, count *tally.Tally) {
	if s, n, ok := chatID(id); ok {
		count.Acknowledge(s, n)
	}
}

// runModel runs a model client behind a proxy of its own in front of target.
func runModel(t *testing.T, name, target string, cfg xmppclient.Config) *modelUser {
	t.Helper()
	p, err := cutproxy.Listen(target)
	if err != nil {
		t.Fatal(err)
	}
	cfg.URL, cfg.Account = gatewayproc.WebSocketURL(p.Addr()), account(name, "model")
	if cfg.Roots != nil {
		cfg.URL = secure(p.Addr())
	}
	u := &modelUser{name: name, proxy: p, client: xmppclient.New(cfg)}
	runUser(t, u)
	return u
}

// runUser runs the client until the test ends.
func runUser(t *testing.T, u *modelUser) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { u.client.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		run.Wait()
		u.proxy.Close()
	})
}

// awaitAvailable waits until the server has handled what was sent so far, the initial presence included: before that
// messages to the user would go to offline storage, which has its cap.
func (u *modelUser) awaitAvailable(t *testing.T) {
	t.Helper()
	err := u.client.Await(within(t, 20*time.Second), func() bool { return u.client.Online() && u.client.Unacknowledged() == 0 })
	if err != nil {
		t.Fatalf("%s does not become available: %v", u.name, err)
	}
}

// leave logs out.
func (u *modelUser) leave(t *testing.T) {
	t.Helper()
	if err := u.client.Leave(within(t, 15*time.Second)); err != nil {
		t.Errorf("%s does not get away: %v", u.name, err)
	}
}

// check sees that the client had one session and found no fault with the gateway.
func (u *modelUser) check(t *testing.T) {
	t.Helper()
	s := u.client.Stats()
	for _, f := range u.client.Faults() {
		t.Errorf("%s: the gateway broke a rule: %s", u.name, f)
	}
	if s.Bound != 1 || s.Refused != 0 {
		t.Errorf("%s: %d sessions, %d resumptions refused; every session should have been resumed", u.name, s.Bound, s.Refused)
	}
}

// awaitOnline waits until the client has a session on a connection.
func (u *modelUser) awaitOnline(t *testing.T) {
	t.Helper()
	if err := u.client.Await(within(t, 20*time.Second), u.client.Online); err != nil {
		t.Fatalf("%s does not come back: %v; %+v", u.name, err, u.client.Stats())
	}
}

// TestModelClientsOnABadNetwork holds the gateway to the delivery contract with clients that do no more and no less
// than XEP-0198 says: whatever happens, every message arrives once and in order.
func TestModelClientsOnABadNetwork(t *testing.T) {
	long(t)
	messages := 10_000 * scale(t)
	g := gatewayproc.Start(t, nil)
	names := []string{"anna", "bert", "cleo", "dora"}
	g.AddUsers(names...)
	count := new(tally.Tally)
	var users []*modelUser
	for _, n := range names {
		users = append(users, startModel(t, g, n, count))
	}
	for _, u := range users {
		u.awaitAvailable(t)
	}
	streams := []tally.Stream{{From: "anna", To: "bert"}, {From: "bert", To: "anna"}, {From: "cleo", To: "dora"}, {From: "dora", To: "cleo"}}
	say := func(i, n int) {
		for range n {
			id, xml := chatMessage(streams[i], count.Send(streams[i]))
			users[i].client.Send(id, xml)
		}
	}
	plan := cutproxy.Plan(cutproxy.Script{
		Seed: seed(t), Clients: len(users), Pause: 300 * time.Millisecond, Hold: 1500 * time.Millisecond, Rate: 20_000,
		Count: map[cutproxy.Kind]int{
			cutproxy.Cut: 50 * scale(t), cutproxy.Stall: 12 * scale(t), cutproxy.HalfOpen: 8 * scale(t),
			cutproxy.Slow: 6 * scale(t), cutproxy.Kill: 5 * scale(t),
		},
	})
	w := &weather{t: t, servers: lone{g}, proxies: make([]*cutproxy.Proxy, len(users))}
	for i, u := range users {
		w.proxies[i] = u.proxy
	}
	w.carryOut(plan, messages/len(streams), len(streams), say)

	await(within(t, 60*time.Second), func() bool { return count.Counts().Complete() })
	// What would come once too often comes soon.
	await(within(t, time.Second), func() bool { return !count.Counts().Clean() })
	var resumed, bound, refused int
	for _, u := range users {
		s := u.client.Stats()
		t.Logf("%s: %d connections, %d sessions, resumed %d, refused %d, ended %v", u.name, s.Connected, s.Bound, s.Resumed, s.Refused, s.Ended)
		resumed, bound, refused = resumed+s.Resumed, bound+s.Bound, refused+s.Refused
		for _, f := range u.client.Faults() {
			t.Errorf("%s: the gateway broke a rule: %s", u.name, f)
		}
	}
	t.Logf("%v", w)
	report(t, "model clients", count)
	if refused > 0 || bound != len(users) {
		t.Errorf("%d sessions bound, %d resumptions refused; every session should have been resumed", bound, refused)
	}
	if w.hit[cutproxy.Cut] < 40 || w.hit[cutproxy.Kill] < 5 || resumed < 30 {
		t.Errorf("too little happened: %v, resumed %d", w, resumed)
	}
}

// report prints the counts and holds them to be exact.
func report(t *testing.T, who string, count *tally.Tally) {
	t.Helper()
	c := count.Counts()
	t.Logf("%s: %v", who, c)
	if !c.Clean() || !c.Complete() {
		t.Errorf("%s: %v\n%s", who, c, count.Faults())
	}
}

// await polls for what comes from outside of this process.
func await(ctx context.Context, cond func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
