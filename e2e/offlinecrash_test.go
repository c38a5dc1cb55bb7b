package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/internal/testkit/xmppclient"
)

// TestOfflineDrainKilled kills the gateway, at random moments, while a mailbox of 10,000 drains to a client that
// acknowledges in bursts (XEP-0198). The client comes back by resumption or by a new login, in turn. It sees each message
// once and in order: a resumed session repeats nothing at all, a new one repeats only what was not acknowledged, and that
// with the same stanza ids (XEP-0359), before anything new.
func TestOfflineDrainKilled(t *testing.T) {
	long(t)
	s := seed(t)
	env := func(database string) map[string]string {
		e := map[string]string{
			"HOLDFAST_OFFLINE_LIMIT": "0", "HOLDFAST_OFFLINE_USER_LIMIT": "0", "HOLDFAST_CHECKPOINT_INTERVAL": "300ms",
		}
		if database != "" {
			e["HOLDFAST_DATABASE_URL"] = database
		}
		return e
	}
	t.Run("SQLite", func(t *testing.T) {
		drainKilled(t, s, gatewayproc.Start(t, env("")), 10_000)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		drainKilled(t, s, gatewayproc.Start(t, env(postgresproc.New(t))), 10_000)
	})
}

// drainer is the client that takes the mailbox.
type drainer struct {
	*user
	rng     *rand.Rand
	token   string   // for <resume/>
	in      uint32   // stanzas of the session
	last    uint32   // in as it was acknowledged last
	burst   uint32   // how many more are acknowledged next
	seen    []string // stanza ids, of the messages 0 …
	known   int      // messages that the gateway certainly knows to be acknowledged
	again   int      // the next message that may come again, -1 when none may
	repeats int
}

func drainKilled(t *testing.T, seed uint64, g *gatewayproc.Gateway, messages int) {
	g.AddUsers("anna", "bert")
	fill(t, g, "anna", "bert", messages, "")
	d := &drainer{rng: rand.New(rand.NewPCG(seed, 0)), again: -1}
	const kills = 8
	at := make([]int, kills)
	for i := range at {
		at[i] = d.rng.IntN(messages)
	}
	slices.Sort(at)
	d.login(t, g)
	for i, n := range append(at, messages) {
		for len(d.seen) < n {
			d.take(t)
		}
		if i == kills {
			break
		}
		g.Kill()
		for d.rng.IntN(2) == 0 { // what has arrived may be read after the kill, or not
			if !d.takeLeft() {
				break
			}
		}
		d.Abort()
		g.Run()
		if i%2 == 0 {
			d.resume(t, g)
		} else {
			d.login(t, g)
		}
	}
	d.ackNow(t)
	d.silent()
	awaitCount(t, g, "bert", 0)
	t.Logf("%d messages, killed at %v, %d came again in new sessions", len(d.seen), at, d.repeats)
}

// fill sends numbered messages to somebody who is away, each with more behind its number.
func fill(t *testing.T, g *gatewayproc.Gateway, from, to string, messages int, more string) {
	t.Helper()
	a, _ := managed(t, g, from)
	ctx := within(t, 5*time.Minute)
	for i := range messages {
		if err := a.Write(ctx, fmt.Sprintf("<message xmlns='jabber:client' type='chat' to='%s'><body>%d%s</body></message>", bare(to), i, more)); err != nil {
			t.Fatal(err)
		}
	}
	a.ack(messages)
	a.Abort()
}

// login begins a new session, in which may come again what was not acknowledged.
func (d *drainer) login(t *testing.T, g *gatewayproc.Gateway) {
	t.Helper()
	d.user = login(t, g, "bert", "phone")
	d.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	d.token = d.expect("<enabled/>", func(e *xmppclient.Element) bool { return e.Is(xmppclient.NSSM, "enabled") }).Attr("id")
	d.in, d.last, d.again = 0, 0, -2
	d.send("<presence xmlns='jabber:client'/>")
}

// resume goes on with the session.
func (d *drainer) resume(t *testing.T, g *gatewayproc.Gateway) {
	t.Helper()
	before := &user{Conn: d.Conn, t: t, stanzas: int(d.in)}
	d.user, _, _ = resume(t, g, "bert", d.token, before)
	d.last, d.known = d.in, len(d.seen) // <resumed/> is the answer to that count
}

// take reads one element and acknowledges when it is time.
func (d *drainer) take(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	e, err := d.Read(ctx)
	if err != nil {
		t.Fatalf("after %d messages: %v", len(d.seen), err)
	}
	d.count(e)
	if d.in-d.last > d.burst {
		d.ackNow(t)
		d.burst = uint32(d.rng.IntN(50)) // the gateway goes on when half a page of 100 is acknowledged
	}
}

// takeLeft reads what came before the connection broke, and reports whether there was something.
func (d *drainer) takeLeft() bool {
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Second)
	defer cancel()
	e, err := d.Read(ctx)
	if err == nil {
		d.count(e)
	}
	return err == nil
}

func (d *drainer) ackNow(t *testing.T) {
	t.Helper()
	d.send(fmt.Sprintf("<a xmlns='urn:xmpp:sm:3' h='%d'/>", d.in))
	d.last = d.in
}

// count holds what came against what has to come.
func (d *drainer) count(e *xmppclient.Element) {
	d.t.Helper()
	if !e.Stanza() {
		return
	}
	d.in++
	if e.Name.Local != "message" {
		return
	}
	n, err := strconv.Atoi(strings.TrimSpace(e.Child("", "body").Text))
	id := e.Child("urn:xmpp:sid:0", "stanza-id").Attr("id")
	if err != nil || id == "" {
		d.t.Fatalf("unexpected: %v", e)
	}
	if d.again == -2 { // the first of a new session
		d.again = -1
		if n < len(d.seen) {
			if n < d.known {
				d.t.Errorf("message %d comes again, of which the gateway has said that it was acknowledged", n)
			}
			d.again = n
		}
	}
	switch {
	case d.again >= 0 && n == d.again && d.seen[n] == id:
		d.repeats++
		if d.again++; d.again == len(d.seen) {
			d.again = -1
		}
	case d.again < 0 && n == len(d.seen):
		d.seen = append(d.seen, id)
	default:
		d.t.Fatalf("message %d (%s) comes after %d messages, again from %d", n, id, len(d.seen), d.again)
	}
}
