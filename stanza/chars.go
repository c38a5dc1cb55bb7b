package stanza

import "unicode/utf8"

// Classes of ASCII bytes.
const (
	nameStart uint8 = 1 << iota // may begin an NCName (XML-NAMES §3)
	nameChar                    // may go on in an NCName
	white                       // XML §2.3 S
	plainText                   // stands for itself in character data and in values of either quotes
)

var class = func() (t [256]uint8) {
	for c := 0x20; c < 0x80; c++ {
		t[c] |= plainText
	}
	for _, c := range `<>&'"` {
		t[c] &^= plainText
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c] |= nameStart | nameChar
		t[c-'a'+'A'] |= nameStart | nameChar
	}
	t['_'] |= nameStart | nameChar
	for c := '0'; c <= '9'; c++ {
		t[c] |= nameChar
	}
	t['-'] |= nameChar
	t['.'] |= nameChar
	for _, c := range " \t\r\n" {
		t[c] |= white
	}
	return t
}()

// isChar is XML 1.0's Char (§2.2) for a scalar value.
func isChar(r uint32) bool {
	switch {
	case r < 0x20:
		return r == '\t' || r == '\n' || r == '\r'
	case r < 0xd800:
		return true
	case r < 0xe000:
		return false
	case r < 0x10000:
		return r < 0xfffe
	}
	return r <= utf8.MaxRune
}

// charSize returns the length of the character at b[p], which is not ASCII: 0 when it is not UTF-8 (RFC 3629 §4),
// -1 when it is not a Char (of the characters beyond ASCII, only U+FFFE and U+FFFF).
func charSize(b []byte, p int) int {
	c := b[p]
	switch {
	case c < 0xc2:
		return 0
	case c < 0xe0:
		if p+1 < len(b) && b[p+1]&0xc0 == 0x80 {
			return 2
		}
	case c < 0xf0:
		if p+2 >= len(b) || b[p+1]&0xc0 != 0x80 || b[p+2]&0xc0 != 0x80 {
			return 0
		}
		switch {
		case c == 0xe0 && b[p+1] < 0xa0, c == 0xed && b[p+1] > 0x9f:
			return 0
		case c == 0xef && b[p+1] == 0xbf && b[p+2] >= 0xbe:
			return -1
		}
		return 3
	case c < 0xf5:
		if p+3 >= len(b) || b[p+1]&0xc0 != 0x80 || b[p+2]&0xc0 != 0x80 || b[p+3]&0xc0 != 0x80 {
			return 0
		}
		if c == 0xf0 && b[p+1] < 0x90 || c == 0xf4 && b[p+1] > 0x8f {
			return 0
		}
		return 4
	}
	return 0
}

// Eight bytes at a time: each of these sets the high bit of the bytes it looks for. Above the lowest set bit there
// may be false ones, below it there are none, and only the lowest is used.
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

func zeroBytes(x uint64) uint64 { return (x - ones) &^ x & highs }

func equalBytes(x uint64, c byte) uint64 { return zeroBytes(x ^ ones*uint64(c)) }

// specialBytes finds what is not printable ASCII (DEL counts as printable: it is a Char).
func specialBytes(x uint64) uint64 { return ((x-ones*0x20)&^x | x) & highs }
