package offline_test

import (
	"strings"
	"testing"

	"holdfast/offline"
	"holdfast/stanza"
)

const (
	body        = `<body>hi</body>`
	emptyBody   = `<body/>`
	subject     = `<subject>news</subject>`
	composing   = `<composing xmlns='http://jabber.org/protocol/chatstates'/>`
	thread      = `<thread>t1</thread>`
	event       = `<x xmlns='jabber:x:event'><composing/></x>`
	stanzaID    = `<stanza-id xmlns='urn:xmpp:sid:0' id='1' by='example.com'/>`
	originID    = `<origin-id xmlns='urn:xmpp:sid:0' id='1'/>`
	delay       = `<delay xmlns='urn:xmpp:delay' from='room.example.net' stamp='2002-09-10T23:08:25Z'/>`
	request     = `<request xmlns='urn:xmpp:receipts'/>`
	received    = `<received xmlns='urn:xmpp:receipts' id='m1'/>`
	markable    = `<markable xmlns='urn:xmpp:chat-markers:0'/>`
	displayed   = `<displayed xmlns='urn:xmpp:chat-markers:0' id='m1'/>`
	other       = `<propose xmlns='urn:xmpp:jingle-message:0' id='1'/>`
	noStore     = `<no-store xmlns='urn:xmpp:hints'/>`
	noPermanent = `<no-permanent-store xmlns='urn:xmpp:hints'/>`
	noCopy      = `<no-copy xmlns='urn:xmpp:hints'/>`
	store       = `<store xmlns='urn:xmpp:hints'/>`
)

func parse(t testing.TB, raw string) *stanza.Stanza {
	t.Helper()
	st, err := stanza.Parse([]byte(raw), stanza.NewID())
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return st
}

func typed(t testing.TB, typ, inner string) *stanza.Stanza {
	t.Helper()
	attr := ""
	if typ != "" {
		attr = " type='" + typ + "'"
	}
	return parse(t, "<message xmlns='jabber:client' from='romeo@example.net/orchard' to='juliet@example.com'"+
		attr+">"+inner+"</message>")
}

// TestDecide is the table of the package's doc: RFC 6121 §8.5.2.2.1, XEP-0160 §3, XEP-0334 §4.
func TestDecide(t *testing.T) {
	keep := func(r offline.Reason) offline.Verdict { return offline.Verdict{Action: offline.Store, Reason: r} }
	drop := func(r offline.Reason) offline.Verdict { return offline.Verdict{Action: offline.Drop, Reason: r} }
	bounce := func(r offline.Reason) offline.Verdict { return offline.Verdict{Action: offline.Bounce, Reason: r} }

	// What is in chat and normal messages decides.
	chat := []struct {
		name, inner string
		want        offline.Verdict
	}{
		{"body", body, keep(offline.HasBody)},
		{"subject", subject, keep(offline.HasBody)},
		{"body and chat state", body + composing, keep(offline.HasBody)},
		{"body already delayed", body + delay, keep(offline.HasBody)},
		{"body and unknown", body + other, keep(offline.HasBody)},
		{"body, no-copy", body + noCopy, keep(offline.HasBody)},
		{"XEP-0184 request with body", body + request, keep(offline.HasBody)},
		{"XEP-0184 request", request, keep(offline.HasReceipt)},
		{"XEP-0184 receipt", received, keep(offline.HasReceipt)},
		{"XEP-0184 receipt and chat state", received + composing, keep(offline.HasReceipt)},
		{"XEP-0333 markable", markable, keep(offline.HasMarker)},
		{"XEP-0333 displayed", displayed, keep(offline.HasMarker)},
		{"XEP-0085 alone", composing, drop(offline.ChatStateOnly)},
		{"XEP-0085 with an empty body", composing + emptyBody, drop(offline.ChatStateOnly)},
		{"XEP-0085 in a thread", composing + thread, drop(offline.ChatStateOnly)},
		{"XEP-0085 with ids and delay", composing + stanzaID + originID + delay, drop(offline.ChatStateOnly)},
		{"XEP-0085 with no-store", composing + noStore, drop(offline.ChatStateOnly)},
		{"XEP-0085 with no-copy", composing + noCopy, drop(offline.ChatStateOnly)},
		{"XEP-0022 event", event, drop(offline.Empty)},
		{"nothing", "", drop(offline.Empty)},
		{"empty body", emptyBody, drop(offline.Empty)},
		{"only ids", stanzaID + originID + thread, drop(offline.Empty)},
		{"no body, other content", other, bounce(offline.Bodiless)},
		{"no body, chat state and other content", other + composing, bounce(offline.Bodiless)},
		{"XEP-0334 §4.4 store", other + store, keep(offline.HintStore)},
		{"XEP-0334 §4.4 store, chat state", composing + store, keep(offline.HintStore)},
		{"XEP-0334 §4.2 no-store with body", body + noStore, bounce(offline.HintNoStore)},
		{"XEP-0334 §4.2 no-store with subject", subject + noStore, bounce(offline.HintNoStore)},
		{"XEP-0334 §4.2 no-store without body", other + noStore, bounce(offline.HintNoStore)},
		{"XEP-0334 §4.2 no-store receipt", received + noStore, drop(offline.HintNoStore)},
		{"XEP-0334 §4.2 no-store marker", displayed + noStore, drop(offline.HintNoStore)},
		{"XEP-0334 §4.2 no-store alone", noStore, drop(offline.HintNoStore)},
		{"XEP-0334 no-store and store", body + store + noStore, bounce(offline.HintNoStore)},
		{"XEP-0334 §4.1 no-permanent-store", body + noPermanent, bounce(offline.HintNoPermanent)},
		{"XEP-0334 §4.1 no-permanent-store and store", body + store + noPermanent, bounce(offline.HintNoPermanent)},
		{"XEP-0334 §4.1 no-permanent-store receipt", received + noPermanent, drop(offline.HintNoPermanent)},
	}
	for _, typ := range []string{"chat", "normal", "", "x-unheard-of"} { // RFC 6121 §5.2.2: unknown is normal
		for _, tt := range chat {
			t.Run("type "+typ+"/"+tt.name, func(t *testing.T) {
				if got := offline.Decide(typed(t, typ, tt.inner), offline.Policy{}); got != tt.want {
					t.Errorf("%v for %v, want %v for %v", got.Action, got.Reason, tt.want.Action, tt.want.Reason)
				}
			})
		}
	}

	// Other types are decided by the type.
	for _, tt := range chat {
		for typ, want := range map[string]offline.Verdict{
			"error": drop(offline.TypeError), "groupchat": bounce(offline.TypeGroupchat), "headline": drop(offline.TypeHeadline),
		} {
			if typ == "headline" && strings.Contains(tt.inner, store) && !strings.Contains(tt.inner, "<no-") {
				want = keep(offline.HintStore)
			}
			t.Run("type "+typ+"/"+tt.name, func(t *testing.T) {
				if got := offline.Decide(typed(t, typ, tt.inner), offline.Policy{}); got != want {
					t.Errorf("%v for %v, want %v for %v", got.Action, got.Reason, want.Action, want.Reason)
				}
			})
		}
	}

	for _, tt := range []struct {
		name   string
		policy offline.Policy
		inner  string
		want   offline.Verdict
	}{
		{"OFFLINE_STORE_BODILESS", offline.Policy{StoreBodiless: true}, other, keep(offline.Bodiless)},
		{"OFFLINE_STORE_BODILESS", offline.Policy{StoreBodiless: true}, composing, drop(offline.ChatStateOnly)},
		{"OFFLINE_STORE_BODILESS", offline.Policy{StoreBodiless: true}, other + noStore, bounce(offline.HintNoStore)},
		{"OFFLINE_STORE_NO_PERMANENT", offline.Policy{StoreNoPermanent: true}, body + noPermanent, keep(offline.HasBody)},
		{"OFFLINE_STORE_NO_PERMANENT", offline.Policy{StoreNoPermanent: true}, composing + noPermanent, drop(offline.ChatStateOnly)},
		{"OFFLINE_STORE_NO_PERMANENT", offline.Policy{StoreNoPermanent: true}, body + noPermanent + noStore, bounce(offline.HintNoStore)},
		{"OFFLINE_STORAGE=error", offline.Policy{Storage: offline.StorageError}, body, bounce(offline.Disabled)},
		{"OFFLINE_STORAGE=error", offline.Policy{Storage: offline.StorageError}, composing, drop(offline.ChatStateOnly)},
		{"OFFLINE_STORAGE=error", offline.Policy{Storage: offline.StorageError}, body + noStore, bounce(offline.HintNoStore)},
		{"OFFLINE_STORAGE=drop", offline.Policy{Storage: offline.StorageDrop}, body, drop(offline.Disabled)},
		{"OFFLINE_STORAGE=drop", offline.Policy{Storage: offline.StorageDrop}, body + noStore, drop(offline.Disabled)},
		{"OFFLINE_STORAGE=drop", offline.Policy{Storage: offline.StorageDrop}, composing, drop(offline.ChatStateOnly)},
		{"OFFLINE_GROUPCHAT is about others", offline.Policy{Groupchat: true}, other, bounce(offline.Bodiless)},
	} {
		if got := offline.Decide(typed(t, "chat", tt.inner), tt.policy); got != tt.want {
			t.Errorf("%s: %s: %v for %v, want %v for %v", tt.name, tt.inner, got.Action, got.Reason, tt.want.Action, tt.want.Reason)
		}
	}

	// OFFLINE_GROUPCHAT: as chat.
	for _, tt := range chat {
		if got := offline.Decide(typed(t, "groupchat", tt.inner), offline.Policy{Groupchat: true}); got != tt.want {
			t.Errorf("OFFLINE_GROUPCHAT: %s: %v for %v, want %v for %v", tt.name, got.Action, got.Reason, tt.want.Action, tt.want.Reason)
		}
	}

	// OFFLINE_STORAGE=drop: rooms hear of it, whatever they would hear otherwise.
	for groupchat, want := range map[bool]offline.Reason{false: offline.TypeGroupchat, true: offline.Disabled} {
		policy := offline.Policy{Storage: offline.StorageDrop, Groupchat: groupchat}
		if got := offline.Decide(typed(t, "groupchat", body), policy); got != bounce(want) {
			t.Errorf("OFFLINE_STORAGE=drop, groupchat: %v for %v, want %v", got.Action, got.Reason, want)
		}
	}

	for _, raw := range []string{
		`<presence xmlns='jabber:client' from='romeo@example.net/orchard' to='juliet@example.com'/>`,
		`<iq xmlns='jabber:client' from='romeo@example.net/orchard' to='juliet@example.com' type='get' id='1'><q xmlns='x'/></iq>`,
	} {
		if got := offline.Decide(parse(t, raw), offline.Policy{}); got != drop(offline.NotMessage) {
			t.Errorf("%s: %v", raw, got)
		}
	}
}

// TestVerdictCondition: XEP-0160 §2 wants service-unavailable, the sender wants to know why.
func TestVerdictCondition(t *testing.T) {
	for _, r := range []offline.Reason{
		offline.TypeGroupchat, offline.HintNoStore, offline.HintNoPermanent, offline.Bodiless,
		offline.Matcher, offline.Disabled, offline.PairFull, offline.MessagesFull, offline.BytesFull,
	} {
		e := offline.Verdict{Action: offline.Bounce, Reason: r}.Condition()
		if e.Condition != "service-unavailable" || e.Type != "cancel" || e.Text["en"] == "" {
			t.Errorf("%v: %+v", r, e)
		}
	}
}
