package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/xmppclient"
)

const (
	writers = 32
	each    = 10 // messages of a writer
)

// TestClusterOfflineLimit has 32 clients on two nodes write to one who is away, all at once: what is kept is exactly the
// limit, whether it is the pair's or the recipient's; every other message comes back with service-unavailable, and none
// is both or neither. Then the operator purges the mailbox, whichever node is its home, and the limit counts
// from nothing.
func TestClusterOfflineLimit(t *testing.T) {
	long(t)
	const pair, recipient = 100, 130
	nodes := startCluster(t, 2, leased(longLease, map[string]string{
		"HOLDFAST_OFFLINE_LIMIT":      fmt.Sprint(pair),
		"HOLDFAST_OFFLINE_USER_LIMIT": fmt.Sprint(recipient),
		"HOLDFAST_SESSIONS_PER_USER":  "0",
	}))
	names := []string{"anna", "cleo", "dora"}
	var many []string
	for i := range writers {
		many = append(many, fmt.Sprint("writer", i))
	}
	nodes[0].AddUsers(append(names, many...)...)
	for _, tt := range []struct {
		name, to string
		limit    int
		login    func(i int) (name, resource string)
	}{
		{"of one sender's clients", "cleo", pair, func(i int) (string, string) { return "anna", fmt.Sprint("r", i) }},
		{"of many senders", "dora", recipient, func(i int) (string, string) { return many[i], "r" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var all []*xmppclient.Conn
			for i := range writers {
				name, resource := tt.login(i)
				all = append(all, login(t, nodes[i%2], name, resource).Conn)
			}
			for round, reader := range []*gatewayproc.Gateway{nodes[0], nodes[1], nodes[0]} {
				bounced := writeAll(t, all, tt.to, round, writers*each-tt.limit)
				kept := awaitCount(t, nodes[round%2], tt.to, tt.limit)
				if round == 1 {
					if out := nodes[round%2].Command("offline", "purge", tt.to); out != fmt.Sprintf("%d messages removed\n", tt.limit) {
						t.Errorf("purge: %q", out)
					}
					kept = 0
				}
				got := readAll(t, reader, tt.to, kept)
				if round == 1 {
					continue
				}
				got = append(got, bounced...)
				slices.Sort(got)
				if whole := len(got); whole != writers*each || len(slices.Compact(got)) != whole {
					t.Errorf("round %d: %d messages are kept or came back, %d different, of %d", round, whole, len(slices.Compact(got)), writers*each)
				}
			}
		})
	}
}

// writeAll has every client send its messages at once, and returns the ids of those that came back, of which it waits
// for so many.
func writeAll(t *testing.T, all []*xmppclient.Conn, to string, round, back int) (bounced []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var mu sync.Mutex
	var missing atomic.Int64
	missing.Store(int64(back))
	start, done := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	for i, c := range all {
		wg.Go(func() {
			<-start
			for k := range each {
				id := fmt.Sprintf("%d-%d-%d", round, i, k)
				if err := c.Write(ctx, "<message xmlns='jabber:client' type='chat' id='"+id+"' to='"+bare(to)+"'><body>"+id+"</body></message>"); err != nil {
					t.Errorf("writer %d: %v", i, err)
					return
				}
			}
			// When all have come back that should, one more ping of each sees that no others do.
			asked := false
			wg.Go(func() { // which ends before ctx does, or that would cut the connection
				select {
				case <-done:
				case <-ctx.Done():
				}
				_ = c.Write(ctx, "<iq xmlns='jabber:client' type='get' id='end'><ping xmlns='urn:xmpp:ping'/></iq>")
			})
			for !asked {
				e, err := c.Read(ctx)
				switch {
				case err != nil:
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("writer %d: %v", i, err)
					}
					return
				case e.Name.Local == "iq" && e.Attr("id") == "end":
					asked = true
				case e.Name.Local == "message" && e.StanzaError() == "service-unavailable":
					mu.Lock()
					bounced = append(bounced, e.Attr("id"))
					mu.Unlock()
					if missing.Add(-1) == 0 {
						close(done)
					}
				default:
					t.Errorf("writer %d got %v", i, e)
				}
			}
		})
	}
	close(start)
	wg.Wait()
	if len(bounced) != back {
		t.Errorf("round %d: %d messages came back, want %d", round, len(bounced), back)
	}
	return bounced
}

// awaitCount asks the operator's command until so many messages are in the mailbox, and no more are committed after
// them. It returns how many there are.
func awaitCount(t *testing.T, g *gatewayproc.Gateway, name string, want int) (n int) {
	t.Helper()
	ask := func() int {
		var c struct{ Messages int }
		out := g.Command("offline", "count", "--json", name)
		if err := json.Unmarshal([]byte(out), &c); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		return c.Messages
	}
	stays := func() bool {
		if n = ask(); n != want {
			return false
		}
		time.Sleep(250 * time.Millisecond) // five times OFFLINE_WINDOW
		n = ask()
		return n == want
	}
	if !await(within(t, 60*time.Second), stays) {
		t.Errorf("%d messages are in the mailbox of %s, want %d", n, name, want)
	}
	return n
}

// readAll logs in, takes the mailbox, of n messages, and leaves; it returns their ids.
func readAll(t *testing.T, g *gatewayproc.Gateway, name string, n int) (ids []string) {
	t.Helper()
	u := login(t, g, name, "reader")
	u.send("<presence xmlns='jabber:client'/>")
	for range n {
		m := u.expect("a message", func(e *xmppclient.Element) bool { return e.Name.Local == "message" })
		if e := m.Child("urn:xmpp:delay", "delay"); e == nil || m.Attr("type") != "chat" {
			t.Errorf("%s got %v", name, m)
		}
		ids = append(ids, m.Attr("id"))
	}
	u.silent()
	if err := u.Leave(within(t, 5*time.Second)); err != nil && !strings.Contains(err.Error(), "EOF") {
		t.Errorf("%s leaves: %v", name, err)
	}
	awaitCount(t, g, name, 0)
	return ids
}
