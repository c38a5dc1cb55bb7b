package offline_test

import (
	"strings"
	"testing"

	"holdfast/offline"
)

func matchers(t testing.TB, rules string) offline.Matchers {
	t.Helper()
	var m offline.Matchers
	if err := m.UnmarshalText([]byte(rules)); err != nil {
		t.Fatalf("%s: %v", rules, err)
	}
	return m
}

// TestMatchers: the first rule that matches decides, before the defaults.
func TestMatchers(t *testing.T) {
	const (
		storeOffline = `<store-offline xmlns='x'/>`
		doNotStore   = `<do-not-store xmlns='x'/>`
		plain        = `<plain/>`
	)
	for _, tt := range []struct {
		rules, typ, inner string
		action            offline.Action
		reason            offline.Reason
	}{
		{"", "chat", body, offline.Store, offline.HasBody},
		// the Tigase document's
		{"/message/received[urn:xmpp:receipts]", "chat", received + noStore, offline.Store, offline.Matcher},
		{"/message/received[urn:xmpp:receipts]", "chat", `<received xmlns='x'/>`, offline.Bounce, offline.Bodiless},
		{"/message/store-offline", "chat", storeOffline, offline.Store, offline.Matcher},
		{"/message/store-offline,-/message/do-not-store", "chat", body + doNotStore, offline.Bounce, offline.Matcher},
		{"/message/store-offline,-/message/do-not-store", "chat", body + doNotStore + storeOffline, offline.Store, offline.Matcher},
		{"-/message/do-not-store,/message/store-offline", "chat", body + doNotStore + storeOffline, offline.Bounce, offline.Matcher},
		{"/message/received,-/message/plain", "chat", received + plain, offline.Store, offline.Matcher},
		{"-/message/plain,/message/received", "chat", received + plain, offline.Bounce, offline.Matcher},
		// types
		{"/message[@type=headline]", "headline", body, offline.Store, offline.Matcher},
		{"-/message[@type=headline]", "headline", body + store, offline.Drop, offline.Matcher},
		{"/message[@type=groupchat]", "groupchat", body, offline.Store, offline.Matcher},
		{"-/message[@type=normal]", "", body, offline.Bounce, offline.Matcher},
		{"-/message[@type=normal]", "x-unheard-of", body, offline.Bounce, offline.Matcher},
		{"-/message[@type=normal]", "chat", body, offline.Store, offline.HasBody},
		{"/message", "error", body, offline.Drop, offline.TypeError},
		// hints, and what has no body
		{"+/message/no-store[urn:xmpp:hints]", "chat", body + noStore, offline.Store, offline.Matcher},
		{"-/message/store[urn:xmpp:hints]", "chat", body + store, offline.Bounce, offline.Matcher},
		{"/message/*[http://jabber.org/protocol/chatstates]", "chat", composing, offline.Store, offline.Matcher},
		{"/message/x[jabber:x:event]", "chat", event, offline.Store, offline.Matcher},
		{"-/message/*[urn:xmpp:chat-markers:0]", "chat", displayed, offline.Drop, offline.Matcher},
		{"-/message/received[urn:xmpp:receipts]", "chat", received, offline.Drop, offline.Matcher},
		// attributes, all of one element
		{"-/message/received[xmlns=urn:xmpp:receipts][@id=m1]", "chat", received, offline.Drop, offline.Matcher},
		{"-/message/received[xmlns=urn:xmpp:receipts][@id=m2]", "chat", received, offline.Store, offline.HasReceipt},
		{"-/message/received[@id]", "chat", received, offline.Drop, offline.Matcher},
		{"-/message/received[@id=]", "chat", received, offline.Store, offline.HasReceipt},
		{"-/message/*[@id=m1][urn:xmpp:chat-markers:0]", "chat", received + markable, offline.Store, offline.HasReceipt},
		{"/message/p[@q=a,b & c]", "chat", `<p q='a,b &amp; c'/>`, offline.Store, offline.Matcher},
		{"-/message[@from=romeo@example.net/orchard]", "chat", body, offline.Bounce, offline.Matcher},
		{"-/message[jabber:client][@type=chat]/body[xmlns=jabber:client]", "chat", body, offline.Bounce, offline.Matcher},
		{" -/message/a , /message/b ", "chat", `<b xmlns='x'/>`, offline.Store, offline.Matcher},
	} {
		got := offline.Decide(typed(t, tt.typ, tt.inner), offline.Policy{Matchers: matchers(t, tt.rules)})
		if want := (offline.Verdict{Action: tt.action, Reason: tt.reason}); got != want {
			t.Errorf("%q, type %q, %s: %v for %v, want %v for %v",
				tt.rules, tt.typ, tt.inner, got.Action, got.Reason, want.Action, want.Reason)
		}
	}
}

// TestMatchersRefused: what cannot be read is refused, with its place.
func TestMatchersRefused(t *testing.T) {
	for rules, where := range map[string]string{
		"message":                           "rule 1, at character 1:",
		"+":                                 "rule 1, at character 2:",
		"/iq/query":                         "rule 1, at character 1:",
		"/messages":                         "rule 1, at character 1:",
		"/message/":                         "rule 1, at character 10:",
		"/message/a/b":                      "rule 1, at character 11:",
		"/message/a b":                      "rule 1, at character 12:",
		"/message/a[":                       "rule 1, at character 11:",
		"/message/a[]":                      "rule 1, at character 11:",
		"/message/a[@]":                     "rule 1, at character 11:",
		"/message/a[@=x]":                   "rule 1, at character 11:",
		"/message/a[x][y]":                  "rule 1, at character 14:",
		"/message/a,":                       "rule 1, at character 12:",
		"/message/a,,/message/b":            "rule 2, at character 12:",
		"/message/a, -/message/b[@x":        "rule 2, at character 24:",
		"/message[@type=error]":             "rule 1, at character 22:",
		"/message/ä, /message/b[xmlns=]":    "rule 2, at character 23:",
		"/message/received urn:xmpp:carbon": "rule 1, at character 19:",
	} {
		var m offline.Matchers
		if err := m.UnmarshalText([]byte(rules)); err == nil || !strings.HasPrefix(err.Error(), where) {
			t.Errorf("%q: %v, want %s", rules, err, where)
		}
	}
}

// FuzzMatchers: what is read is written as it was, and nothing panics.
func FuzzMatchers(f *testing.F) {
	f.Add("-/message[@type=chat]/received[xmlns=urn:xmpp:receipts][@id=x],/message/*")
	st := typed(f, "chat", body+received)
	f.Fuzz(func(t *testing.T, rules string) {
		var m offline.Matchers
		if m.UnmarshalText([]byte(rules)) != nil {
			return
		}
		if m.String() != rules {
			t.Errorf("%q became %q", rules, m)
		}
		offline.Decide(st, offline.Policy{Matchers: m})
	})
}

// TestMatchersAllocate: rules cost messages no memory.
func TestMatchersAllocate(t *testing.T) {
	p := offline.Policy{Matchers: matchers(t, "/message[@type=chat]/a[urn:x][@id=x],-/message/received[urn:xmpp:receipts][@id=x],/message/*[@y=z]")}
	st := typed(t, "chat", body+request+received+stanzaID)
	if n := testing.AllocsPerRun(100, func() { offline.Decide(st, p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
