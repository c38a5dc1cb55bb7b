package main

import (
	"slices"
	"testing"

	"holdfast/internal/testkit/xmppclient"
)

// What a sender hears, over a real socket, when the operator wants nothing kept, or not more than the limit, or more than usual.
func TestOfflineSettings(t *testing.T) {
	for _, tt := range []struct {
		name, typ string
		content   string // besides the body
		env       map[string]string
		texts     []string // of the errors, in order
		kept      string   // what is in the mailbox in the end
	}{
		{name: "OFFLINE_STORAGE=error", typ: "chat", env: map[string]string{"OFFLINE_STORAGE": "error"}, texts: []string{"Bounce offline message", "Bounce offline message"}},
		{name: "OFFLINE_STORAGE=drop", typ: "chat", env: map[string]string{"OFFLINE_STORAGE": "drop"}},
		{name: "OFFLINE_LIMIT", typ: "chat", env: map[string]string{"OFFLINE_LIMIT": "1"}, texts: []string{"The recipient is offline and too many of your messages to them are waiting already"}, kept: "1"},
		{name: "OFFLINE_USER_LIMIT", typ: "chat", env: map[string]string{"OFFLINE_USER_LIMIT": "1"}, texts: []string{"The recipient is offline and too many messages to them are waiting already"}, kept: "1"},
		{name: "OFFLINE_USER_BYTES", typ: "chat", env: map[string]string{"OFFLINE_USER_BYTES": "350"}, texts: []string{"The recipient is offline and their mailbox has no room for a message of this size"}, kept: "1"},
		{name: "OFFLINE_OVER_LIMIT=drop", typ: "chat", env: map[string]string{"OFFLINE_LIMIT": "1", "OFFLINE_OVER_LIMIT": "drop"}, kept: "1"},
		{name: "OFFLINE_MATCHERS", typ: "headline", env: map[string]string{"OFFLINE_MATCHERS": "/message[@type=headline]"}, kept: "12"},
		{name: "a matcher that refuses", typ: "chat", content: "<plain xmlns='x'/>", env: map[string]string{"OFFLINE_MATCHERS": "-/message/plain"}, texts: slices.Repeat([]string{"The recipient is offline and messages of this kind are not stored"}, 2)},
		{name: "a hint", typ: "chat", content: "<no-store xmlns='urn:xmpp:hints'/>", texts: slices.Repeat([]string{"The recipient is offline and the message asked not to be stored"}, 2)},
		{name: "OFFLINE_GROUPCHAT", typ: "groupchat", env: map[string]string{"OFFLINE_GROUPCHAT": "true"}, kept: "12"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := startNode(t, t.TempDir(), tt.env)
			n.addUsers("alice", "bob")
			alice := n.bound("alice")
			for _, body := range []string{"1", "2"} {
				alice.send("<message xmlns='jabber:client' to='bob@localhost' type='" + tt.typ + "'><body>" + body + "</body>" + tt.content + "</message>")
			}
			for _, want := range tt.texts {
				e := alice.until(func(e *xmppclient.Element) bool { return e.Name.Local == "message" })
				text := e.Child("", "error").Child("urn:ietf:params:xml:ns:xmpp-stanzas", "text")
				if e.StanzaError() != "service-unavailable" || text == nil || text.Text != want {
					t.Errorf("%v, want %q", e, want)
				}
			}
			alice.quiet()
			bob := n.bound("bob")
			bob.available()
			got := ""
			for _, body := range bob.bodies(len(tt.kept)) {
				got += body
			}
			if got != tt.kept {
				t.Errorf("bob got %q, want %q", got, tt.kept)
			}
			bob.quiet()
		})
	}
}
