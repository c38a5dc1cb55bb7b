package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/offline"
	"holdfast/stanza"
)

// offline runs `gateway offline` as another process would, on a connection of its own.
func (n *node) offline(want int, args ...string) (stdout, stderr string) {
	n.t.Helper()
	open := func(ctx context.Context) (*mailboxes, error) { return openMailboxes(ctx, &n.cfg) }
	var out, errs bytes.Buffer
	if got := runOffline(context.Background(), args, &out, &errs, open, n.cfg.Domains); got != want {
		n.t.Errorf("gateway offline %v: exit %d, want %d; %s", args, got, want, errs.String())
	}
	return out.String(), errs.String()
}

// serverData is XEP-0227 §4 as far as it is used.
type serverData struct {
	XMLName xml.Name `xml:"urn:xmpp:pie:0 server-data"`
	Host    struct {
		JID  string `xml:"jid,attr"`
		User struct {
			Name    string `xml:"name,attr"`
			Offline struct {
				Messages []struct {
					XMLName xml.Name
					From    string `xml:"from,attr"`
					Body    string `xml:"jabber:client body"`
					Delay   []struct {
						From  string `xml:"from,attr"`
						Stamp string `xml:"stamp,attr"`
					} `xml:"urn:xmpp:delay delay"`
				} `xml:"jabber:client message"`
			} `xml:"urn:xmpp:pie:0 offline-messages"`
		} `xml:"urn:xmpp:pie:0 user"`
	} `xml:"urn:xmpp:pie:0 host"`
}

// The operator looks into a mailbox, exports and purges it, beside the gateway that serves its user.
func TestOfflineCommand(t *testing.T) {
	onBothBackends(t, func(t *testing.T, env map[string]string) {
		n := startNode(t, t.TempDir(), env)
		n.addUsers("alice", "bob")
		if out, _ := n.offline(exitOK, "count", "bob"); out != "0 messages, 0 bytes\n" {
			t.Errorf("count of nothing: %q", out)
		}
		alice := n.managed("alice", "")
		began := time.Now().Truncate(time.Millisecond)
		alice.chat("bob@localhost", "1", "2 &lt;b&gt; &amp;\n\"x\"")
		alice.send("<message xmlns='jabber:client' to='bob@localhost'><body>3</body></message>")
		alice.acked(3)
		// Nothing to wait for but the group commit, which OFFLINE_WINDOW=0 begins at once.
		n.await("in the database", func() bool {
			out, _ := n.offline(exitOK, "count", "bob@localhost", "--json")
			var c struct {
				User            string
				Messages, Bytes int
			}
			if err := json.Unmarshal([]byte(out), &c); err != nil || c.User != "bob@localhost" {
				t.Fatalf("%q: %v", out, err)
			}
			return c.Messages == 3 && c.Bytes > 300
		})

		list, _ := n.offline(exitOK, "list", "bob")
		lines := strings.Split(strings.TrimSuffix(list, "\n"), "\n")
		if len(lines) != 4 || strings.Join(strings.Fields(lines[0]), " ") != "ID TIME TYPE SIZE FROM" {
			t.Fatalf("list: %q", list)
		}
		jsons, _ := n.offline(exitOK, "list", "--json", "bob")
		var last stanza.ID
		for i, line := range strings.Split(strings.TrimSuffix(jsons, "\n"), "\n") {
			var l listed
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatal(err)
			}
			id, err := stanza.ParseID(l.ID)
			typ := []string{"chat", "chat", "normal"}[i]
			if err != nil || id.Compare(last) <= 0 || l.Time.Before(began) || time.Since(l.Time) > patience || l.Type != typ ||
				l.Size < 80 || l.From != alice.JID {
				t.Errorf("listed %+v, %v", l, err)
			}
			last = id
			want := []string{l.ID, l.Time.Format("2006-01-02T15:04:05.000Z"), l.Type, fmt.Sprint(l.Size), l.From}
			if got := strings.Fields(lines[i+1]); !slices.Equal(got, want) {
				t.Errorf("line %q, want %q", got, want)
			}
		}

		export, _ := n.offline(exitOK, "export", "bob")
		var x serverData
		if err := xml.Unmarshal([]byte(export), &x); err != nil {
			t.Fatalf("%v\n%s", err, export)
		}
		if x.Host.JID != "localhost" || x.Host.User.Name != "bob" || len(x.Host.User.Offline.Messages) != 3 {
			t.Fatalf("export: %+v", x)
		}
		for i, m := range x.Host.User.Offline.Messages {
			want := []string{"1", "2 <b> &\n\"x\"", "3"}[i]
			if m.XMLName.Space != "jabber:client" || m.Body != want || m.From != alice.JID || len(m.Delay) != 1 || m.Delay[0].From != "localhost" {
				t.Errorf("exported %+v, want %q", m, want)
			} else if at, err := time.Parse(time.RFC3339, m.Delay[0].Stamp); err != nil || at.Before(began) || time.Since(at) > patience {
				t.Errorf("stamp %q", m.Delay[0].Stamp)
			}
		}

		if out, _ := n.offline(exitOK, "purge", "bob"); out != "3 messages removed\n" {
			t.Errorf("purge: %q", out)
		}
		if out, _ := n.offline(exitOK, "count", "bob"); out != "0 messages, 0 bytes\n" {
			t.Errorf("count after the purge: %q", out)
		}
		if out, _ := n.offline(exitOK, "purge", "bob", "--wait=5s"); out != "0 messages removed\n" {
			t.Errorf("purge of nothing: %q", out)
		}
		// The limits count from nothing again, and what comes now is kept.
		alice.chat("bob@localhost", "4")
		alice.acked(4)
		check := func(t *testing.T, n *node) {
			t.Helper()
			bob := n.bound("bob")
			bob.available()
			if got := bob.bodies(1); got[0] != "4" {
				t.Errorf("bob got %q", got)
			}
			bob.quiet()
		}
		image := n.image()
		t.Run("the same process", func(t *testing.T) { check(t, n) })
		if env != nil { // there the database is not part of the image
			return
		}
		t.Run("after a kill", func(t *testing.T) { check(t, n.next(image, nil)) })
	})
}

// A purge while the mailbox drains to a client, and one while no gateway runs.
func TestOfflinePurge(t *testing.T) {
	onBothBackends(t, func(t *testing.T, env map[string]string) {
		n := startNode(t, t.TempDir(), map[string]string{"OFFLINE_LIMIT": "0", "DATABASE_URL": env["DATABASE_URL"]})
		n.addUsers("alice", "bob")
		alice := n.managed("alice", "")
		const all = 1000
		var bodies []string
		for i := range all {
			bodies = append(bodies, fmt.Sprint(i))
		}
		alice.chat("bob@localhost", bodies...)
		alice.acked(all)
		bob := n.managed("bob", "")
		bob.send("<presence xmlns='jabber:client'/>")
		got := bob.bodies(10) // and no acknowledgement, so that more than a page does not come
		if out, _ := n.offline(exitOK, "purge", "bob"); out != fmt.Sprintf("%d messages removed\n", all) {
			t.Errorf("purge: %q", out)
		}
		alice.chat("bob@localhost", "after")
		alice.acked(all + 1)
		for got[len(got)-1] != "after" {
			got = append(got, bob.bodies(1)...)
			bob.ack()
		}
		if n := len(got) - 1; n == all || !slices.Equal(got[:n], bodies[:n]) {
			t.Errorf("bob got %d messages: %q", n, got)
		}
		bob.quiet()
		bob.send("<presence xmlns='jabber:client' type='unavailable'/>")
		bob.quiet()
		alice.chat("bob@localhost", "stays")
		alice.acked(all + 2)
		n.stop()

		_, stderr := n.offline(exitPending, "purge", "--wait", "100ms", "bob")
		if !strings.Contains(stderr, "not carried out yet") {
			t.Errorf("without a gateway: %q", stderr)
		}
		n = n.next(n.dir(), nil)
		n.await("rid of the message", func() bool {
			out, _ := n.offline(exitOK, "count", "bob")
			return out == "0 messages, 0 bytes\n"
		})
		bob = n.bound("bob")
		bob.available()
		bob.quiet()
	})
}

func TestOfflineCommandRefuses(t *testing.T) {
	n := &node{t: t, cfg: configure(t, t.TempDir(), map[string]string{"DOMAINS": "localhost,example.org"})}
	n.addUsers("alice")
	for name, c := range map[string]struct {
		exit int
		args []string
		says string
	}{
		"nothing":          {exitUsage, nil, "gateway offline list USER"},
		"no such command":  {exitUsage, []string{"delete", "alice"}, `there is no command "delete"`},
		"no user":          {exitUsage, []string{"list"}, "wrong number of arguments"},
		"two users":        {exitUsage, []string{"list", "alice", "bob"}, "wrong number of arguments"},
		"no such flag":     {exitUsage, []string{"export", "alice", "--json"}, "-json"},
		"wait is no time":  {exitUsage, []string{"purge", "alice", "--wait", "long"}, "wait"},
		"unknown user":     {exitFailed, []string{"count", "nobody"}, "nobody@localhost: no such account"},
		"user elsewhere":   {exitFailed, []string{"count", "alice@example.org"}, "alice@example.org: no such account"},
		"another's domain": {exitFailed, []string{"purge", "alice@example.com"}, "example.com is not one of the domains of this gateway (localhost, example.org)"},
		"a bad name":       {exitFailed, []string{"list", "a b"}, `"a b" is not a user's name`},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr := (&node{t: t, cfg: n.cfg}).offline(c.exit, c.args...)
			if stdout != "" || !strings.Contains(stderr, c.says) {
				t.Errorf("stdout %q, stderr %q", stdout, stderr)
			}
		})
	}
	for _, help := range [][]string{{"help"}, {"--help"}, {"list", "-h"}} {
		if out, stderr := n.offline(exitOK, help...); out != offlineUsage || stderr != "" {
			t.Errorf("%v: %q, %q", help, out, stderr)
		}
	}
	var out, errs bytes.Buffer
	fails := func(context.Context) (*mailboxes, error) { return nil, errors.New("no disk") }
	if got := runOffline(t.Context(), []string{"list", "alice"}, &out, &errs, fails, n.cfg.Domains); got != exitFailed || !strings.Contains(errs.String(), "no disk") {
		t.Errorf("%d, %q", got, errs.String())
	}
}

// countingWriter keeps nothing.
type countingWriter struct{ lines, bytes int }

func (w *countingWriter) Write(p []byte) (int, error) {
	w.lines += bytes.Count(p, []byte("\n"))
	w.bytes += len(p)
	return len(p), nil
}

// pagedBackend hands out a large mailbox, and notes how much of it was asked for at once.
type pagedBackend struct {
	offline.Backend
	size, raw, most int
}

func (b *pagedBackend) Scan(_ context.Context, _ string, in offline.Range, yield func(offline.Row) bool) error {
	n := 0
	for i := int(in.After[15]) | int(in.After[14])<<8 | int(in.After[13])<<16; i < b.size; n++ {
		i++
		id := stanza.ID{6: 0x70, 8: 0x80, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}
		raw := fmt.Appendf(nil, "<message xmlns='jabber:client' from='a@b'><body>%s</body></message>", strings.Repeat("x", b.raw))
		if !yield(offline.Row{ID: id, Sender: "a@b", Bytes: len(raw), Raw: raw}) {
			break
		}
	}
	b.most = max(b.most, n)
	return nil
}

// However large the mailbox, a list and an export have a page of it in memory.
func TestOfflinePages(t *testing.T) {
	n := &node{t: t, cfg: configure(t, t.TempDir(), nil)}
	n.addUsers("alice")
	for _, tt := range []struct{ size, raw, most int }{{20_000, 10, exportMessages}, {50, 600 << 10, 2}} {
		for command, extra := range map[string]int{"list": 1, "export": 9} {
			large := &pagedBackend{size: tt.size, raw: tt.raw}
			open := func(ctx context.Context) (*mailboxes, error) {
				m, err := openMailboxes(ctx, &n.cfg)
				if err == nil {
					m.store = large
				}
				return m, err
			}
			var out countingWriter
			var errs bytes.Buffer
			if got := runOffline(t.Context(), []string{command, "alice"}, &out, &errs, open, n.cfg.Domains); got != exitOK {
				t.Errorf("%s: exit %d, %s", command, got, errs.String())
			}
			if out.lines != tt.size+extra || large.most > tt.most {
				t.Errorf("%s: %d lines, %d messages at once", command, out.lines, large.most)
			}
		}
	}
}

// A message that cannot be read is listed with what is known, and is missing in an export, which says so.
func TestOfflineUnreadable(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	n.addUsers("alice", "bob")
	alice := n.managed("alice", "")
	alice.chat("bob@localhost", "1", "2")
	alice.acked(2)
	n.await("in the database", func() bool {
		out, _ := n.offline(exitOK, "count", "bob")
		return strings.HasPrefix(out, "2 messages")
	})
	db := openDB(t, n.dir())
	defer func() { _ = db.Close() }()
	if _, err := db.Write.Exec(`UPDATE offline_message SET raw = '<message' WHERE id = (SELECT min(id) FROM offline_message)`); err != nil {
		t.Fatal(err)
	}
	out, _ := n.offline(exitOK, "list", "bob")
	if lines := strings.Split(out, "\n"); len(lines) != 4 || !slices.Equal(strings.Fields(lines[1])[2:], []string{"?", "8", "alice@localhost"}) {
		t.Errorf("list: %q", out)
	}
	export, stderr := n.offline(exitFailed, "export", "bob")
	var x serverData
	if err := xml.Unmarshal([]byte(export), &x); err != nil || len(x.Host.User.Offline.Messages) != 1 || !strings.Contains(stderr, "1 messages could not be read") {
		t.Errorf("%v, %q\n%s", err, stderr, export)
	}
	if n.get("/readyz") != http.StatusOK {
		t.Error("not ready")
	}
}
