package main

import (
	"testing"

	"holdfast/internal/testkit/xmppclient"
)

// What a sender hears, over a real socket, when the operator wants nothing kept, or not more than the limit, or more than usual.
func TestOfflineSettings(t *testing.T) {
	for _, tt := range []struct {
		name, typ string
		env       map[string]string
		texts     []string // of the errors, in order
		kept      string   // what is in the mailbox in the end
	}{
		{"OFFLINE_STORAGE=error", "chat", map[string]string{"OFFLINE_STORAGE": "error"}, []string{"Bounce offline message", "Bounce offline message"}, ""},
		{"OFFLINE_STORAGE=drop", "chat", map[string]string{"OFFLINE_STORAGE": "drop"}, nil, ""},
		{"OFFLINE_OVER_LIMIT=error", "chat", map[string]string{"OFFLINE_LIMIT": "1"}, []string{"the recipient's offline storage is full"}, "1"},
		{"OFFLINE_OVER_LIMIT=drop", "chat", map[string]string{"OFFLINE_LIMIT": "1", "OFFLINE_OVER_LIMIT": "drop"}, nil, "1"},
		{"OFFLINE_MATCHERS", "headline", map[string]string{"OFFLINE_MATCHERS": "/message[@type=headline]"}, nil, "12"},
		{"OFFLINE_GROUPCHAT", "groupchat", map[string]string{"OFFLINE_GROUPCHAT": "true"}, nil, "12"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := startNode(t, t.TempDir(), tt.env)
			n.addUsers("alice", "bob")
			alice := n.bound("alice")
			for _, body := range []string{"1", "2"} {
				alice.send("<message xmlns='jabber:client' to='bob@localhost' type='" + tt.typ + "'><body>" + body + "</body></message>")
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
