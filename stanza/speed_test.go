package stanza

import (
	"strings"
	"testing"
	"unsafe"
)

func TestAllocs(t *testing.T) {
	var (
		e    Element
		raw  = []byte(chat)
		edit = Edit{From: juliet, To: romeo, ID: stampID, IDBy: romeo}
		addr = []byte(juliet.String())
		buf  = make([]byte, 0, 64)
		less = Edit{From: juliet, To: romeo, ID: stampID, IDBy: romeo, Without: Delay | Retrieved, DelayBy: func(Addr) bool { return true }}
		more = Edit{From: juliet, To: romeo, Append: []byte("<store xmlns='urn:xmpp:hints'/>")}
	)
	if err := e.Scan(raw, ordinary); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		most float64
		f    func()
	}{
		{"Scan", 0, func() { _ = e.Scan(raw, ordinary) }},
		{"Rewrite", 2, func() { e.Rewrite(edit) }},
		{"Rewrite, with nothing to leave out", 2, func() { e.Rewrite(less) }},
		{"Rewrite, with a child", 2, func() { e.Rewrite(more) }},
		{"Find", 0, func() { e.Find(NSReceipts, "request") }},
		{"AttrRaw", 0, func() { e.AttrRaw("xmlns") }},
		{"Is", 0, func() { e.Is(NSClient, "message") }},
		{"ParseAddrBytes, known", 0, func() { _, _ = ParseAddrBytes(addr) }},
		{"Bare", 0, func() { _ = juliet.Bare().Server() }},
		{"NewID", 0, func() { NewID() }},
		{"ID.AppendTo", 0, func() { buf = stampID.AppendTo(buf[:0]) }},
		{"ParseID", 0, func() { _, _ = ParseID("019a0000-0000-7000-8000-000000000001") }},
	} {
		if got := testing.AllocsPerRun(100, tt.f); got > tt.most {
			t.Errorf("%s: %v allocations, at most %v wanted", tt.name, got, tt.most)
		}
	}
}

// TestSizes: every message in an outbox has a Stanza, every stream an Element.
func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(Element{}); n > 256 {
		t.Errorf("an Element takes %d bytes", n)
	}
	if n := unsafe.Sizeof(Stanza{}); n > 320 {
		t.Errorf("a Stanza takes %d bytes, more than its size class", n)
	}
}

func BenchmarkScan(b *testing.B) {
	text := func(s string) string {
		return `<message xmlns='jabber:client' id='1' type='chat'><body>` + strings.Repeat(s, 4096/len(s)) + `</body></message>`
	}
	for _, bb := range []struct{ name, raw string }{
		{"chat", chat},
		{"receipt", `<message xmlns='jabber:client' to='a@b/c' id='2'><received xmlns='urn:xmpp:receipts' id='1'/></message>`},
		{"presence", `<presence xmlns='jabber:client'/>`},
		{"ack", `<a xmlns='urn:xmpp:sm:3' h='12345'/>`},
		{"4k ASCII", text("The quick brown fox jumps over the lazy dog. ")},
		{"4k Cyrillic", text("Съешь же ещё этих мягких французских булок. ")},
		{"4k Han", text("天地玄黃宇宙洪荒日月盈昃辰宿列張")},
	} {
		b.Run(bb.name, func(b *testing.B) {
			var e Element
			raw := []byte(bb.raw)
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if err := e.Scan(raw, ordinary); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRewrite(b *testing.B) {
	var e Element
	if err := e.Scan([]byte(chat), ordinary); err != nil {
		b.Fatal(err)
	}
	for name, ed := range map[string]Edit{
		"from and to": {From: juliet, To: romeo},
		"stanza id":   {From: juliet, To: romeo, ID: stampID, IDBy: romeo},
		"child":       {From: juliet, To: romeo, Append: []byte("<store xmlns='urn:xmpp:hints'/>")},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				e.Rewrite(ed)
			}
		})
	}
}

func BenchmarkParseAddr(b *testing.B) {
	for name, f := range map[string]func([]byte) (Addr, error){
		"cached": ParseAddrBytes,
		"parsed": func(b []byte) (Addr, error) { return parseAddr(string(b)) },
	} {
		b.Run(name, func(b *testing.B) {
			s := []byte("juliet@capulet.example/balcony")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f(s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkNewID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		NewID()
	}
}
