package receipts_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"holdfast/receipts"
	"holdfast/stanza"
)

const (
	request  = `<request xmlns='urn:xmpp:receipts'/>`
	received = `<received xmlns='urn:xmpp:receipts' id='m1'/>`
)

func parse(t testing.TB, raw string) *stanza.Stanza {
	t.Helper()
	st, err := stanza.Parse([]byte(raw), stanza.NewID())
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return st
}

func message(attrs, inner string) string {
	return `<message xmlns='jabber:client' from='a@x.example/1' to='b@x.example' ` + attrs + `>` + inner + `</message>`
}

func TestAsks(t *testing.T) {
	for _, tt := range []struct {
		name, raw string
		want      bool
	}{
		{"XEP-0184 §4 normal", message(`id='r1'`, `<body>hi</body>`+request), true},
		{"XEP-0184 §5 chat", message(`id='r1' type='chat'`, `<body>hi</body>`+request), true},
		{"XEP-0184 §5 headline", message(`id='r1' type='headline'`, request), true},
		{"XEP-0184 §5 without a body", message(`id='r1' type='chat'`, request), true},
		{"prefixed", message(`id='r1' xmlns:r='urn:xmpp:receipts'`, `<r:request/>`), true},
		{"no request", message(`id='r1' type='chat'`, `<body>hi</body>`), false},
		{"request of another namespace", message(`id='r1'`, `<request xmlns='urn:example'/>`), false},
		{"request further inside", message(`id='r1'`, `<x xmlns='urn:example'>`+request+`</x>`), false},
		{"XEP-0184 §4 without an id", message(``, `<body>hi</body>`+request), false},
		{"XEP-0184 §4 with an empty id", message(`id=''`, `<body>hi</body>`+request), false},
		{"XEP-0184 §5 error", message(`id='r1' type='error'`, request), false},
		{"XEP-0184 §5 error, written with a reference", message(`id='r1' type='err&#111;r'`, request), false},
		{"XEP-0184 §5.3 groupchat", message(`id='r1' type='groupchat'`, request), false},
		{"XEP-0184 §5.4 in an ack message", message(`id='r1'`, received+request), false},
		{"iq", `<iq xmlns='jabber:client' id='r1' type='set' from='a@x.example/1'>` + request + `</iq>`, false},
		{"presence", `<presence xmlns='jabber:client' id='r1' from='a@x.example/1'>` + request + `</presence>`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := receipts.Asks(parse(t, tt.raw)); got != tt.want {
				t.Errorf("Asks = %v, want %v", got, tt.want)
			}
		})
	}
}

type proved struct {
	by receipts.Proof
	id string
}

func collect(p receipts.Policy, st *stanza.Stanza) (all []proved) {
	for by, id := range p.Proved(st) {
		all = append(all, proved{by, id})
	}
	return all
}

func TestProved(t *testing.T) {
	marker := func(name, id string) string {
		return `<` + name + ` xmlns='urn:xmpp:chat-markers:0' id='` + id + `'/>`
	}
	byReceipt := []proved{{receipts.ByReceipt, "m1"}}
	byMarker := []proved{{receipts.ByMarker, "m1"}}
	for _, tt := range []struct {
		name, raw string
		want      []proved // with every proof
		bare      []proved // with receipts alone
	}{
		{"XEP-0184 §4", message(`id='x'`, received), byReceipt, byReceipt},
		{"XEP-0184 §4 without an id of its own", message(``, received), byReceipt, byReceipt},
		{"XEP-0184 §4 another type", message(`type='headline'`, received), byReceipt, byReceipt},
		{"XEP-0184 §4 with a delay", message(``, received+`<delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/>`), byReceipt, byReceipt},
		{"XEP-0184 §5.4 with a forbidden request", message(`id='x'`, request+received), byReceipt, byReceipt},
		{"escaped id", message(``, `<received xmlns='urn:xmpp:receipts' id='a&amp;b'/>`), []proved{{receipts.ByReceipt, "a&b"}}, []proved{{receipts.ByReceipt, "a&b"}}},
		{"no id", message(``, `<received xmlns='urn:xmpp:receipts'/>`), nil, nil},
		{"empty id", message(``, `<received xmlns='urn:xmpp:receipts' id=''/>`), nil, nil},
		{"error that quotes a receipt", message(`type='error'`, received), nil, nil},
		{"groupchat", message(`type='groupchat'`, received), nil, nil},
		{"carbon of another namespace", message(``, `<received xmlns='urn:xmpp:carbons:2' id='m1'/>`), nil, nil},
		{"request alone", message(`id='m1'`, request), nil, nil},
		{"iq", `<iq xmlns='jabber:client' id='q' type='set' from='a@x.example/1'>` + received + `</iq>`, nil, nil},
		{"XEP-0333 displayed", message(`id='x'`, marker("displayed", "m1")), byMarker, nil},
		{"XEP-0333 0.4 received", message(`id='x'`, marker("received", "m1")), byMarker, nil},
		{"XEP-0333 0.4 acknowledged", message(`id='x'`, marker("acknowledged", "m1")), byMarker, nil},
		{"XEP-0333 markable proves nothing", message(`id='m1'`, marker("markable", "m1")), nil, nil},
		{"XEP-0333 without an id", message(`id='x'`, `<displayed xmlns='urn:xmpp:chat-markers:0'/>`), nil, nil},
		{"both", message(``, received+marker("displayed", "m0")), []proved{{receipts.ByReceipt, "m1"}, {receipts.ByMarker, "m0"}}, byReceipt},
		{"several receipts", message(``, received+`<received xmlns='urn:xmpp:receipts' id='m2'/>`), []proved{{receipts.ByReceipt, "m1"}, {receipts.ByReceipt, "m2"}}, []proved{{receipts.ByReceipt, "m1"}, {receipts.ByReceipt, "m2"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := parse(t, tt.raw)
			if got := collect(receipts.DefaultConfig().Policy(), st); !slices.Equal(got, tt.want) {
				t.Errorf("with every proof: %v, want %v", got, tt.want)
			}
			if got := collect(receipts.Policy{}, st); !slices.Equal(got, tt.bare) {
				t.Errorf("with receipts alone: %v, want %v", got, tt.bare)
			}
			id, ok := receipts.Receipt(st)
			if want := len(tt.bare) > 0; ok != want || ok && id != tt.bare[0].id {
				t.Errorf("Receipt = %q, %v", id, ok)
			}
		})
	}
}

func TestAckPolicy(t *testing.T) {
	with := receipts.DefaultConfig().Policy()
	without := receipts.Config{Proof: []receipts.Proof{receipts.ByReceipt}}.Policy()
	for s, want := range map[receipts.Support]bool{
		receipts.Unknown: false, receipts.Supported: false, receipts.Unsupported: true,
	} {
		if got := with.Ack(s); got != want {
			t.Errorf("Ack(%v) = %v, want %v", s, got, want)
		}
		if without.Ack(s) {
			t.Errorf("Ack(%v) counts although it is not among the proofs", s)
		}
	}
}

func TestSupportOf(t *testing.T) {
	iq := func(typ, inner string) string {
		return `<iq xmlns='jabber:client' from='a@x.example/1' id='d' type='` + typ + `'>` + inner + `</iq>`
	}
	const info = `<query xmlns='http://jabber.org/protocol/disco#info'>`
	for _, tt := range []struct {
		name, raw string
		want      receipts.Support
	}{
		{"XEP-0184 §6 advertised", iq("result", info+`<identity category='client' type='phone'/><feature var='urn:xmpp:ping'/><feature var='urn:xmpp:receipts'/></query>`), receipts.Supported},
		{"not advertised", iq("result", info+`<feature var='urn:xmpp:ping'/></query>`), receipts.Unsupported},
		{"an error answers nothing", iq("error", info+`</query>`), receipts.Unknown},
		{"no query", iq("result", ``), receipts.Unknown},
		{"another query", iq("result", `<query xmlns='jabber:iq:version'><feature var='urn:xmpp:receipts'/></query>`), receipts.Unknown},
		{"a feature of another namespace", iq("result", info+`<feature xmlns='urn:example' var='urn:xmpp:receipts'/></query>`), receipts.Unsupported},
		{"not an iq", message(``, info+`<feature var='urn:xmpp:receipts'/></query>`), receipts.Unknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := receipts.SupportOf(parse(t, tt.raw))
			if err != nil || got != tt.want {
				t.Errorf("SupportOf = %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

// A message never both asks for a receipt and gives one, so that no two clients can loop (XEP-0184 §5.4).
func TestNeverBoth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		inner := ""
		for _, c := range rapid.SliceOf(rapid.SampledFrom([]string{request, received, `<body>x</body>`, `<displayed xmlns='urn:xmpp:chat-markers:0' id='m'/>`})).Draw(t, "children") {
			inner += c
		}
		typ := rapid.SampledFrom([]string{"", "chat", "normal", "headline", "error", "groupchat"}).Draw(t, "type")
		st := stanza.New(stanza.Message, typ, "i", stanza.MustParseAddr("a@x.example/1"), stanza.MustParseAddr("b@x.example"), []byte(inner))
		if _, ok := receipts.Receipt(st); ok && receipts.Asks(st) {
			t.Fatalf("both: %s", st.Raw())
		}
	})
}

func TestRulesAllocateNothing(t *testing.T) {
	st := parse(t, message(`id='r1' type='chat'`, `<body>hi</body>`+request))
	policy := receipts.DefaultConfig().Policy()
	if n := testing.AllocsPerRun(100, func() {
		if !receipts.Asks(st) {
			t.Fatal("does not ask")
		}
		for range policy.Proved(st) {
			t.Fatal("proves")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkProved(b *testing.B) {
	st := parse(b, message(`id='x'`, received))
	policy := receipts.DefaultConfig().Policy()
	b.ReportAllocs()
	for b.Loop() {
		for _, id := range policy.Proved(st) {
			if id != "m1" {
				b.Fatal(id)
			}
		}
	}
}
