package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"holdfast/internal/testkit/xmppclient"
)

// rule sends a message with rules, each as "action condition value".
func (c *client) rule(to, id string, rules ...string) {
	c.t.Helper()
	var b strings.Builder
	for _, r := range rules {
		f := strings.Fields(r)
		fmt.Fprintf(&b, "<rule action='%s' condition='%s' value='%s'/>", f[0], f[1], f[2])
	}
	c.send(fmt.Sprintf("<message xmlns='jabber:client' type='chat' to='%s' id='%s'><body>%s</body><amp xmlns='%s'>%s</amp></message>",
		to, id, id, nsAMP, b.String()))
}

// told pings, and returns what it was told of its rules before the answer: status, or condition with what is specific in it.
func (c *client) told() (told string) {
	c.t.Helper()
	c.send("<iq xmlns='jabber:client' type='get' id='told'><ping xmlns='urn:xmpp:ping'/></iq>")
	c.until(func(e *xmppclient.Element) bool {
		switch a := e.Child(nsAMP, "amp"); {
		case e.Name.Local == "iq":
			return e.Attr("id") == "told"
		case e.Attr("type") == "error":
			told += " " + e.StanzaError()
			for _, s := range e.Child("", "error").Children {
				if strings.HasPrefix(s.Name.Space, nsAMP) {
					told += " " + s.Name.Local
				}
			}
		case a != nil:
			told += " " + a.Attr("status")
		}
		return false
	})
	return strings.TrimSpace(told)
}

// XEP-0079 over a real socket: what the sender hears (§4), and who gets the message, at once or out of the mailbox.
func TestMessageProcessing(t *testing.T) {
	const failed = "undefined-condition failed-rules"
	away := []struct {
		to, rule, told string
		kept           bool
	}{
		{"bob@localhost", "notify deliver stored", "notify", true},
		{"bob@localhost", "alert deliver stored", "alert", false},
		{"bob@localhost", "error deliver stored", failed, false},
		{"bob@localhost", "drop deliver stored", "", false},
		{"bob@localhost", "drop deliver direct", "", true},
		{"bob@localhost", "error deliver none", "", true},
		{"bob@localhost", "drop deliver forward", "", true},
		{"bob@localhost", "drop deliver gateway", "", true},
		{"bob@localhost", "drop match-resource other", "", true},
		{"bob@localhost/nowhere", "error match-resource other", failed, false},
		{"bob@localhost/nowhere", "error match-resource exact", "", true},
		{"bob@localhost", "drop expire-at 2004-01-01T00:00:00Z", "", false},
		{"bob@localhost", "alert expire-at 2004-01-01T00:00:00Z", "alert", false},
		{"bob@localhost", "error expire-at 2004-01-01T00:00:00Z", failed, false},
		{"bob@localhost", "drop expire-at 2104-01-01T00:00:00Z", "", true},
		// §6
		{"bob@localhost", "explode deliver stored", "bad-request unsupported-actions", false},
		{"bob@localhost", "drop weather rain", "bad-request unsupported-conditions", false},
		{"bob@localhost", "drop deliver tomorrow", "not-acceptable invalid-rules", false},
		{"bob@localhost", "drop match-resource mine", "not-acceptable invalid-rules", false},
		{"bob@localhost", "drop expire-at soon", "not-acceptable invalid-rules", false},
	}
	here := []struct {
		to, rule, told string
		got            bool
	}{
		{"bob@localhost", "notify deliver direct", "notify", true},
		{"bob@localhost", "alert deliver direct", "alert", false},
		{"bob@localhost", "error deliver direct", failed, false},
		{"bob@localhost", "drop deliver direct", "", false},
		{"bob@localhost", "drop deliver stored", "", true},
		{"", "notify match-resource exact", "notify", true},
		{"", "drop match-resource other", "", true},
		{"", "notify match-resource any", "notify", true},
		{"bob@localhost/nowhere", "drop match-resource exact", "", true},
		{"bob@localhost/nowhere", "alert match-resource other", "alert", false},
	}
	onBothBackends(t, func(t *testing.T, env map[string]string) {
		n := startNode(t, t.TempDir(), env)
		n.addUsers("alice", "bob", "mallory")
		alice, bob := n.managed("alice", ""), n.managed("bob", "")
		if f := alice.Features.String(); !strings.Contains(f, "http://jabber.org/features/amp") {
			t.Errorf("§8: features %s", f)
		}
		alice.send("<iq xmlns='jabber:client' type='get' id='info' to='localhost'><query xmlns='" + nsDiscoInfo + "' node='" + nsAMP + "'/></iq>")
		info := alice.until(func(e *xmppclient.Element) bool { return e.Attr("id") == "info" }).String()
		for _, name := range []string{"alert", "drop", "error", "notify"} {
			if !strings.Contains(info, nsAMP+"?action="+name) {
				t.Errorf("§7: no action %s in %s", name, info)
			}
		}
		for _, name := range []string{"deliver", "expire-at", "match-resource"} {
			if !strings.Contains(info, nsAMP+"?condition="+name) {
				t.Errorf("§7: no condition %s in %s", name, info)
			}
		}
		alice.available()
		bob.available()
		befriend(alice, bob)
		for i, tt := range here {
			id, to := fmt.Sprint("here", i), tt.to
			if to == "" {
				to = bob.JID
			}
			alice.rule(to, id, tt.rule)
			if told := alice.told(); told != tt.told {
				t.Errorf("%s to %s, who is here: told %q, want %q", tt.rule, to, told, tt.told)
			}
			if got := slices.Contains(bob.gets(), id); got != tt.got {
				t.Errorf("%s to %s, who is here: delivered %v", tt.rule, to, got)
			}
		}
		bob.send("<presence xmlns='jabber:client' type='unavailable'/>")
		alice.until(func(e *xmppclient.Element) bool { return e.Attr("type") == "unavailable" })
		var kept []string
		for i, tt := range away {
			id := fmt.Sprint("away", i)
			alice.rule(tt.to, id, tt.rule)
			if told := alice.told(); told != tt.told {
				t.Errorf("%s to %s, who is away: told %q, want %q", tt.rule, tt.to, told, tt.told)
			}
			if tt.kept {
				kept = append(kept, id)
			}
		}
		// §8: who may not see bob's presence cannot find it out.
		mallory := n.managed("mallory", "")
		mallory.rule("bob@localhost", "stranger", "notify deliver stored")
		if told := mallory.told(); !strings.HasPrefix(told, "not-acceptable") {
			t.Errorf("a stranger is told %q", told)
		}
		bob.available()
		if got := bob.gets(); !slices.Equal(got, kept) {
			t.Errorf("out of the mailbox came %v, want %v", got, kept)
		}
	})
}

// gets pings, and returns the ids of the messages before the answer.
func (c *client) gets() (ids []string) {
	c.t.Helper()
	c.send("<iq xmlns='jabber:client' type='get' id='gets'><ping xmlns='urn:xmpp:ping'/></iq>")
	c.until(func(e *xmppclient.Element) bool {
		if e.Name.Local == "message" {
			ids = append(ids, e.Attr("id"))
		}
		return e.Attr("id") == "gets"
	})
	return ids
}
