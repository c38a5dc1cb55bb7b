package stanza

import (
	"bytes"
	"unicode/utf8"
)

// needsEscape reports whether AppendEscaped would change s.
func needsEscape(s string) bool {
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if class[c]&plainText == 0 {
				return true
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if size == 1 || !isChar(uint32(r)) {
			return true
		}
		i += size
	}
	return false
}

// AppendEscaped appends s escaped for character data and for attribute values in either quotes. What XML 1.0 cannot
// carry at all (XML §2.2) becomes U+FFFD, so that nothing said by the gateway ends a client's stream.
func AppendEscaped(dst []byte, s string) []byte {
	done := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf && class[c]&plainText != 0 {
			i++
			continue
		}
		size, as := 1, "\uFFFD"
		switch c {
		case '<':
			as = "&lt;"
		case '>':
			as = "&gt;"
		case '&':
			as = "&amp;"
		case '\'':
			as = "&#39;"
		case '"':
			as = "&#34;"
		case '\t':
			as = "&#9;"
		case '\n':
			as = "&#10;"
		case '\r':
			as = "&#13;"
		default:
			if c >= utf8.RuneSelf {
				var r rune
				r, size = utf8.DecodeRuneInString(s[i:])
				if (r != utf8.RuneError || size > 1) && isChar(uint32(r)) {
					i += size
					continue
				}
			}
		}
		dst = append(dst, s[done:i]...)
		dst = append(dst, as...)
		i += size
		done = i
	}
	return append(dst, s[done:]...)
}

// appendAddr appends a as an attribute's value.
func appendAddr(dst []byte, a Addr) []byte {
	if a.esc {
		return AppendEscaped(dst, a.full)
	}
	return append(dst, a.full...)
}

// appendText resolves character data that Scan has accepted: references, and line ends (XML §2.11).
func appendText(dst, src []byte) []byte { return unescape(dst, src, '\n') }

// appendValue resolves an attribute value that Scan has accepted: references, and white space (XML §3.3.3).
func appendValue(dst, src []byte) []byte { return unescape(dst, src, ' ') }

func unescape(dst, src []byte, newline byte) []byte {
	for i := 0; i < len(src); {
		switch c := src[i]; c {
		case '&':
			n := bytes.IndexByte(src[i:], ';')
			if n < 0 {
				return dst // not what Scan accepts
			}
			dst = appendReference(dst, src[i+1:i+n])
			i += n + 1
		case '\r':
			dst = append(dst, newline)
			i++
			if i < len(src) && src[i] == '\n' {
				i++
			}
		case '\n':
			dst = append(dst, newline)
			i++
		case '\t':
			if newline == ' ' {
				c = ' '
			}
			dst = append(dst, c)
			i++
		default:
			n := bytes.IndexAny(src[i:], "&\r\n\t")
			if n < 0 {
				n = len(src) - i
			}
			dst = append(dst, src[i:i+n]...)
			i += n
		}
	}
	return dst
}

// appendReference resolves what stands between & and ;.
func appendReference(dst, ref []byte) []byte {
	switch string(ref) {
	case "lt":
		return append(dst, '<')
	case "gt":
		return append(dst, '>')
	case "amp":
		return append(dst, '&')
	case "quot":
		return append(dst, '"')
	case "apos":
		return append(dst, '\'')
	}
	r, _ := charReference(ref)
	return utf8.AppendRune(dst, rune(r))
}

// charReference reads #N or #xN without the & and ;. The value is held at a bound above all of Unicode.
func charReference(ref []byte) (uint32, bool) {
	const above = 0x200000
	if len(ref) < 2 || ref[0] != '#' {
		return 0, false
	}
	n, digits, base := uint32(0), ref[1:], uint32(10)
	if digits[0] == 'x' {
		digits, base = digits[1:], 16
	}
	for _, c := range digits {
		d := uint32(unhex(c))
		if d >= base {
			return 0, false
		}
		n = min(n*base+d, above)
	}
	return n, len(digits) > 0
}

// valueString resolves an attribute value; the common one is only copied.
func valueString(v []byte) string {
	if !bytes.ContainsAny(v, "&\r\n\t") {
		return string(v)
	}
	return string(appendValue(nil, v))
}
