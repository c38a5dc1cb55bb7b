package stanza

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestKind(t *testing.T) {
	for _, tt := range []struct {
		raw  string
		want Kind
	}{
		{`<message xmlns='jabber:client'/>`, Message},
		{`<presence xmlns="jabber:client"/>`, Presence},
		{`<iq xmlns='jabber:client'/>`, IQ},
		{`<x:iq xmlns:x='jabber:client'/>`, IQ},
		{`<iq xmlns='jabber&#x3a;client'/>`, IQ},
		{`<message/>`, Other},
		{`<message xmlns=''/>`, Other},
		{`<message xmlns='jabber:server'/>`, Other},
		{`<x:message xmlns='jabber:client' xmlns:x='y'/>`, Other},
		{`<messages xmlns='jabber:client'/>`, Other},
		{`<Message xmlns='jabber:client'/>`, Other},
	} {
		if got := scan(t, tt.raw).Kind(); got != tt.want {
			t.Errorf("Kind of %s = %v, want %v", tt.raw, got, tt.want)
		}
	}
}

func TestPayloads(t *testing.T) {
	for child, want := range map[string]Payload{
		``:                                     0,
		`text`:                                 0,
		`<body>x</body>`:                       Body,
		`<body> </body>`:                       Body,
		`<body/>`:                              0,
		`<body></body>`:                        0,
		`<body xml:lang='de'/><body>x</body>`:  Body,
		`<body>x</body><body/>`:                Body,
		`<body xmlns=''>x</body>`:              Unknown,
		`<body xmlns='jabber:client'>x</body>`: Body,
		`<x xmlns='y'><body xmlns='jabber:client'>x</body></x>`: Unknown,
		`<subject/>`:                                                       Subject,
		`<thread/>`:                                                        Thread,
		`<error/>`:                                                         Error,
		`<delay xmlns='urn:xmpp:delay'/>`:                                  Delay,
		`<stanza-id xmlns='urn:xmpp:sid:0'/>`:                              StanzaID,
		`<origin-id xmlns='urn:xmpp:sid:0'/>`:                              OriginID,
		`<request xmlns='urn:xmpp:receipts'/>`:                             ReceiptRequest,
		`<request xmlns='urn:xmpp:receipt&#115;'/>`:                        ReceiptRequest,
		`<r:request xmlns:r='urn:xmpp:receipts'/>`:                         ReceiptRequest,
		`<received xmlns='urn:xmpp:receipts' id='1'/>`:                     ReceiptReceived,
		`<markable xmlns='urn:xmpp:chat-markers:0'/>`:                      Markable,
		`<received xmlns='urn:xmpp:chat-markers:0'/>`:                      MarkerReceived,
		`<displayed xmlns='urn:xmpp:chat-markers:0'/>`:                     MarkerDisplayed,
		`<acknowledged xmlns='urn:xmpp:chat-markers:0'/>`:                  MarkerAcknowledged,
		`<paused xmlns='http://jabber.org/protocol/chatstates'/>`:          ChatState,
		`<no-store xmlns='urn:xmpp:hints'/>`:                               HintNoStore,
		`<no-permanent-store xmlns='urn:xmpp:hints'/>`:                     HintNoPermanentStore,
		`<no-copy xmlns='urn:xmpp:hints'/>`:                                HintNoCopy,
		`<store xmlns='urn:xmpp:hints'/>`:                                  HintStore,
		`<x xmlns='jabber:x:event'/>`:                                      LegacyEvent,
		`<x xmlns='http://jabber.org/protocol/muc'/>`:                      MUC,
		`<x xmlns='http://jabber.org/protocol/muc#user'/>`:                 MUC,
		`<c xmlns='http://jabber.org/protocol/caps'/>`:                     Caps,
		`<amp xmlns='http://jabber.org/protocol/amp'/>`:                    AMP,
		`<x xmlns='jabber:x:oob'/>`:                                        Unknown,
		`<request xmlns='urn:xmpp:hints'/>`:                                Unknown,
		`<body>x</body><request xmlns='urn:xmpp:receipts'/><y xmlns='z'/>`: Body | ReceiptRequest | Unknown,
	} {
		raw := `<message xmlns='jabber:client'>` + child + `</message>`
		if got := scan(t, raw).Payloads(); got != want {
			t.Errorf("Payloads of %s = %b, want %b", child, got, want)
		}
	}
}

func TestElementReads(t *testing.T) {
	e := scan(t, `<m:message xmlns:m="jabber:client" xmlns='u&#58;v' m:id='no' id = "a&amp;b" type='' xml:lang='de' x='1`+"\t"+`2'>`+
		`one<m:body a='it&apos;s' b="">hi &lt;<i>not</i>&gt;<![CDATA[<&]]>`+"\r\n"+`</m:body>two<x/><m:y> </m:y  ></m:message>`)
	for name, want := range map[string]string{
		"id": "a&b", "type": "", "xml:lang": "de", "x": "1 2", "xmlns": "u:v", "xmlns:m": "jabber:client", "m:id": "no",
		"from": "", "to": "", "lang": "", "nothing": "",
	} {
		if got := e.Attr(name); got != want {
			t.Errorf("Attr(%q) = %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]bool{"id": true, "type": true, "xml:lang": true, "from": false, "lang": false} {
		if got := e.HasAttr(name); got != want {
			t.Errorf("HasAttr(%q) = %v", name, got)
		}
	}
	if got := string(e.IDRaw()); got != "a&amp;b" {
		t.Errorf("IDRaw() = %q", got)
	}
	if got := e.TypeRaw(); got == nil || len(got) != 0 {
		t.Errorf("TypeRaw() = %#v", got)
	}
	if !e.Is(NSClient, "message") || e.Is(NSClient, "m:message") || string(e.Name()) != "message" {
		t.Errorf("Name, Space = %s, %s", e.Name(), e.Space())
	}
	if got := e.Text(); got != "onetwo" {
		t.Errorf("Text() = %q", got)
	}
	if e.NumChildren() != 3 {
		t.Fatalf("NumChildren() = %d", e.NumChildren())
	}
	body, ok := e.Find(NSClient, "body")
	if !ok || body.Text() != "hi <><&\n" || body.Attr("a") != "it's" || !body.HasAttr("b") || body.HasAttr("c") {
		t.Errorf("body = %s, %q", body.Raw(), body.Text())
	}
	x := e.Child(1)
	if !x.Is("u:v", "x") || x.Inner() != nil || x.Text() != "" || string(x.Raw()) != "<x/>" {
		t.Errorf("x = %s {%s}%s", x.Raw(), x.Space(), x.Name())
	}
	if y := e.Child(2); string(y.Inner()) != " " || string(y.Raw()) != "<m:y> </m:y  >" {
		t.Errorf("y = %q", y.Raw())
	}
	if _, ok := e.Find("", "x"); ok {
		t.Error("found x in no namespace")
	}
	for _, c := range []Child{{}, e.Child(3), e.Child(-1)} {
		if c.Name() != nil || c.Space() != nil || c.Raw() != nil || c.Inner() != nil || c.Attr("a") != "" || c.Text() != "" {
			t.Error("an absent child is not empty")
		}
	}
}

func TestEmptyElementReads(t *testing.T) {
	var e Element
	if e.Kind() != Other || len(e.Name()) != 0 || e.Space() != nil || e.Attr("x") != "" || e.Attr("id") != "" ||
		e.Text() != "" || len(e.Inner()) != 0 || e.NumChildren() != 0 || len(e.Rewrite(Edit{}).Raw()) != 0 {
		t.Error("the zero Element is not empty")
	}
}

func TestDecode(t *testing.T) {
	type item struct {
		JID string `xml:"jid,attr"`
	}
	e := scan(t, `<iq xmlns='jabber:client' xmlns:r='jabber:iq:roster'><x/><r:query><r:item jid='a@b'/></r:query></iq>`)
	var whole struct {
		Items []item `xml:"jabber:iq:roster query>item"`
	}
	if err := e.Decode(&whole); err != nil || len(whole.Items) != 1 || whole.Items[0].JID != "a@b" {
		t.Errorf("Element.Decode: %v, %+v", err, whole)
	}
	var query struct {
		XMLName struct{} `xml:"jabber:iq:roster query"`
		Items   []item   `xml:"jabber:iq:roster item"`
	}
	c, _ := e.Find(NSRoster, "query")
	if err := c.Decode(&query); err != nil || len(query.Items) != 1 {
		t.Errorf("Child.Decode: %v, %+v", err, query)
	}
	if err := (Child{}).Decode(&query); err == nil {
		t.Error("decoding an absent child")
	}
}

// compareHeads says where two heads differ: all that Element knows, the references to raw included.
func compareHeads(want, got *Element) string {
	if !bytes.Equal(want.raw, got.raw) {
		return fmt.Sprintf("raw: %q, want %q", got.raw, want.raw)
	}
	show := func(e *Element) string {
		var b strings.Builder
		fmt.Fprintln(&b, e.payloads, e.id, e.typ, e.from, e.to, e.nameEnd, e.local, e.content, e.contentEnd, e.space, e.kind)
		for i := range e.children.n {
			fmt.Fprintln(&b, *e.children.at(i))
		}
		return b.String()
	}
	if w, g := show(want), show(got); w != g {
		return fmt.Sprintf("head of %q:\n%swant\n%s", want.raw, g, w)
	}
	return ""
}
