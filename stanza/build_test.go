package stanza

import (
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"mellium.im/xmpp/delay"
	mstanza "mellium.im/xmpp/stanza"
)

func TestParse(t *testing.T) {
	st, err := Parse([]byte(chat), stampID)
	if err != nil || st.From != juliet || st.To.Resource() != "orchard" || st.ID != stampID || st.Kind() != Message {
		t.Errorf("Parse = %v, %v", st, err)
	}
	st, err = Parse([]byte(`<iq xmlns='jabber:client' to='a&#64;b/&lt;'/>`), ID{})
	if err != nil || st.To.String() != "a@b/<" || !st.From.IsZero() {
		t.Errorf("Parse = %v, %v", st, err)
	}
	for raw, want := range map[string]error{
		`<message xmlns='jabber:client'>`:              NotWellFormed,
		`<message/>`:                                   UnsupportedStanzaType,
		`<message xmlns='jabber:client' to='@'/>`:      ErrAddr,
		`<message xmlns='jabber:client' from='a@b/'/>`: ErrAddr,
		`<message xmlns='jabber:client' from=''/>`:     ErrAddr,
	} {
		if st, err := Parse([]byte(raw), ID{}); !errors.Is(err, want) || st != nil {
			t.Errorf("Parse(%s) = %v, %v", raw, st, err)
		}
	}
}

func TestNew(t *testing.T) {
	for _, tt := range []struct {
		st   *Stanza
		want string
	}{
		{New(Message, "", "", Addr{}, Addr{}, nil), `<message xmlns='jabber:client'/>`},
		{
			New(IQ, "set", "it's", romeo, tricky, []byte(`<q xmlns='x'/>`)),
			`<iq xmlns='jabber:client' from='romeo@montague.example' to='romeo@montague.example/&lt;&#39;&#34;&amp; &gt;' id='it&#39;s' type='set'><q xmlns='x'/></iq>`,
		},
		{New(Presence, "unavailable", "", juliet, Addr{}, nil), `<presence xmlns='jabber:client' from='juliet@capulet.example/balcony' type='unavailable'/>`},
		{New(Message, "chat", "1", Addr{}, Addr{}, []byte(`</message>`)), `<message xmlns='jabber:client' id='1' type='chat'/>`},
	} {
		if string(tt.st.Raw()) != tt.want {
			t.Errorf("got  %s\nwant %s", tt.st.Raw(), tt.want)
		}
		checkRewritten(t, tt.st)
	}
}

func parse(t testing.TB, raw string) *Stanza {
	t.Helper()
	st, err := Parse([]byte(raw), ID{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestResult(t *testing.T) {
	iq := parse(t, `<iq xmlns='jabber:client' from='juliet@capulet.example/balcony' to='montague.example' type='get' id="a'&lt;"><q xmlns='x'/></iq>`)
	got := Result(iq, []byte(`<q xmlns='x'>1</q>`))
	const want = `<iq xmlns='jabber:client' from='montague.example' to='juliet@capulet.example/balcony' id="a'&lt;" type='result'><q xmlns='x'>1</q></iq>`
	if string(got.Raw()) != want || got.Attr("id") != iq.Attr("id") {
		t.Errorf("got  %s\nwant %s", got.Raw(), want)
	}
	checkRewritten(t, got)
}

func TestErrorReply(t *testing.T) {
	msg := parse(t, chat)
	got := ErrorReply(msg, mstanza.Error{Condition: mstanza.ServiceUnavailable, Text: map[string]string{"": "a<b", "de": "ü"}})
	const want = `<message xmlns='jabber:client' from='romeo@montague.example/orchard' to='juliet@capulet.example/balcony' ` +
		`id='b4c6e9a0-7d0f-4f6e-9a39-0f9e6d3c1a11' type='error'><error xmlns='jabber:client' type='cancel'>` +
		`<service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>` +
		`<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>a&lt;b</text>` +
		`<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='de'>ü</text></error></message>`
	if string(got.Raw()) != want || got.Payloads() != Error {
		t.Errorf("got  %s\nwant %s", got.Raw(), want)
	}
	checkRewritten(t, got)

	// As mellium reads it.
	by := romeo.JID()
	for cond := range errorTypes {
		st := ErrorReply(msg, mstanza.Error{Condition: cond, By: by, Text: map[string]string{"en": "why"}})
		var read struct {
			Error mstanza.Error `xml:"error"`
		}
		if err := xml.Unmarshal(st.Raw(), &read); err != nil {
			t.Fatal(err)
		}
		e := read.Error
		if e.Condition != cond || e.Type != errorTypes[cond] || !e.By.Equal(by) || e.Text["en"] != "why" {
			t.Errorf("%s is read as %+v", st.Raw(), e)
		}
	}

	for name, st := range map[string]*Stanza{
		"RFC 6120 §8.3.1: an error":    parse(t, `<message xmlns='jabber:client' type='error'/>`),
		"RFC 6120 §8.3.1: an IQ error": parse(t, `<iq xmlns='jabber:client' type="error"/>`),
		"RFC 6120 §8.2.3: a result":    parse(t, `<iq xmlns='jabber:client' type='result'/>`),
	} {
		if got := ErrorReply(st, mstanza.Error{Condition: mstanza.BadRequest}); got != nil {
			t.Errorf("%s is answered with %s", name, got.Raw())
		}
	}
	if got := ErrorReply(parse(t, `<message xmlns='jabber:client' type='result'/>`), mstanza.Error{}); got == nil {
		t.Error("a message of unknown type is not answered")
	}
	for _, e := range []mstanza.Error{{}, {Condition: "x/><y"}} {
		if got := string(ErrorChild(e)); !strings.Contains(got, "<undefined-condition ") {
			t.Errorf("%+v is rendered as %s", e, got)
		}
	}
	if got := string(ErrorChild(mstanza.Error{Condition: mstanza.BadRequest, Type: mstanza.Wait})); !strings.Contains(got, "type='wait'") {
		t.Errorf("the given type is lost: %s", got)
	}
}

func TestDelayChild(t *testing.T) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 7_000_000, time.FixedZone("", 3600))
	const want = `<delay xmlns='urn:xmpp:delay' from='montague.example' stamp='2026-02-03T03:05:06.007Z'>Offline &amp; stored</delay>`
	got := DelayChild(romeo.Server(), at, "Offline & stored")
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var d delay.Delay
	if err := xml.Unmarshal(got, &d); err != nil || !d.Time.Equal(at) || d.From.String() != "montague.example" {
		t.Errorf("mellium reads %+v, %v", d, err)
	}
	if got := string(DelayChild(Addr{}, at, "")); got != `<delay xmlns='urn:xmpp:delay' stamp='2026-02-03T03:05:06.007Z'/>` {
		t.Errorf("got %s", got)
	}
}

func TestAppendEscaped(t *testing.T) {
	for in, want := range map[string]string{
		"":                   "",
		"plain text":         "plain text",
		`<>&'"`:              "&lt;&gt;&amp;&#39;&#34;",
		"a\tb\nc\rd":         "a&#9;b&#10;c&#13;d",
		"é世😀\x7f":            "é世😀\x7f",
		"\x00a\x1f":          "\uFFFDa\uFFFD",
		"\xff\xc3":           "\uFFFD\uFFFD",
		"\uFFFE\uFFFF\uFFFD": "\uFFFD\uFFFD\uFFFD",
		"]]>":                "]]&gt;",
	} {
		got := string(AppendEscaped([]byte("x"), in))
		if got != "x"+want {
			t.Errorf("AppendEscaped(%q) = %q, want %q", in, got, want)
		}
		if needsEscape(in) != (want != in) {
			t.Errorf("needsEscape(%q)", in)
		}
		e := scan(t, "<a b='"+got[1:]+"' c=\""+got[1:]+"\">"+got[1:]+"</a>")
		if e.Attr("b") != e.Text() || e.Attr("c") != e.Text() {
			t.Errorf("%q reads %q and %q", got, e.Attr("b"), e.Text())
		}
		if !strings.Contains(want, "\uFFFD") && e.Text() != in {
			t.Errorf("%q does not come back: %q", in, e.Text())
		}
	}
}

func TestStreamError(t *testing.T) {
	for _, tt := range []struct {
		e    StreamError
		want string
	}{
		{NotWellFormed, `<not-well-formed xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>`},
		{
			PolicyViolation.WithText("a<b"),
			`<policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>a&lt;b</text>`,
		},
		{
			StreamError{Condition: "see-other-host", Host: "[::1]:443"},
			`<see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>[::1]:443</see-other-host>`,
		},
		{StreamError{Condition: "x/><y"}, `<undefined-condition xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>`},
		{StreamError{}, `<undefined-condition xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>`},
	} {
		want := `<stream:error xmlns:stream='http://etherx.jabber.org/streams'>` + tt.want + `</stream:error>`
		if got := string(tt.e.Raw()); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if e := scan(t, want); !e.Is(NSStream, "error") {
			t.Errorf("%s is not a stream error", want)
		}
	}
	err := fmt.Errorf("wrapped: %w", Conflict.WithText("replaced"))
	if !errors.Is(err, Conflict) || errors.Is(err, Reset) || Conflict.WithText("x") == Conflict {
		t.Error("errors.Is must compare the condition alone")
	}
	if got := Conflict.WithText("replaced").Error(); got != "stream error: conflict: replaced" {
		t.Error(got)
	}
}
