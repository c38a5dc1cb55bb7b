package auth

import (
	"errors"
	"strings"
	"testing"
)

func TestSASLprep(t *testing.T) { // RFC 4013 §3, and one of each table of RFC 3454
	for in, want := range map[string]string{
		"I\u00adX":                "IX",
		"user":                    "user",
		"USER":                    "USER",
		"\u00aa":                  "a",
		"\u2168":                  "IX",
		"\u0007":                  "",
		"\u0627\u0031":            "",
		"":                        "",
		"a\u00a0b":                "a b",
		"a\u3000b":                "a b",
		"\u200c":                  "",
		"a\ufeffb":                "ab",
		"a\ufe0fb":                "ab",
		"\u0627\u0031\u0628":      "\u0627\u0031\u0628",
		"\u0627a\u0628":           "",
		"cafe\u0301":              "café",
		"pass\x7f":                "",
		"pass\u0080":              "",
		"\ue000":                  "",
		"\U0010fffe":              "",
		"\U000f0000":              "",
		"\ufdd0":                  "",
		"\ufffd":                  "",
		"\u2ff0":                  "",
		"\u202e":                  "",
		"\U000e0041":              "",
		"\U0001d173":              "",
		"\xff":                    "",
		"🔑 correct horse":         "🔑 correct horse",
		strings.Repeat("x", 4096): strings.Repeat("x", 4096),
		strings.Repeat("x", 4097): "",
		strings.Repeat("ﷺ", 1000): "", // grows elevenfold
	} {
		got, err := saslprep(in)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrPassword) {
			t.Errorf("%.40q: %.40q, %v; want %.40q", in, got, err, want)
		}
	}
}

func FuzzSASLprep(f *testing.F) {
	f.Add("I\u00adX \u2168 \u0627\u0628")
	f.Fuzz(func(t *testing.T, in string) {
		once, err := saslprep(in)
		if err != nil {
			return
		}
		if twice, err := saslprep(once); err != nil || twice != once {
			t.Errorf("%q: %q, then %q, %v", in, once, twice, err)
		}
	})
}
