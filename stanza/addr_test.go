package stanza

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"mellium.im/xmpp/jid"
)

func TestParseAddr(t *testing.T) {
	long := strings.Repeat("x", maxPart)
	for _, tt := range []struct {
		in, local, domain, resource string
		esc                         bool
	}{
		{in: "example.com", domain: "example.com"},
		{in: "localhost", domain: "localhost"},
		{in: "juliet@example.com", local: "juliet", domain: "example.com"},
		{in: "juliet@example.com/foo", local: "juliet", domain: "example.com", resource: "foo"},
		{in: "juliet@example.com/foo bar", local: "juliet", domain: "example.com", resource: "foo bar"},
		{in: "juliet@example.com/foo@bar", local: "juliet", domain: "example.com", resource: "foo@bar"},
		{in: "example.com/a/b@c", domain: "example.com", resource: "a/b@c"},
		{in: "a.example.com/b@example.net", domain: "a.example.com", resource: "b@example.net"},
		{in: "juliet@example.com/<'&\">", local: "juliet", domain: "example.com", resource: "<'&\">", esc: true},
		{in: "foo\\20bar@example.com", local: "foo\\20bar", domain: "example.com"},
		{in: "JULIET@EXAMPLE.COM/Balcony", local: "juliet", domain: "example.com", resource: "Balcony"},
		{in: "fußball@example.com", local: "fußball", domain: "example.com"},
		{in: "Σ@example.com/ϧ", local: "σ", domain: "example.com", resource: "ϧ"},
		{in: "king@example.com/♚", local: "king", domain: "example.com", resource: "♚"},
		{in: "a@example.com.", local: "a", domain: "example.com"},
		{in: "a@xn--mnchen-3ya.de", local: "a", domain: "münchen.de"},
		{in: "a@127.0.0.1", local: "a", domain: "127.0.0.1"},
		{in: "a@[::1]/r", local: "a", domain: "[::1]", resource: "r"},
		{in: long + "@a/" + long, local: long, domain: "a", resource: long},
	} {
		for range 2 { // parsed, and from the cache
			a, err := ParseAddr(tt.in)
			if err != nil {
				t.Errorf("ParseAddr(%q): %v", tt.in, err)
				continue
			}
			if a.Local() != tt.local || a.Domain() != tt.domain || a.Resource() != tt.resource || a.esc != tt.esc {
				t.Errorf("ParseAddr(%q) = %q %q %q %v", tt.in, a.Local(), a.Domain(), a.Resource(), a.esc)
			}
			checkAddr(t, a)
		}
	}
}

func TestParseAddrRefuses(t *testing.T) {
	long := strings.Repeat("x", maxPart+1)
	for _, in := range []string{
		"", "@", "/", "a@", "@b", "a@/r", "a@b/", "/r", "@b/r", "a@b@c", `"juliet"@example.com`, "foo bar@example.com",
		"henryⅣ@example.com", "♚@example.com", "a'b@example.com", "a&b@c", "a<b@c", "a@b c", "a@b_c", "a@-b", "a@b-", "a@b..c",
		"a@b/\x00", "a@b/\n", "\xff@b", "a@\xff", "a@b/\xff", long + "@b", "a@b/" + long, "a@" + long, "a@b/" + strings.Repeat(long, 9),
		"a@xn--", "a@xn--a", strings.Repeat("xn--a.", 20000), "a@<b>", "a@b\uFF0Fc", "\u202e@b",
	} {
		for range 2 {
			if a, err := ParseAddr(in); !errors.Is(err, ErrAddr) || !a.IsZero() {
				t.Errorf("ParseAddr(%.40q) = %v, %v", in, a, err)
			}
		}
	}
}

// checkAddr holds what is true of every address.
func checkAddr(t testing.TB, a Addr) {
	t.Helper()
	again, err := ParseAddr(a.String())
	if err != nil || again != a {
		t.Fatalf("%q is not stable: %q, %v", a, again, err)
	}
	if parsed, err := parseAddr(a.String()); err != nil || parsed != a {
		t.Fatalf("%q is not stable: %q, %v", a, parsed, err)
	}
	parts, err := NewAddr(a.Local(), a.Domain(), a.Resource())
	if err != nil || parts != a {
		t.Fatalf("%q from its parts is %q, %v", a, parts, err)
	}
	bare, server := a.Bare(), a.Server()
	if bare.Local() != a.Local() || bare.Domain() != a.Domain() || !bare.IsBare() || bare.IsFull() || bare.Bare() != bare {
		t.Fatalf("Bare of %q = %q", a, bare)
	}
	if server.String() != a.Domain() || server.Local() != "" || !server.IsBare() || server.Server() != server {
		t.Fatalf("Server of %q = %q", a, server)
	}
	if a.IsFull() != (a.Resource() != "") || a.IsBare() == a.IsFull() || a.IsZero() {
		t.Fatalf("%q is neither bare nor full", a)
	}
	for _, part := range []Addr{bare, server} {
		if again, err := ParseAddr(part.String()); err != nil || again != part {
			t.Fatalf("%q of %q is not stable: %v", part, a, err)
		}
	}
	if with, err := bare.WithResource(a.Resource()); err != nil || with != a {
		t.Fatalf("WithResource of %q = %q, %v", a, with, err)
	}
	if j := a.JID(); j.String() != a.String() || j.Localpart() != a.Local() || j.Resourcepart() != a.Resource() {
		t.Fatalf("JID of %q = %q", a, j)
	}
	if a.esc != needsEscape(a.String()) {
		t.Fatalf("esc of %q is %v", a, a.esc)
	}
}

func TestZeroAddr(t *testing.T) {
	var a Addr
	if !a.IsZero() || a.IsBare() || a.IsFull() || a.String() != "" || a.Local() != "" || a.Domain() != "" || a.Resource() != "" ||
		a.Bare() != a || a.Server() != a || !a.JID().Equal(jid.JID{}) {
		t.Error("the zero Addr is not empty")
	}
	if _, err := a.WithResource("r"); !errors.Is(err, ErrAddr) {
		t.Errorf("WithResource: %v", err)
	}
	if err := a.UnmarshalText(nil); err != nil || !a.IsZero() {
		t.Error("UnmarshalText of nothing")
	}
}

func TestNewAddr(t *testing.T) {
	a, err := NewAddr("Juliet", "Example.com", "a/b@c")
	if err != nil || a.String() != "juliet@example.com/a/b@c" {
		t.Errorf("NewAddr = %q, %v", a, err)
	}
	for _, p := range [][3]string{{"a@b", "c", ""}, {"a/b", "c", ""}, {"", "a@b", ""}, {"", "a/b", "c"}, {"a", "", "b"}, {"", "", ""}} {
		if a, err := NewAddr(p[0], p[1], p[2]); !errors.Is(err, ErrAddr) {
			t.Errorf("NewAddr(%q) = %q, %v", p, a, err)
		}
	}
	if a, err := romeo.WithResource(""); err != nil || a != romeo {
		t.Errorf("WithResource(\"\") = %q, %v", a, err)
	}
	if a, err := juliet.WithResource("other"); err != nil || a.String() != "juliet@capulet.example/other" {
		t.Errorf("WithResource = %q, %v", a, err)
	}
}

func TestAddrText(t *testing.T) {
	text, err := juliet.MarshalText()
	var a Addr
	if err != nil || a.UnmarshalText(text) != nil || a != juliet {
		t.Errorf("%q, %v -> %q", text, err, a)
	}
	if err := a.UnmarshalText([]byte("@")); err == nil || a != juliet {
		t.Errorf("UnmarshalText of an error: %v, %q", err, a)
	}
}

// TestAddrCacheCopies: the bytes that an address was read from are used again.
func TestAddrCacheCopies(t *testing.T) {
	b := []byte("copy@example.com/r")
	a, err := ParseAddrBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	copy(b, "xxxxxxxxxxxx")
	again, err := ParseAddr("copy@example.com/r")
	if a.String() != "copy@example.com/r" || err != nil || again != a {
		t.Errorf("%q, %q, %v", a, again, err)
	}
}

// TestAddrCacheTurnover parses more addresses than the cache holds, from several goroutines.
func TestAddrCacheTurnover(t *testing.T) {
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 20_000 {
				s := "u" + itoa((i*7+g)%25_000) + "@example.com"
				if a, err := ParseAddr(s); err != nil || a.String() != s {
					t.Errorf("ParseAddr(%q) = %q, %v", s, a, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// FuzzAddr: an address is as mellium reads it, and stable.
func FuzzAddr(f *testing.F) {
	for _, s := range []string{
		"juliet@example.com/foo bar", "a.example.com/b@example.net", "Σ@example.com/ϧ", "a@xn--mnchen-3ya.de", "a@[::1]/r", "A@B.",
		"a@b--c", "a@ab--c", "a@0", "a@1.2.3.4", "ᴀ@ｂ。c/\u00a0", "a@b\u0301", "\u0041\u030a@b/\u212b", "1@2/3", "~!#$%^*()_+={}|;?,.@b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAddr(s)
		if err != nil {
			if !errors.Is(err, ErrAddr) || !a.IsZero() {
				t.Fatalf("parseAddr(%q) = %q, %v", s, a, err)
			}
			return
		}
		if want, jerr := jid.Parse(s); jerr != nil || want.String() != a.String() {
			t.Fatalf("parseAddr(%q) = %q, mellium %q, %v", s, a, want, jerr)
		}
		checkAddr(t, a)
	})
}
