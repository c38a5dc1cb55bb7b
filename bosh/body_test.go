package bosh

import (
	"testing"

	"holdfast/stanza"
)

// testScan reads what we wrote.
func testScan(b string) (*stanza.Element, error) {
	e := &stanza.Element{}
	return e, e.Scan([]byte(b), stanza.Limits{})
}

// The namespaces of <body/> are made explicit (XEP-0206 §3).
func TestChildren(t *testing.T) {
	for _, tt := range []struct{ body, want string }{
		{`<body rid='1' xmlns='http://jabber.org/protocol/httpbind'><message/></body>`, `<message xmlns='jabber:client'/>`},
		{`<body rid='1' xmlns='http://jabber.org/protocol/httpbind'><message to='a'><body/></message></body>`, `<message xmlns='jabber:client' to='a'><body/></message>`},
		{`<body rid='1' xmlns='http://jabber.org/protocol/httpbind'><message xmlns='http://jabber.org/protocol/httpbind'/></body>`, `<message xmlns='jabber:client'/>`},
		{`<body rid='1' xmlns='http://jabber.org/protocol/httpbind'><message xmlns="jabber:client"/></body>`, `<message xmlns="jabber:client"/>`},
		{`<b:body rid='1' xmlns:b='http://jabber.org/protocol/httpbind'><message/></b:body>`, `<message xmlns='jabber:client'/>`},
		{`<b:body rid='1' xmlns='jabber:client' xmlns:b='http://jabber.org/protocol/httpbind'><iq/></b:body>`, `<iq xmlns='jabber:client'/>`},
		{`<b:body rid='1' xmlns='urn:x' xmlns:b='http://jabber.org/protocol/httpbind'><iq/></b:body>`, `<iq xmlns='urn:x'/>`},
		{`<body rid='1' xmlns='http://jabber.org/protocol/httpbind' xmlns:x="urn:'x"><message><x:a/></message></body>`, `<message xmlns:x="urn:'x" xmlns='jabber:client'><x:a/></message>`},
		{`<body rid='1' xmlns='http://jabber.org/protocol/httpbind' xmlns:x='urn:x'><x:message xmlns='jabber:client'/></body>`, `<x:message xmlns:x='urn:x' xmlns='jabber:client'/>`},
		{`<body rid='1' xmlns='http://jabber.org/protocol/httpbind' xmlns:x='urn:x'><message xmlns:x='urn:y'><x:a/></message></body>`, `<message xmlns='jabber:client' xmlns:x='urn:y'><x:a/></message>`},
		{`<body rid='1' xmlns='http://jabber.org/protocol/httpbind' xmlns:xmpp='urn:xmpp:xbosh'><message><a xmlns='urn:xmpp:receipts'/></message></body>`, `<message xmlns='jabber:client'><a xmlns='urn:xmpp:receipts'/></message>`},
		{"\xef\xbb\xbf \n<?xml version='1.0' encoding='UTF-8'?>\n<body rid='1' xmlns='http://jabber.org/protocol/httpbind'> <iq/>\n</body>\n", `<iq xmlns='jabber:client'/>`},
	} {
		var b body
		if err := b.parse([]byte(tt.body), stanza.Limits{}); err != nil {
			t.Errorf("%s: %v", tt.body, err)
			continue
		}
		var e stanza.Element
		if err := b.child(&e, 0, stanza.Limits{}); err != nil {
			t.Errorf("%s: %v", tt.body, err)
			continue
		}
		if got := string(e.Raw()); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.body, got, tt.want)
		}
	}
}

func TestMalformed(t *testing.T) {
	for _, b := range []string{
		``, ` `, `<`, `<body`, `<body/>`, `<body xmlns='http://jabber.org/protocol/httpbind'/>`,
		`<body rid='' xmlns='http://jabber.org/protocol/httpbind'/>`,
		`<body rid='0' xmlns='http://jabber.org/protocol/httpbind'/>`,
		`<body rid='-1' xmlns='http://jabber.org/protocol/httpbind'/>`,
		`<body rid='+1' xmlns='http://jabber.org/protocol/httpbind'/>`,
		`<body rid='1.0' xmlns='http://jabber.org/protocol/httpbind'/>`,
		`<body rid='9007199254740992' xmlns='http://jabber.org/protocol/httpbind'/>`,
		`<body rid='99999999999999999999999999' xmlns='http://jabber.org/protocol/httpbind'/>`,
		`<body rid='1' xmlns='jabber:client'/>`,
		`<other rid='1' xmlns='http://jabber.org/protocol/httpbind'/>`,
		`<body rid='1' xmlns='http://jabber.org/protocol/httpbind'>text</body>`,
		`<body rid='1' xmlns='http://jabber.org/protocol/httpbind'><iq/>text</body>`,
		`<body rid='1' xmlns='http://jabber.org/protocol/httpbind'>text<iq/></body>`,
		`<body rid='1' xmlns='http://jabber.org/protocol/httpbind'><iq></body>`,
		`<body rid='1' xmlns='http://jabber.org/protocol/httpbind'/><body/>`,
		`<!DOCTYPE body><body rid='1' xmlns='http://jabber.org/protocol/httpbind'/>`,
		`<?xml version='1.0' encoding='ISO-8859-1'?><body rid='1' xmlns='http://jabber.org/protocol/httpbind'/>`,
		`<?xml version='1.0'`,
	} {
		var got body
		if err := got.parse([]byte(b), stanza.Limits{}); err == nil {
			t.Errorf("%q was accepted", b)
		}
	}
	var b body
	if err := b.parse([]byte(`<body rid='9007199254740991' xmlns='http://jabber.org/protocol/httpbind'/>`), stanza.Limits{}); err != nil {
		t.Error(err)
	}
}
