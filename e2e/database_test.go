package e2e

import (
	"testing"
	"time"

	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/internal/testkit/tally"
)

// TestPostgresFails has one gateway with its kept state in PostgreSQL, which is killed, stopped and frozen while
// messages go to somebody who is away, and once while the gateway is told to end. Nothing is lost or repeated.
func TestPostgresFails(t *testing.T) {
	long(t)
	url := postgresproc.New(t)
	server := postgresproc.Get(t)
	g := gatewayproc.Start(t, map[string]string{
		"HOLDFAST_DATABASE_URL": url, "HOLDFAST_DATABASE_TIMEOUT": "1s", "HOLDFAST_DRAIN_TIMEOUT": "3s",
		"HOLDFAST_DRAIN_SPREAD": "0", "HOLDFAST_AUTH_CACHE_AGE": "5m", "HOLDFAST_OFFLINE_LIMIT": "0",
	})
	g.AddUsers("anna", "bert")
	count := new(tally.Tally)
	a := startModel(t, g, "anna", count)
	a.awaitAvailable(t)
	there := tally.Stream{From: "anna", To: "bert"}
	say := func(n int) {
		for range n {
			id, xml := chatMessage(there, count.Send(there))
			a.client.Send(id, xml)
		}
	}
	settled := func() {
		t.Helper()
		await(within(t, 30*time.Second), func() bool { return a.client.Unacknowledged() == 0 })
	}
	ready := func() {
		t.Helper()
		await(within(t, 30*time.Second), g.Ready)
	}
	say(50)
	settled()
	for _, away := range []func(testing.TB){server.Kill, server.Stop} {
		away(t)
		say(50)
		settled() // in the journal
		server.Start(t)
		ready()
		say(50)
	}
	server.Freeze(t)
	say(50)
	settled()
	g.Kill()
	server.Thaw(t)
	g.Run() // with what the journal has
	say(50)
	settled()
	server.Freeze(t)
	say(50)
	settled()
	if _, took := g.Term(20 * time.Second); took > 15*time.Second {
		t.Errorf("it took %v to end", took)
	}
	server.Thaw(t)
	g.Run()
	b := startModel(t, g, "bert", count)
	b.awaitAvailable(t)
	await(within(t, 30*time.Second), func() bool { return count.Counts().Complete() })
	report(t, "postgres", count)
}
