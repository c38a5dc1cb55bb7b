package bosh

import (
	"testing"

	"holdfast/stanza"
)

// Whatever a client sends, what leaves <body/> stands for itself.
func FuzzBody(f *testing.F) {
	for _, s := range []string{
		wrap(1, createAttrs, ""), wrap(2, " sid='x' ack='1' key='a' newkey='b' pause='1' type='terminate'", message(1)+" <iq/>\n"),
		`<b:body rid='1' xmlns='urn:x' xmlns:b='http://jabber.org/protocol/httpbind' xmlns:c="urn:'c"><c:a d:e='f' xmlns:d='g'><c:h/></c:a></b:body>`,
		`<?xml version='1.0'?><body rid="9007199254740991" xmlns='http://jabber.org/protocol/httpbind'><message xmlns='http://jabber.org/protocol/httpbind'/></body>`,
		`<body x:restart='1' xmlns:x='urn:xmpp:xbosh' rid = '1' xmlns='http://jabber.org/protocol/httpbind'><a xmlns:b='c'>&lt;![CDATA[</a></body>`,
	} {
		f.Add([]byte(s))
	}
	lim := stanza.Limits{Depth: 32, Attrs: 32, Children: 32}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var b body
		var in inbox
		sid := in.sidOf(raw)
		if b.parse(raw, lim) != nil {
			return
		}
		if sid != "" && sid != b.elem.Attr("sid") {
			t.Fatalf("sid %q, %q", sid, b.sid)
		}
		for i := range b.elem.NumChildren() {
			var e, again stanza.Element
			if b.child(&e, i, lim) != nil {
				continue
			}
			if err := again.Scan(e.Raw(), lim); err != nil {
				t.Fatalf("%q is not self-contained: %v", e.Raw(), err)
			}
			if string(e.Space()) == nsBind && e.HasAttr("xmlns") && string(e.Name()) == string(e.Raw()[1:1+len(e.Name())]) {
				t.Fatalf("%q is in the namespace of the binding", e.Raw())
			}
		}
	})
}
