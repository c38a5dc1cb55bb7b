package auth

import (
	"errors"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/bidi"
	"golang.org/x/text/unicode/norm"
)

// ErrPassword says that a password is empty, too long, or has characters that SASLprep prohibits.
var ErrPassword = errors.New("password is empty, too long, or has characters that are not allowed")

// maxPassword bounds a password in bytes, before and after its preparation.
const maxPassword = 4096

func table16(pairs ...uint16) *unicode.RangeTable {
	t := &unicode.RangeTable{}
	for i := 0; i < len(pairs); i += 2 {
		t.R16 = append(t.R16, unicode.Range16{Lo: pairs[i], Hi: pairs[i+1], Stride: 1})
	}
	return t
}

// Tables of RFC 3454 that SASLprep names (RFC 4013 §2).
var (
	prepNothing = table16(0x00ad, 0x00ad, 0x034f, 0x034f, 0x1806, 0x1806, 0x180b, 0x180d,
		0x200c, 0x200d, 0x2060, 0x2060, 0xfe00, 0xfe0f, 0xfeff, 0xfeff) // B.1
	prepSpace = table16(0x00a0, 0x00a0, 0x1680, 0x1680, 0x2000, 0x200b, 0x202f, 0x202f,
		0x205f, 0x205f, 0x3000, 0x3000) // C.1.2
	// C.2.1, C.2.2, C.3 to C.9 as far as they are in the first plane.
	prepProhibited = table16(0x0000, 0x001f, 0x007f, 0x009f, 0x0340, 0x0341, 0x06dd, 0x06dd, 0x070f, 0x070f,
		0x180e, 0x180e, 0x200c, 0x200f, 0x2028, 0x202e, 0x2060, 0x2063, 0x206a, 0x206f, 0x2ff0, 0x2ffb,
		0xd800, 0xf8ff, 0xfdd0, 0xfdef, 0xfeff, 0xfeff, 0xfff9, 0xffff)
)

func prohibited(r rune) bool {
	if r <= 0xffff {
		return unicode.Is(prepProhibited, r)
	}
	return r >= 0x1d173 && r <= 0x1d17a || // C.2.2
		r >= 0xf0000 || // C.3
		r&0xfffe == 0xfffe || // C.4
		r == 0xe0001 || r >= 0xe0020 && r <= 0xe007f // C.9
}

// saslprep prepares a password (RFC 4013). Code points that Unicode 3.2 did not know are allowed, as in queries:
// people use them.
func saslprep(password string) (string, error) {
	if password == "" || len(password) > maxPassword {
		return "", ErrPassword
	}
	if plainASCII(password) {
		return password, nil
	}
	if !utf8.ValidString(password) {
		return "", ErrPassword
	}
	mapped := make([]rune, 0, len(password))
	for _, r := range password {
		switch {
		case unicode.Is(prepSpace, r):
			mapped = append(mapped, ' ')
		case !unicode.Is(prepNothing, r):
			mapped = append(mapped, r)
		}
	}
	out := norm.NFKC.String(string(mapped))
	if out == "" || len(out) > maxPassword {
		return "", ErrPassword
	}
	if !bidiRule(out) {
		return "", ErrPassword
	}
	for _, r := range out {
		if prohibited(r) {
			return "", ErrPassword
		}
	}
	return out, nil
}

// bidiRule is RFC 3454 §6: what has right-to-left characters begins and ends with one and has no left-to-right one.
func bidiRule(s string) bool {
	var left, right bool
	for _, r := range s {
		right = right || rightToLeft(r)
		p, _ := bidi.LookupRune(r)
		left = left || p.Class() == bidi.L
	}
	if !right {
		return true
	}
	first, _ := utf8.DecodeRuneInString(s)
	last, _ := utf8.DecodeLastRuneInString(s)
	return !left && rightToLeft(first) && rightToLeft(last)
}

func rightToLeft(r rune) bool {
	p, _ := bidi.LookupRune(r)
	return p.Class() == bidi.R || p.Class() == bidi.AL
}

func plainASCII(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
