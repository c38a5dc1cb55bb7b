package e2e

import (
	"strings"
	"testing"
	"time"

	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/tally"
)

// TestDrain stops the gateway with SIGTERM while messages flow. It tells its clients to come back, ends by itself
// within the bound and with code 0, and they go on where they were when it is there again.
func TestDrain(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, nil)
	g.AddUsers("anna", "bert", "plain")
	count := new(tally.Tally)
	a, b := startModel(t, g, "anna", count), startModel(t, g, "bert", count)
	there, back := tally.Stream{From: "anna", To: "bert"}, tally.Stream{From: "bert", To: "anna"}
	say := func(n int) {
		for range n {
			id, xml := chatMessage(there, count.Send(there))
			a.client.Send(id, xml)
			id, xml = chatMessage(back, count.Send(back))
			b.client.Send(id, xml)
		}
	}
	const rounds = 3
	for range rounds {
		a.awaitAvailable(t)
		b.awaitAvailable(t)
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
	report(t, "drain", count)
	for _, u := range []*modelUser{a, b} {
		s := u.client.Stats()
		t.Logf("%s: %+v", u.name, s)
		if s.Bound != 1 || s.Refused != 0 {
			t.Errorf("%s: %d sessions, %d refused", u.name, s.Bound, s.Refused)
		}
		if s.Ended["status 1012"] != rounds {
			t.Errorf("%s: %d of %d connections ended with 1012 (service restart): %v", u.name, s.Ended["status 1012"], rounds, s.Ended)
		}
		for _, f := range u.client.Faults() {
			t.Errorf("%s: the gateway broke a rule: %s", u.name, f)
		}
	}
	if log := g.Log(); strings.Contains(log, "panic") || strings.Contains(log, "level=ERROR") {
		t.Errorf("errors in the log")
	}
}
