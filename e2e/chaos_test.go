package e2e

import (
	"testing"
	"time"

	"holdfast/internal/testkit/cutproxy"
	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/tally"
	"holdfast/internal/testkit/xmppclient"
)

// TestStockClientsOnABadNetwork lets two clients of each library talk, both ways, over a network that breaks, with a
// gateway that is killed now and then. Each comes back and resumes with its own stream management. What the drivers
// have to do besides, because the libraries leave it to the app or get it wrong, is listed at their heads.
func TestStockClientsOnABadNetwork(t *testing.T) {
	long(t)
	needClients(t)
	messages := 10_000 * scale(t)
	g := gatewayproc.Start(t, nil)
	names := []string{"anna", "bert", "cleo", "dora"}
	libraries := []string{strophe, xmppjs, strophe, xmppjs}
	streams := []tally.Stream{{From: "anna", To: "bert"}, {From: "bert", To: "anna"}, {From: "cleo", To: "dora"}, {From: "dora", To: "cleo"}}
	g.AddUsers(names...)
	count := new(tally.Tally)
	w := &weather{t: t, servers: lone{g}}
	var users []*nodeClient
	for i, name := range names {
		p, err := cutproxy.Listen(g.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		w.proxies = append(w.proxies, p)
		users = append(users, startNode(t, libraries[i], name, gatewayproc.WebSocketURL(p.Addr()), true, counting(name, count)))
	}
	for _, u := range users {
		u.awaitOnline()
	}
	plan := cutproxy.Plan(cutproxy.Script{
		Seed: seed(t), Clients: len(users), Pause: 1200 * time.Millisecond, Hold: 1500 * time.Millisecond, Rate: 20_000,
		Count: map[cutproxy.Kind]int{
			cutproxy.Cut: 50 * scale(t), cutproxy.Stall: 10 * scale(t), cutproxy.HalfOpen: 6 * scale(t),
			cutproxy.Slow: 4 * scale(t), cutproxy.Kill: 5 * scale(t),
		},
	})
	w.carryOut(plan, messages/len(streams), len(streams), func(i, n int) {
		for range n {
			id, xml := chatMessage(streams[i], count.Send(streams[i]))
			users[i].chat(id, xml)
		}
	})

	await(within(t, 60*time.Second), func() bool { return count.Counts().Complete() })
	await(within(t, time.Second), func() bool { return !count.Counts().Clean() })
	t.Logf("%v", w)
	resumed := 0
	for _, u := range users {
		u.mu.Lock()
		t.Logf("%s (%s): %d sessions, %d resumptions", u.name, u.library, u.fresh, u.resumed)
		resumed += u.resumed
		u.mu.Unlock()
	}
	report(t, "stock clients", count)
	if w.hit[cutproxy.Cut] < 40 || w.hit[cutproxy.Kill] < 5 || resumed < 30 {
		t.Errorf("too little happened: %v, resumed %d", w, resumed)
	}
}

// counting counts what a driver says of the chat.
func counting(name string, count *tally.Tally) func(nodeEvent) {
	return countingEvents(name, count, false)
}

func countingEvents(name string, count *tally.Tally, bounces bool) func(nodeEvent) {
	return func(e nodeEvent) {
		switch e.Event {
		case "acked":
			countAck(e.ID, count)
		case "stanza":
			el, err := xmppclient.Parse(e.XML)
			if err != nil {
				count.Fault("%s: %v", name, err)
				return
			}
			countStanza(name, el, count, bounces)
		}
	}
}
