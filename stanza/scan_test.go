package stanza

import (
	"encoding/xml"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// chat is an ordinary message: a body, a request for a receipt, a chat state.
const chat = `<message xmlns='jabber:client' to='romeo@montague.example/orchard' from='juliet@capulet.example/balcony' ` +
	`id='b4c6e9a0-7d0f-4f6e-9a39-0f9e6d3c1a11' type='chat'><body>Wherefore art thou, Romeo? Deny thy father and ` +
	`refuse thy name</body><request xmlns='urn:xmpp:receipts'/><active xmlns='http://jabber.org/protocol/chatstates'/></message>`

// ordinary is about what a session would set.
var ordinary = Limits{Size: 1 << 18, Depth: 32, Attrs: 64, Children: 256}

func scan(t testing.TB, raw string) *Element {
	t.Helper()
	e := new(Element)
	if err := e.Scan([]byte(raw), Limits{}); err != nil {
		t.Fatalf("Scan(%q): %v", raw, err)
	}
	return e
}

// accepted is also the seed of the fuzzing.
var accepted = []string{
	chat,
	`<a/>`,
	`<a></a>`,
	"<a\t\r\n/>",
	`<a  ></a  >`,
	"<a/> \t\r\n",
	`<a b='"' c="'" d = '>'/>`,
	"<a b='1\n2\t3\r\n4\r5&#10;6'/>",
	`<a b=''/>`,
	`<a>&lt;&gt;&amp;&quot;&apos;&#65;&#x1F600;&#xa;&#0000000000000000000065;</a>`,
	`<a b='&lt;&gt;&amp;&quot;&apos;&#60;'/>`,
	`<a>]]</a>`, `<a>]]&gt;</a>`, `<a>]&#93;></a>`, `<a b=']]>'/>`,
	`<a><![CDATA[<&]]]]><![CDATA[>]]></a>`,
	`<a><![CDATA[]]></a>`,
	"<a>\ttext\r\n\x7f\u0085\u00a0</a>",
	`<a>приве́т 世界 😀 ` + "\U0010FFFF\uFFFD\uD7FF\uE000" + `</a>`,
	`<a.b-c_d1/>`, `<_/>`, `<é/>`, `<世·界/>`,
	`<p:a xmlns:p='x'/>`,
	`<p:a xmlns:p='x'><p:b p:c='1' c='2'/></p:a>`,
	`<a xmlns='x'><b xmlns=''/><b/></a>`,
	`<a xml:lang='de' xml:space='preserve'/>`,
	`<xml:a/>`,
	`<a xmlns:xml='http://www.w3.org/XML/1998/namespace'/>`,
	`<a xmlns:p='x' xmlns:q='y' p:c='' q:c=''/>`,
	`<a xmlns:p='x'><b xmlns:p='y'><p:c/></b><p:c/></a>`,
	`<a xmlns='jabber&#58;client'><b/></a>`,
	`<message xmlns='jabber&#58;client'><body>x</body></message>`,
	"<message xmlns=\"jabber:client\"><body/><subject></subject><thread>t</thread></message>",
	`<c:message xmlns:c='jabber:client' to="a'b"><c:body>hi</c:body><body/></c:message>`,
	`<presence xmlns='jabber:client'/>`,
	`<presence xmlns='jabber:client'><show>away</show><c xmlns='http://jabber.org/protocol/caps' node='n' ver='v' hash='sha-1'/></presence>`,
	`<iq xmlns='jabber:client' type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>`,
	`<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.com' version='1.0'/>`,
	`<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGp1bGlldAByMG0zMG15cjBtMzA=</auth>`,
	`<a><b/><b/><b/><b/><b/><b/><b/><b/><b/><b x='9'/></a>`,
	`<a a='' b='' c='' d='' e='' f='' g='' h='' i='' j='' k='' l='' m='' n='' o='' p='' q='' r='' s='' t=''/>`,
	`<a>x<b>y<c>z</c></b>w<!` + `[CDATA[v]]></a>`,
	`<a><b c='>' d='/'>e</b>f</a>`,
}

// refused holds what Scan must not let pass, by the stream error it amounts to.
var refused = []struct {
	rule string
	raw  string
	want StreamError
}{
	{"RFC 7395 §3.3: starts with <", ``, NotWellFormed},
	{"RFC 7395 §3.3: starts with <", `<`, NotWellFormed},
	{"RFC 7395 §3.3: starts with <", ` <a/>`, NotWellFormed},
	{"RFC 7395 §3.3: starts with <", "\uFEFF<a/>", NotWellFormed},
	{"RFC 7395 §3.3: starts with <", `a`, NotWellFormed},
	{"RFC 7395 §3.3: one element", `<a/><b/>`, NotWellFormed},
	{"RFC 7395 §3.3: one element", `<a></a>b`, NotWellFormed},
	{"RFC 7395 §3.3: one element", `<a/><!-- c -->`, NotWellFormed},
	{"RFC 7395 §3.3: one element", "<a/>\x00", NotWellFormed},

	{"RFC 6120 §11.1: XML declaration", `<?xml version='1.0'?><a/>`, RestrictedXML},
	{"RFC 6120 §11.1: processing instruction", `<a><?p i?></a>`, RestrictedXML},
	{"RFC 6120 §11.1: comment", `<!-- c --><a/>`, RestrictedXML},
	{"RFC 6120 §11.1: comment", `<a><!-- c --></a>`, RestrictedXML},
	{"RFC 6120 §11.1: DTD", `<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`, RestrictedXML},
	{"RFC 6120 §11.1: DTD", `<a><!DOCTYPE a></a>`, RestrictedXML},
	{"RFC 6120 §11.1: entity", `<a>&nbsp;</a>`, RestrictedXML},
	{"RFC 6120 §11.1: entity", `<a b='&nbsp;'/>`, RestrictedXML},
	{"RFC 6120 §11.1: entity", `<a>&AMP;</a>`, RestrictedXML},

	{"XML §2.1: open", `<a>`, NotWellFormed},
	{"XML §2.1: open", `<a`, NotWellFormed},
	{"XML §2.1: open", `<a `, NotWellFormed},
	{"XML §2.1: open", `<a/`, NotWellFormed},
	{"XML §2.1: open", `<a b`, NotWellFormed},
	{"XML §2.1: open", `<a b=`, NotWellFormed},
	{"XML §2.1: open", `<a b='`, NotWellFormed},
	{"XML §2.1: open", `<a b='c'`, NotWellFormed},
	{"XML §2.1: open", `<a>text text text`, NotWellFormed},
	{"XML §2.1: open", `<a><`, NotWellFormed},
	{"XML §2.1: open", `<a></`, NotWellFormed},
	{"XML §2.1: open", `<a></a`, NotWellFormed},
	{"XML §2.1: open", `<a></a `, NotWellFormed},
	{"XML §2.1: open", `<a><b></a>`, NotWellFormed},
	{"XML §3: end tag", `<a></b>`, NotWellFormed},
	{"XML §3: end tag", `<a></aa>`, NotWellFormed},
	{"XML §3: end tag", `<aa></a>`, NotWellFormed},
	{"XML §3: end tag", `<a></ a>`, NotWellFormed},
	{"XML §3: end tag", `<a></a b='c'>`, NotWellFormed},
	{"XML §3: end tag", `<a></a/>`, NotWellFormed},
	{"XML §3: end tag", `<p:a xmlns:p='x' xmlns:q='x'></q:a>`, NotWellFormed},
	{"XML §3: end tag", `</a>`, NotWellFormed},
	{"XML §3: end tag", `<a/></a>`, NotWellFormed},
	{"XML §3.1: attribute", `<a b/>`, NotWellFormed},
	{"XML §3.1: attribute", `<a b=c/>`, NotWellFormed},
	{"XML §3.1: attribute", `<a b='1'c='2'/>`, NotWellFormed},
	{"XML §3.1: attribute", `<a b='<'/>`, NotWellFormed},
	{"XML §3.1: attribute", `<a b='1' b='2'/>`, NotWellFormed},
	{"XML §3.1: attribute", `<a xmlns='1' xmlns='2'/>`, NotWellFormed},
	{"XML §3.1: attribute", `<a / >`, NotWellFormed},
	{"XML §3.1: attribute", `<a/b='c'>`, NotWellFormed},
	{"XML §2.4: ]]>", `<a>]]></a>`, NotWellFormed},
	{"XML §2.4: ]]>", `<a>]]]></a>`, NotWellFormed},
	{"XML §2.7: CDATA", `<a><![CDATA[</a>`, NotWellFormed},
	{"XML §2.7: CDATA", `<a><![CDATA[x]]`, NotWellFormed},
	{"XML §2.7: CDATA", `<a><![cdata[]]></a>`, NotWellFormed},
	{"XML §2.7: CDATA", `<![CDATA[]]>`, NotWellFormed},
	{"XML §2.7: CDATA", "<a><![CDATA[\x01]]></a>", NotWellFormed},
	{"XML §2.3: name", `<1/>`, NotWellFormed},
	{"XML §2.3: name", `<-a/>`, NotWellFormed},
	{"XML §2.3: name", `<.a/>`, NotWellFormed},
	{"XML §2.3: name", `< a/>`, NotWellFormed},
	{"XML §2.3: name", `<a$/>`, NotWellFormed},
	{"XML §2.3: name", `<·a/>`, NotWellFormed},
	{"XML §2.3: name", `<a😀/>`, NotWellFormed},
	{"XML §2.3: name", `<a 1='2'/>`, NotWellFormed},
	{"XML §2.2: char", "<a>\x00</a>", NotWellFormed},
	{"XML §2.2: char", "<a>12345678\x1f</a>", NotWellFormed},
	{"XML §2.2: char", "<a b='\x0b'/>", NotWellFormed},
	{"XML §2.2: char", "<a>\uFFFE</a>", NotWellFormed},
	{"XML §2.2: char", "<a b='\uFFFF'/>", NotWellFormed},
	{"XML §4.1: character reference", `<a>&#0;</a>`, NotWellFormed},
	{"XML §4.1: character reference", `<a>&#x1F;</a>`, NotWellFormed},
	{"XML §4.1: character reference", `<a>&#xD800;</a>`, NotWellFormed},
	{"XML §4.1: character reference", `<a>&#xFFFE;</a>`, NotWellFormed},
	{"XML §4.1: character reference", `<a>&#x110000;</a>`, NotWellFormed},
	{"XML §4.1: character reference", `<a>&#4294967361;</a>`, NotWellFormed},
	{"XML §4.1: character reference", `<a>&#18446744073709551681;</a>`, NotWellFormed},
	{"XML §4.1: character reference", `<a>&#;</a>`, NotWellFormed},
	{"XML §4.1: character reference", `<a>&#x;</a>`, NotWellFormed},
	{"XML §4.1: character reference", `<a>&#X41;</a>`, NotWellFormed},
	{"XML §4.1: character reference", `<a>&#6A;</a>`, NotWellFormed},
	{"XML §4.1: character reference", `<a>&#65</a>`, NotWellFormed},
	{"XML §4.1: reference", `<a>&</a>`, NotWellFormed},
	{"XML §4.1: reference", `<a>&;</a>`, NotWellFormed},
	{"XML §4.1: reference", `<a>& b</a>`, NotWellFormed},
	{"XML §4.1: reference", `<a>&amp</a>`, NotWellFormed},
	{"XML §4.1: reference", `<a b='&'/>`, NotWellFormed},

	{"XML-NAMES §4: QName", `<:a/>`, NotWellFormed},
	{"XML-NAMES §4: QName", `<a:/>`, NotWellFormed},
	{"XML-NAMES §4: QName", `<a:b:c/>`, NotWellFormed},
	{"XML-NAMES §4: QName", `<p:1 xmlns:p='x'/>`, NotWellFormed},
	{"XML-NAMES §4: QName", `<a xmlns:='x'/>`, NotWellFormed},
	{"XML-NAMES §5: undeclared", `<p:a/>`, BadNamespacePrefix},
	{"XML-NAMES §5: undeclared", `<a p:b='c'/>`, BadNamespacePrefix},
	{"XML-NAMES §5: undeclared", `<a><b xmlns:p='x'/><p:c/></a>`, BadNamespacePrefix},
	{"XML-NAMES §5: undeclared", `<a><b><c p:d=''/></b></a>`, BadNamespacePrefix},
	{"XML-NAMES §5: undeclared", `<stream:error/>`, BadNamespacePrefix},
	{"XML-NAMES §3: xmlns", `<xmlns:a/>`, BadNamespacePrefix},
	{"XML-NAMES §3: xmlns", `<a xmlns:xmlns='x'/>`, NotWellFormed},
	{"XML-NAMES §3: xmlns", `<a xmlns:p='http://www.w3.org/2000/xmlns/'/>`, NotWellFormed},
	{"XML-NAMES §3: xmlns", `<a xmlns='http://www.w3.org/2000/xmlns/'/>`, NotWellFormed},
	{"XML-NAMES §3: xml", `<a xmlns:xml='x'/>`, NotWellFormed},
	{"XML-NAMES §3: xml", `<a xmlns='http://www.w3.org/XML/1998/namespace'/>`, NotWellFormed},
	{"XML-NAMES §3: xml", `<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>`, NotWellFormed},
	{"XML-NAMES §3: xml", `<a xmlns:p='http://www.w3.org/XML/1998/namespac&#101;'/>`, NotWellFormed},
	{"XML-NAMES §2.2: empty", `<a xmlns:p=''/>`, NotWellFormed},
	{"XML-NAMES §6.3: attributes", `<a xmlns:p='x' xmlns:q='x' p:c='' q:c=''/>`, NotWellFormed},
	{"XML-NAMES §6.3: attributes", `<a xmlns:p='x' xmlns:q='&#120;' p:c='' q:c=''/>`, NotWellFormed},
	{"XML-NAMES §6.3: attributes", `<a xmlns:p='x' p:c='' p:c=''/>`, NotWellFormed},

	{"RFC 6120 §4.9.3.22: UTF-8", "<a>\x80</a>", UnsupportedEncoding},
	{"RFC 6120 §4.9.3.22: UTF-8", "<a>\xc0\xaf</a>", UnsupportedEncoding},
	{"RFC 6120 §4.9.3.22: UTF-8", "<a>\xc3</a>", UnsupportedEncoding},
	{"RFC 6120 §4.9.3.22: UTF-8", "<a>\xe0\x9f\xbf</a>", UnsupportedEncoding},
	{"RFC 6120 §4.9.3.22: UTF-8", "<a>\xed\xa0\x80</a>", UnsupportedEncoding},
	{"RFC 6120 §4.9.3.22: UTF-8", "<a>\xf0\x8f\xbf\xbf</a>", UnsupportedEncoding},
	{"RFC 6120 §4.9.3.22: UTF-8", "<a>\xf4\x90\x80\x80</a>", UnsupportedEncoding},
	{"RFC 6120 §4.9.3.22: UTF-8", "<a b='\xff'/>", UnsupportedEncoding},
	{"RFC 6120 §4.9.3.22: UTF-8", "<a\xff/>", UnsupportedEncoding},
	{"RFC 6120 §4.9.3.22: UTF-8", "<a>\xf0\x9f\x98", UnsupportedEncoding},

	{"XML-NAMES: long name", `<a xmlns='` + strings.Repeat("n", maxNamespace+1) + `'/>`, PolicyViolation},
	{"XML-NAMES: long name", `<a xmlns:p='` + strings.Repeat("n", maxNamespace+1) + `'/>`, PolicyViolation},
}

func TestScanAccepts(t *testing.T) {
	for _, raw := range accepted {
		e := scan(t, raw)
		if want := strings.TrimRight(raw, " \t\r\n"); string(e.Raw()) != want {
			t.Errorf("Raw() = %q, want %q", e.Raw(), want)
		}
		if err := compareXML(e); err != nil {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

func TestScanRefuses(t *testing.T) {
	for _, tt := range refused {
		t.Run(tt.rule, func(t *testing.T) {
			var e Element
			err := e.Scan([]byte(tt.raw), Limits{})
			var syntax *SyntaxError
			if !errors.As(err, &syntax) {
				t.Fatalf("Scan(%q) = %v, want a SyntaxError", tt.raw, err)
			}
			if syntax.Stream != tt.want || !errors.Is(err, tt.want) {
				t.Errorf("Scan(%q) = %v, want %v", tt.raw, err, tt.want)
			}
			if syntax.Offset < 0 || syntax.Offset > len(tt.raw) {
				t.Errorf("Scan(%q): offset %d", tt.raw, syntax.Offset)
			}
			if e.Raw() != nil || e.NumChildren() != 0 || e.Kind() != Other {
				t.Errorf("Scan(%q) left something in the Element", tt.raw)
			}
		})
	}
}

// TestScanRefusesPrefixes cuts elements off at every byte.
func TestScanRefusesPrefixes(t *testing.T) {
	var e Element
	for _, raw := range accepted {
		whole := strings.TrimRight(raw, " \t\r\n")
		for n := range whole {
			if e.Scan([]byte(whole[:n]), Limits{}) == nil {
				t.Errorf("Scan(%q) accepted", whole[:n])
			}
		}
	}
}

func TestScanLimits(t *testing.T) {
	nested := strings.Repeat("<a>", 5) + strings.Repeat("</a>", 5)
	for _, tt := range []struct {
		name string
		raw  string
		lim  Limits
		ok   bool
	}{
		{"size at the cap", `<a>1234</a>`, Limits{Size: 11}, true},
		{"size above", `<a>12345</a>`, Limits{Size: 11}, false},
		{"depth at the cap", nested, Limits{Depth: 5}, true},
		{"depth above", nested, Limits{Depth: 4}, false},
		{"depth above, empty element", `<a><b/></a>`, Limits{Depth: 1}, false},
		{"attributes at the cap", `<a xmlns:b='c' d='e'/>`, Limits{Attrs: 2}, true},
		{"attributes above", `<a xmlns:b='c' d='e' f='g'/>`, Limits{Attrs: 2}, false},
		{"attributes above, inner", `<a><b c='' d='' e=''/></a>`, Limits{Attrs: 2}, false},
		{"children at the cap", `<a><b/><c></c></a>`, Limits{Children: 2}, true},
		{"children above", `<a><b/><c></c><d/></a>`, Limits{Children: 2}, false},
		{"grandchildren do not count", `<a><b><c/><c/><c/></b></a>`, Limits{Children: 1}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var e Element
			err := e.Scan([]byte(tt.raw), tt.lim)
			if tt.ok && err != nil || !tt.ok && !errors.Is(err, PolicyViolation) {
				t.Errorf("Scan = %v, want accepted: %v", err, tt.ok)
			}
		})
	}
}

// TestScanWorkIsLinear feeds what would take minutes if any of the work were quadratic.
func TestScanWorkIsLinear(t *testing.T) {
	const n = 40_000
	number := func(f func(b *strings.Builder, i string)) string {
		var b strings.Builder
		for i := range n {
			f(&b, strings.Map(func(r rune) rune { return r - '0' + 'a' }, itoa(i)))
		}
		return b.String()
	}
	for name, raw := range map[string]string{
		"depth":      strings.Repeat("<a>", n) + strings.Repeat("</a>", n),
		"attributes": "<a" + number(func(b *strings.Builder, i string) { b.WriteString(" " + i + "=''") }) + "/>",
		"prefixed attributes": "<a xmlns:p='" + strings.Repeat("n", maxNamespace) + "'" +
			number(func(b *strings.Builder, i string) { b.WriteString(" p:" + i + "=''") }) + "/>",
		"prefixes": "<a" + number(func(b *strings.Builder, i string) { b.WriteString(" xmlns:" + i + "='x'") }) + ">" +
			strings.Repeat("<a:b/>", n) + "</a>",
		"shadowed prefixes": strings.Repeat("<a xmlns:p='x' xmlns:q='y'>", n) + strings.Repeat("<q:b/>", n) +
			strings.Repeat("</a>", n),
		"children": "<a>" + strings.Repeat("<b/>", n) + "</a>",
		"escaped namespace": "<a xmlns='&#97;" + strings.Repeat("n", maxNamespace-10) + "'>" +
			strings.Repeat("<b/>", n) + "</a>",
		"brackets":   "<a>" + strings.Repeat("]", 4*n) + "</a>",
		"references": "<a>" + strings.Repeat("&lt;", n) + "</a>",
		"long ref":   "<a>&#" + strings.Repeat("0", 4*n) + "65;</a>",
	} {
		start := time.Now()
		e := scan(t, raw)
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s: %d bytes took %v", name, len(raw), d)
		}
		e.Text()
	}
	// Deep nesting is refused where it gets too deep, not at its end.
	var e Element
	err := e.Scan([]byte(strings.Repeat("<a>", n)), ordinary)
	var syntax *SyntaxError
	if !errors.As(err, &syntax) || syntax.Offset != 3*ordinary.Depth {
		t.Errorf("Scan of deep nesting = %v", err)
	}
}

func itoa(i int) string {
	var b []byte
	for ; i > 0 || b == nil; i /= 10 {
		b = append(b, byte('0'+i%10))
	}
	slices.Reverse(b)
	return string(b)
}

func TestScanReusesElement(t *testing.T) {
	var e Element
	big := `<a>` + strings.Repeat(`<b c='d'/>`, 20) + `</a>`
	for _, raw := range []string{big, chat, `<a/>`, big, `<presence xmlns='jabber:client'/>`, `<broken`, chat} {
		err := e.Scan([]byte(raw), Limits{})
		var fresh Element
		if want := fresh.Scan([]byte(raw), Limits{}); (err == nil) != (want == nil) {
			t.Fatalf("Scan(%q) = %v, fresh %v", raw, err, want)
		}
		if diff := compareHeads(&fresh, &e); diff != "" {
			t.Errorf("Scan(%q) into a used Element differs: %s", raw, diff)
		}
	}
}

// TestNames holds the tables against encoding/xml, whose tables are those of XML 1.0 Appendix B.
func TestNames(t *testing.T) {
	var e Element
	for r := rune(0x80); r < 0x10000; r++ {
		if r >= 0xd800 && r < 0xe000 {
			continue
		}
		for _, raw := range []string{"<" + string(r) + "/>", "<a" + string(r) + "/>"} {
			_, want := xml.NewDecoder(strings.NewReader(raw)).RawToken()
			if err := e.Scan([]byte(raw), Limits{}); (err == nil) != (want == nil) {
				t.Fatalf("Scan(%q) of %U = %v, encoding/xml %v", raw, r, err, want)
			}
		}
	}
}
