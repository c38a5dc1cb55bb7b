package roster

import (
	"strings"
	"testing"

	"holdfast/stanza"
)

// TestPendingRequest checks what a user gets that comes online after it was asked (RFC 6121 §3.1.3).
func TestPendingRequest(t *testing.T) {
	const nick = `<nick xmlns='http://jabber.org/protocol/nick'>Juliet &amp; Co</nick>`
	for _, tt := range []struct {
		name, request string
		content       string
		id            string
	}{
		{
			"complete", `<presence xmlns='jabber:client' type='subscribe' id='s1' xml:lang='en' ` +
				`from='juliet@example.com' to='romeo@example.net'><status>Hi</status>` + nick + `</presence>`,
			`<status>Hi</status>` + nick, "s1",
		},
		{
			"from a resource", `<presence xmlns="jabber:client" from="juliet@example.com/balcony" ` +
				`to="romeo@example.net/orchard" type="subscribe">` + nick + `</presence>`,
			nick, "",
		},
		{
			"in another's name", `<presence xmlns='jabber:client' from='tybalt@example.com' to='paris@example.com' type='subscribe'/>`,
			"", "",
		},
		{"none", ``, "", ""},
		{"not well-formed", `<presence xmlns='jabber:client' type='subscribe'>`, "", ""},
		{"another type", `<presence xmlns='jabber:client' type='probe'>` + nick + `</presence>`, "", ""},
		{"another element", `<message xmlns='jabber:client' type='subscribe'><body>x</body></message>`, "", ""},
		{
			"too long", `<presence xmlns='jabber:client' type='subscribe'><status>` + strings.Repeat("x", 4096) +
				`</status></presence>`,
			"", "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t, DefaultConfig(), newMemory())
			request := []byte(tt.request)
			if o := must(s.Inbound(t.Context(), romeo, juliet, Subscribe, request))(t); o != (Outcome{Route: true}) {
				t.Errorf("outcome %+v", o)
			}
			clear(request) // the caller's buffer is used again
			got := must(s.PendingRequests(t.Context(), romeo))(t)
			if len(got) != 1 {
				t.Fatalf("requests %q", got)
			}
			st := must(stanza.Parse(got[0], stanza.ID{}))(t)
			if st.Kind() != stanza.Presence || string(st.TypeRaw()) != "subscribe" || st.From != juliet || st.To != romeo {
				t.Errorf("request %s", got[0])
			}
			if string(st.Inner()) != tt.content || string(st.IDRaw()) != tt.id {
				t.Errorf("content %s, id %s", st.Inner(), st.IDRaw())
			}
			// The first one is kept: repeating it costs nothing.
			must(s.Inbound(t.Context(), romeo, juliet, Subscribe, []byte(`<presence xmlns='jabber:client' type='subscribe' id='again'/>`)))(t)
			if again := must(s.PendingRequests(t.Context(), romeo))(t); len(again) != 1 || string(again[0]) != string(got[0]) {
				t.Errorf("then %q", again)
			}
			must(s.Outbound(t.Context(), romeo, juliet, Subscribed))(t)
			if left := must(s.PendingRequests(t.Context(), romeo))(t); len(left) != 0 {
				t.Errorf("answered, and still %q", left)
			}
			if item, _ := itemOf(t, s, romeo, juliet); item.Request != nil {
				t.Errorf("answered, and still kept")
			}
		})
	}
}

// TestStoredContactThatIsNoAddress: the rest of the roster is served, and the row is not lost.
func TestStoredContactThatIsNoAddress(t *testing.T) {
	store := newMemory()
	store.users[romeo.String()] = stored{version: 2, rows: map[string]Row{
		"a@b@c":              {Contact: "a@b@c", Listed: true, Version: 1},
		juliet.String():      {Contact: juliet.String(), Listed: true, Version: 2},
		"JULIET@example.com": {Contact: "JULIET@example.com", Name: "old", Listed: true, Version: 1},
	}}
	s := newService(t, DefaultConfig(), store)
	items, _, err := s.Get(t.Context(), romeo)
	if err != nil || len(items) != 1 || items[0].Contact != juliet || items[0].Name != "" {
		t.Errorf("items %+v: %v", items, err)
	}
	must(s.Set(t.Context(), romeo, Item{Contact: mercutio}))(t)
	if len(store.users[romeo.String()].rows) != 4 {
		t.Errorf("rows %v", store.users[romeo.String()].rows)
	}
}
