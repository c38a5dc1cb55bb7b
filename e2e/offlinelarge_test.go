package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/internal/testkit/xmppclient"
)

// TestOfflineDrainLarge drains a mailbox of 100,000 messages of 1 KiB by a gateway whose heap stays within a sixth of that
// (the journal, which is not on the heap, has bounds of its own). Where the client stops to acknowledge (XEP-0198) the mailbox stops too, and it goes on when the client does.
func TestOfflineDrainLarge(t *testing.T) {
	long(t)
	for name, database := range map[string]func(testing.TB) string{"SQLite": nil, "PostgreSQL": postgresproc.New} {
		t.Run(name, func(t *testing.T) {
			env := map[string]string{
				"HOLDFAST_OFFLINE_LIMIT": "0", "HOLDFAST_OFFLINE_USER_LIMIT": "0", "HOLDFAST_OFFLINE_USER_BYTES": "0",
			}
			if database != nil {
				env["HOLDFAST_DATABASE_URL"] = database(t)
			}
			drainLarge(t, gatewayproc.Start(t, env), 100_000)
		})
	}
}

func drainLarge(t *testing.T, g *gatewayproc.Gateway, messages int) {
	const page, heapLimit = 100, 16 // messages, MiB
	g.AddUsers("anna", "bert")
	fill(t, g, "anna", "bert", messages, " "+strings.Repeat("x", 700))
	if awaitCount(t, g, "bert", messages) != messages {
		return
	}
	if code, _ := g.Term(20 * time.Second); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	g.Run() // what the filling took is not to be seen
	d := login(t, g, "bert", "phone")
	d.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	d.expect("<enabled/>", func(e *xmppclient.Element) bool { return e.Is(xmppclient.NSSM, "enabled") })
	d.stanzas = 0
	most := 0
	d.send("<presence xmlns='jabber:client'/>")
	got := 0
	take := func(e *xmppclient.Element) bool {
		if e.Name.Local != "message" {
			return false
		}
		number, _, _ := strings.Cut(e.Child("", "body").Text, " ")
		if n, err := strconv.Atoi(number); err != nil || n != got {
			t.Fatalf("%s comes after %d messages", number, got)
		}
		got++
		return true
	}
	ack := func() { d.send(fmt.Sprintf("<a xmlns='urn:xmpp:sm:3' h='%d'/>", d.stanzas)) }
	for got < messages {
		d.skipped = nil
		d.expect("a message", take)
		if got%25 == 0 && got != messages/2 {
			ack()
		}
		if got%5000 == 0 {
			heap := int(metric(g, "go_memstats_heap_inuse_bytes")) >> 20
			most = max(most, heap)
		}
		if got == messages/2 {
			acked := got - 25
			d.skipped = nil
			d.alive()
			for _, e := range d.skipped {
				take(e)
			}
			if got-acked > page {
				t.Errorf("%d messages came that nobody acknowledged, a page is %d", got-acked, page)
			}
			d.skipped = nil
			d.alive()
			for _, e := range d.skipped {
				if e.Name.Local == "message" {
					t.Errorf("without an acknowledgement came %v", e)
				}
			}
			ack()
		}
	}
	ack()
	d.silent()
	t.Logf("the heap had %d MiB at most", most)
	if most <= 0 || most > heapLimit {
		t.Errorf("the heap had %d MiB, at most %d are right", most, heapLimit)
	}
	awaitCount(t, g, "bert", 0)
}
