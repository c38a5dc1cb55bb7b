package stanza

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var (
	juliet  = MustParseAddr("juliet@capulet.example/balcony")
	romeo   = MustParseAddr("romeo@montague.example")
	tricky  = MustParseAddr(`romeo@montague.example/<'"& >`)
	stampID = ID{0x01, 0x9a, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 1}
)

const stamped = `<stanza-id xmlns='urn:xmpp:sid:0' id='019a0000-0000-7000-8000-000000000001' by='romeo@montague.example'/>`

func TestRewrite(t *testing.T) {
	for _, tt := range []struct {
		name, raw string
		edit      Edit
		want      string
	}{
		{
			"RFC 6120 §8.1.2.1: from is stamped",
			`<message xmlns='jabber:client' to='romeo@montague.example' id='1'><body>x</body></message>`,
			Edit{From: juliet, To: romeo},
			`<message from='juliet@capulet.example/balcony' to='romeo@montague.example' xmlns='jabber:client' id='1'><body>x</body></message>`,
		},
		{
			"from is replaced, to is removed, quotes and spaces of the rest stay",
			"<iq\tfrom = \"x@y\"\n id=\"it's\"  to='a'  xmlns='jabber:client' type='get' ><q xmlns='z'/></iq >",
			Edit{From: juliet},
			"<iq from='juliet@capulet.example/balcony'\n id=\"it's\"  xmlns='jabber:client' type='get' ><q xmlns='z'/></iq >",
		},
		{
			"values are escaped",
			`<presence xmlns='jabber:client'/>`,
			Edit{From: tricky, Type: `a'b`},
			`<presence from='romeo@montague.example/&lt;&#39;&#34;&amp; &gt;' type='a&#39;b' xmlns='jabber:client'/>`,
		},
		{
			"type is replaced",
			`<message type="chat" xmlns='jabber:client'/>`,
			Edit{Type: "error"},
			`<message type='error' xmlns='jabber:client'/>`,
		},
		{
			"attributes of that name with a prefix stay",
			`<message xmlns='jabber:client' xmlns:x='y' x:from='1' from='2'/>`,
			Edit{},
			`<message xmlns='jabber:client' xmlns:x='y' x:from='1'/>`,
		},
		{
			"an empty stanza gets children",
			`<c:presence xmlns:c='jabber:client' />`,
			Edit{Append: []byte(`<x xmlns='y'/>`)},
			`<c:presence xmlns:c='jabber:client' ><x xmlns='y'/></c:presence>`,
		},
		{
			"XEP-0359 §3.1: by the gateway is stripped, by others stays",
			`<message xmlns='jabber:client'><stanza-id xmlns='urn:xmpp:sid:0' id='f' by='romeo@montague.example'/>a` +
				`<body>x</body><s:stanza-id xmlns:s='urn:xmpp:sid:0' by='ROMEO@montague.example'>b</s:stanza-id>` +
				`<stanza-id xmlns='urn:xmpp:sid:0' id='o' by='room@muc.example'/><stanza-id xmlns='other' by='romeo@montague.example'/></message>`,
			Edit{ID: stampID, IDBy: romeo},
			`<message xmlns='jabber:client'>a<body>x</body><stanza-id xmlns='urn:xmpp:sid:0' id='o' by='room@muc.example'/>` +
				`<stanza-id xmlns='other' by='romeo@montague.example'/>` + stamped + `</message>`,
		},
		{
			"XEP-0359: an empty message is stamped",
			`<message xmlns='jabber:client'/>`,
			Edit{ID: stampID, IDBy: romeo},
			`<message xmlns='jabber:client'>` + stamped + `</message>`,
		},
		{
			"without by, nothing is written",
			`<message xmlns='jabber:client'/>`,
			Edit{ID: stampID},
			`<message xmlns='jabber:client'/>`,
		},
		{
			"what is appended comes last",
			`<message xmlns='jabber:client'><body>x</body></message>`,
			Edit{ID: stampID, IDBy: romeo, Append: []byte(`<delay xmlns='urn:xmpp:delay'/><store xmlns='urn:xmpp:hints'/>`)},
			`<message xmlns='jabber:client'><body>x</body>` + stamped + `<delay xmlns='urn:xmpp:delay'/><store xmlns='urn:xmpp:hints'/></message>`,
		},
		{
			"what is not well-formed is not appended",
			`<message xmlns='jabber:client'/>`,
			Edit{To: romeo, Append: []byte(`</message><message>`)},
			`<message to='romeo@montague.example' xmlns='jabber:client'/>`,
		},
		{
			"what is not complete is not appended",
			`<message xmlns='jabber:client'></message>`,
			Edit{Append: []byte(`<a>`)},
			`<message xmlns='jabber:client'></message>`,
		},
		{
			"white space after the element is dropped",
			"<message xmlns='jabber:client'/>\r\n",
			Edit{},
			`<message xmlns='jabber:client'/>`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := scan(t, tt.raw).Rewrite(tt.edit)
			if string(st.Raw()) != tt.want {
				t.Errorf("got  %s\nwant %s", st.Raw(), tt.want)
			}
			checkRewritten(t, st)
			if st.From != tt.edit.From || st.To != tt.edit.To || st.ID != tt.edit.ID {
				t.Errorf("From, To, ID = %v, %v, %v", st.From, st.To, st.ID)
			}
		})
	}
}

// checkRewritten: the head that was carried over is the one that a scan finds.
func checkRewritten(t interface {
	Helper()
	Fatalf(string, ...any)
}, st *Stanza,
) {
	t.Helper()
	var e Element
	if err := e.Scan(st.Raw(), Limits{}); err != nil {
		t.Fatalf("Scan(%q): %v", st.Raw(), err)
	}
	if diff := compareHeads(&e, &st.Element); diff != "" {
		t.Fatalf("head was not carried over: %s", diff)
	}
	for name, want := range map[string]Addr{"from": st.From, "to": st.To} {
		if got, err := e.AddrAttr(name); err != nil || got != want {
			t.Fatalf("%s = %v, %v, want %v", name, got, err, want)
		}
	}
}

func TestRewriteKeepsID(t *testing.T) {
	st := scan(t, chat).Rewrite(Edit{From: juliet, To: romeo, ID: stampID, IDBy: romeo})
	again := st.Rewrite(Edit{From: st.From, To: juliet})
	if again.ID != stampID || again.To != juliet || again.From != juliet {
		t.Errorf("rewritten again: %v %v %v", again.ID, again.From, again.To)
	}
	checkRewritten(t, again)
}

// TestRewriteSharesNothing: the buffer that a frame was read into is used again.
func TestRewriteSharesNothing(t *testing.T) {
	raw := []byte(`<message xmlns='jabber:client'>` + strings.Repeat(`<a b='c'/>`, 20) + `</message>`)
	var e Element
	if err := e.Scan(raw, Limits{}); err != nil {
		t.Fatal(err)
	}
	st := e.Rewrite(Edit{From: juliet})
	want := string(st.Raw())
	for i := range raw {
		raw[i] = '!'
	}
	if err := e.Scan([]byte("<x>"+strings.Repeat("<yy/>", 30)+"</x>"), Limits{}); err != nil {
		t.Fatal(err)
	}
	if string(st.Raw()) != want {
		t.Error("the stanza changed with the buffer")
	}
	checkRewritten(t, st)
}

// drawElement draws elements of all the spellings that Rewrite has to keep.
func drawElement(t *rapid.T) string {
	space := rapid.StringMatching(`[ \t\n]{0,2}`)
	gap := rapid.StringMatching(`[ \t\n]{1,2}`)
	quote := rapid.SampledFrom([]string{"'", `"`})
	name := rapid.SampledFrom([]string{"message", "presence", "iq", "x"}).Draw(t, "name")
	prefix := rapid.SampledFrom([]string{"", "", "c:", "long-prefix:"}).Draw(t, "prefix")
	decl := "xmlns"
	if prefix != "" {
		decl += ":" + strings.TrimSuffix(prefix, ":")
	}
	attrs := []string{decl + "='jabber:client'"}
	values := rapid.SampledFrom([]string{"", "a@b", "x/y", "&lt;", "a\tb", ">", "&#39;"})
	for _, a := range []string{"from", "to", "type", "id", "xml:lang", "fromto", "z"} {
		if rapid.Bool().Draw(t, "has "+a) {
			q := quote.Draw(t, "quote")
			attrs = append(attrs, a+space.Draw(t, "s")+"="+space.Draw(t, "s")+q+values.Draw(t, "value")+q)
		}
	}
	attrs = rapid.Permutation(attrs).Draw(t, "attrs")
	var b strings.Builder
	b.WriteString("<" + prefix + name)
	for _, a := range attrs {
		b.WriteString(gap.Draw(t, "gap") + a)
	}
	b.WriteString(space.Draw(t, "s"))
	if rapid.Bool().Draw(t, "empty") {
		return b.String() + "/>"
	}
	b.WriteString(">")
	for range rapid.IntRange(0, 12).Draw(t, "children") {
		b.WriteString(rapid.SampledFrom([]string{
			"text", "&amp;", "<![CDATA[<]]>", "<body>x</body>", "<body/>", "<" + prefix + "body>y</" + prefix + "body>",
			"<request xmlns='urn:xmpp:receipts'/>", "<stanza-id xmlns='urn:xmpp:sid:0' id='1' by='romeo@montague.example'/>",
			"<s:stanza-id xmlns:s='urn:xmpp:sid:0' by=\"romeo&#64;montague.example\"><b/></s:stanza-id>",
			"<stanza-id xmlns='urn:xmpp:sid&#58;0' id='1' by='romeo@montague.example'/>",
			"<stanza-id xmlns='urn:xmpp:sid:0' id='2' by='other@montague.example'/>", "<xml:x/>", "<y xmlns=''/>",
			"<delay xmlns='urn:xmpp:delay' from='montague.example' stamp='s'/>", "<d:delay xmlns:d='urn:xmpp:delay' from='other.example'>x</d:delay>",
			"<delay xmlns='urn:xmpp:delay' from='MONTAGUE.example'/>", "<delay xmlns='urn:xmpp:delay'/>", "<delay xmlns='urn:xmpp:delay' from='@'/>",
			"<x xmlns='jabber:x:expire' seconds='1'/>", "<offline xmlns='http://jabber.org/protocol/offline'><item node='1'/></offline>",
		}).Draw(t, "child"))
	}
	return b.String() + "</" + prefix + name + space.Draw(t, "s") + ">"
}

func TestRewriteProperty(t *testing.T) {
	addrs := rapid.SampledFrom([]Addr{{}, juliet, romeo, tricky})
	rapid.Check(t, func(t *rapid.T) {
		raw := drawElement(t)
		var e Element
		if err := e.Scan([]byte(raw), Limits{}); err != nil {
			t.Fatalf("Scan(%q): %v", raw, err)
		}
		ed := Edit{
			From: addrs.Draw(t, "From"), To: addrs.Draw(t, "To"),
			Type:   rapid.SampledFrom([]string{"", "error", "<'>"}).Draw(t, "Type"),
			Append: []byte(rapid.SampledFrom([]string{"", "<body>z</body>", "<x xmlns='y'><z/></x><store xmlns='urn:xmpp:hints'/>"}).Draw(t, "Append")),
		}
		if rapid.Bool().Draw(t, "stamp") {
			ed.ID, ed.IDBy = stampID, romeo
		}
		ed.Without = rapid.SampledFrom([]Payload{0, Delay, Expire, Delay | Retrieved, Delay | Expire | Retrieved}).Draw(t, "Without")
		ed.DelayBy = func(a Addr) bool { return a == romeo.Server() }
		st := e.Rewrite(ed)
		checkRewritten(t, st)
		if err := rewritten(&e, st, ed); err != nil {
			t.Fatalf("%q\n%q: %v", raw, st.Raw(), err)
		}
		if len(st.Raw()) != cap(st.Raw()) {
			t.Fatalf("raw bytes may be appended to")
		}
	})
}

// rewritten checks that st is e with the changes of ed and no others.
func rewritten(e *Element, st *Stanza, ed Edit) error {
	if !bytes.Equal(st.Name(), e.Name()) || !bytes.Equal(st.Space(), e.Space()) || st.Kind() != e.Kind() {
		return fmt.Errorf("name changed")
	}
	for _, a := range []string{"id", "xml:lang", "fromto", "z"} {
		want, had := e.AttrRaw(a)
		if got, has := st.AttrRaw(a); has != had || !bytes.Equal(got, want) {
			return fmt.Errorf("%s changed to %q", a, got)
		}
	}
	wantType := ed.Type
	if wantType == "" {
		wantType = e.Attr("type")
	}
	if st.Attr("type") != wantType {
		return fmt.Errorf("type is %q", st.Attr("type"))
	}
	var want, got []string
	less := false // children than before
	stamp := !ed.ID.IsZero() && !ed.IDBy.IsZero()
	for i := range e.NumChildren() {
		c := e.Child(i)
		switch {
		case stamp && forged(c, ed.IDBy):
		case ed.Without.Has(Expire) && c.Is(NSExpire, "x"), ed.Without.Has(Retrieved) && c.Is(NSOffline, "offline"):
			less = true
		case ed.Without.Has(Delay) && c.Is(NSDelay, "delay") && strings.EqualFold(c.Attr("from"), romeo.Domain()):
			less = true
		default:
			want = append(want, fmt.Sprintf("{%s}%s", c.Space(), c.Raw()))
		}
	}
	if stamp {
		by := AppendEscaped(nil, ed.IDBy.String())
		want = append(want, fmt.Sprintf("{%s}<stanza-id xmlns='urn:xmpp:sid:0' id='%s' by='%s'/>", NSStanzaID, ed.ID, by))
	}
	for i := range st.NumChildren() {
		c := st.Child(i)
		got = append(got, fmt.Sprintf("{%s}%s", c.Space(), c.Raw()))
	}
	if len(got) < len(want) || strings.Join(got[:len(want)], "\n") != strings.Join(want, "\n") {
		return fmt.Errorf("children:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !stamp && !less && len(ed.Append) == 0 && !bytes.Equal(st.Inner(), e.Inner()) {
		return fmt.Errorf("content changed")
	}
	return nil
}

// FuzzRewrite: whatever was accepted and whatever is added, the result is well-formed and its head is right.
func FuzzRewrite(f *testing.F) {
	for _, raw := range accepted {
		f.Add([]byte(raw), []byte("<x xmlns='y'/>"), "chat", true)
		f.Add([]byte(raw), []byte(""), "", false)
	}
	f.Add([]byte(chat), []byte("</message>"), "<'", true)
	f.Add([]byte(`<a xmlns:p='x'/>`), []byte("<p:b/>"), "", false)
	f.Fuzz(func(t *testing.T, raw, add []byte, typ string, stamp bool) {
		var e Element
		if e.Scan(raw, Limits{}) != nil {
			return
		}
		ed := Edit{From: juliet, To: tricky, Type: typ, Append: add}
		if stamp {
			ed.ID, ed.IDBy = stampID, romeo
		}
		st := e.Rewrite(ed)
		checkRewritten(t, st)
		ed.Type = string(AppendEscaped(nil, typ))
		if v, _ := st.AttrRaw("type"); typ != "" && string(v) != ed.Type {
			t.Fatalf("type = %q", v)
		}
		ed.Type = st.Attr("type")
		if err := rewritten(&e, st, ed); err != nil {
			t.Fatalf("%q\n%q: %v", raw, st.Raw(), err)
		}
	})
}
