package main

import (
	"fmt"
	"slices"
	"testing"

	"holdfast/internal/testkit/xmppclient"
)

// limit asks for a limit of the own mailbox, or with "" for the one that holds, and returns that or the error.
func (c *client) limit(limit string) string {
	c.t.Helper()
	kind, attr := "get", ""
	if limit != "" {
		kind, attr = "set", " limit='"+limit+"'"
	}
	e := c.iq(kind, "<msgoffline xmlns='msgoffline'"+attr+"/>")
	if e.Attr("type") == "error" {
		return e.StanzaError()
	}
	return e.Child("msgoffline", "msgoffline").Attr("limit")
}

// refused returns how many of the messages that were sent come back.
func (c *client) refused(n int) (texts []string) {
	c.t.Helper()
	for range n {
		e := c.until(func(e *xmppclient.Element) bool { return e.Name.Local == "message" })
		if e.StanzaError() != "service-unavailable" {
			c.t.Errorf("%v", e)
			continue
		}
		texts = append(texts, e.Child("", "error").Child("urn:ietf:params:xml:ns:xmpp-stanzas", "text").Text)
	}
	c.quiet()
	return texts
}

// What the user chooses holds over a real socket, after a kill or a restart, up to the removal of the account.
func TestOwnLimit(t *testing.T) {
	onBothBackends(t, func(t *testing.T, env map[string]string) {
		n := startNode(t, t.TempDir(), env)
		n.addUsers("alice", "bob")
		alice, bob := n.bound("alice"), n.bound("bob")
		if got := bob.limit(""); got != "100" {
			t.Errorf("at first the limit is %s", got)
		}
		if got := bob.limit("2"); got != "2" {
			t.Errorf("set to 2 it is %s", got)
		}
		for _, bad := range []string{"-1", "many", "1,5"} {
			if got := bob.limit(bad); got != "bad-request" {
				t.Errorf("set to %s: %s", bad, got)
			}
		}
		send := func(from, to int) {
			for i := from; i <= to; i++ {
				alice.chat("bob@localhost", fmt.Sprint(i))
			}
		}
		send(1, 3)
		if got := alice.refused(1); len(got) != 1 {
			t.Errorf("one over the limit: %q", got)
		}

		n = n.again()
		alice, bob = n.bound("alice"), n.bound("bob")
		if got := bob.limit(""); got != "2" {
			t.Errorf("after a kill the limit is %s", got)
		}
		send(4, 4)
		alice.refused(1)
		if got := bob.limit("false"); got != "false" {
			t.Errorf("lifted it is %s", got)
		}
		send(5, 110)
		alice.quiet()
		if got := bob.limit("0"); got != "0" {
			t.Errorf("set to 0 it is %s", got)
		}
		send(111, 111)
		alice.refused(1)
		bob.available()
		want := []string{"1", "2"}
		for i := 5; i <= 110; i++ {
			want = append(want, fmt.Sprint(i))
		}
		if got := bob.bodies(len(want)); !slices.Equal(got, want) {
			t.Errorf("bob got %q", got)
		}
		// Who is there is sent to, whatever is stored.
		send(112, 112)
		if got := bob.bodies(1); !slices.Equal(got, []string{"112"}) {
			t.Errorf("bob got %q", got)
		}

		n.user("", "remove", "bob")
		bob.end()
		n.await("rid of bob's limit", func() bool {
			n.addUsers("bob")
			bob = n.bound("bob")
			if bob.limit("") == "100" {
				return true
			}
			n.user("", "remove", "bob")
			bob.end()
			return false
		})
		send(113, 113)
		alice.quiet()
	})
}

// The operator allows it, or not, up to a ceiling.
func TestOwnLimitSettings(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, dir, map[string]string{"OFFLINE_LIMIT": "3"})
	n.addUsers("bob")
	if got := n.bound("bob").limit("50"); got != "50" {
		t.Errorf("set to 50 it is %s", got)
	}
	n.stop()
	n = n.next(dir, map[string]string{"OFFLINE_OWN_LIMIT_MAX": "20"})
	bob := n.bound("bob")
	for _, tt := range []struct{ set, want string }{{"", "20"}, {"21", "not-acceptable"}, {"false", "not-acceptable"}, {"", "20"}, {"7", "7"}} {
		if got := bob.limit(tt.set); got != tt.want {
			t.Errorf("with a ceiling of 20, %q comes to %s, want %s", tt.set, got, tt.want)
		}
	}
	n.stop()
	n = n.next(dir, map[string]string{"OFFLINE_OWN_LIMIT": "false"})
	bob = n.bound("bob")
	for _, tt := range []struct{ set, want string }{{"", "3"}, {"2", "not-allowed"}, {"x", "bad-request"}, {"", "3"}} {
		if got := bob.limit(tt.set); got != tt.want {
			t.Errorf("not allowed, %q comes to %s, want %s", tt.set, got, tt.want)
		}
	}
}
