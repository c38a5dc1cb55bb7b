package stanza

import (
	"encoding/binary"
	"math/bits"
)

// Limits caps what Scan accepts; 0 lifts a cap.
type Limits struct {
	Size     int // bytes of the whole element
	Depth    int // nested elements, the outermost included
	Attrs    int // attributes of one element, namespace declarations included
	Children int // direct children of the outermost element
}

const (
	// maxSize keeps offsets and a flag in 32 bits, whatever Limits says.
	maxSize = 1 << 30
	// maxNamespace bounds namespace names, which are compared once for each child or prefixed attribute: it keeps
	// the work linear in the size of the element.
	maxNamespace = 1024
)

// An open element.
type frame struct {
	name, nameLen uint32
	marks         uint32 // how many prefixes were bound outside of it
	space         nsRef  // the default namespace of its content
}

// nsRef is where a namespace name is written: the value of an xmlns attribute. off is the reference that Element
// keeps (see Element.namespace), size is the length as written.
type nsRef struct {
	off, size uint32
}

// scanner is the state of one scan. It lives on the Go stack.
type scanner struct {
	raw []byte
	lim Limits
	e   *Element
	err *SyntaxError

	frames  list[frame]
	scope   scope
	attrs   attrSet
	pending Payload // Body, until its end shows that it is not empty
}

// Scan reads raw, which must be one complete element and nothing else but trailing white space (RFC 7395 §3.3), and
// makes it e. What e was before is gone, also when Scan fails. The error is a *SyntaxError.
//
// Scan allocates nothing for ordinary elements. e refers to raw, which must not change.
func (e *Element) Scan(raw []byte, lim Limits) error {
	e.reset()
	s := scanner{e: e, raw: raw, lim: lim}
	if !s.document() {
		e.reset()
		return s.err
	}
	return nil
}

// fail notes the error; it returns -1, which every scanning method takes for failure.
//
//go:noinline
func (s *scanner) fail(p int, cond StreamError, reason string) int {
	s.err = &SyntaxError{Offset: p, Reason: reason, Stream: cond}
	return -1
}

func (s *scanner) document() bool {
	raw := s.raw
	if s.lim.Size > 0 && len(raw) > s.lim.Size || len(raw) > maxSize {
		s.fail(len(raw), PolicyViolation, "element too large")
		return false
	}
	if len(raw) < 2 || raw[0] != '<' {
		s.fail(0, NotWellFormed, "no element")
		return false
	}
	var p int
	switch raw[1] {
	case '?':
		p = s.fail(1, RestrictedXML, "XML declaration or processing instruction")
	case '!':
		p = s.declaration(0, false)
	default:
		p = s.startTag(0)
	}
	if p >= 0 && s.frames.n > 0 {
		p = s.content(p)
	}
	if p < 0 {
		return false
	}
	s.e.raw = raw[:p:p]
	for ; p < len(raw); p++ {
		if class[raw[p]]&white == 0 {
			s.fail(p, NotWellFormed, "data after the element")
			return false
		}
	}
	return true
}

// content scans from p, within an element, to the end of the outermost element.
func (s *scanner) content(p int) int {
	raw := s.raw
	for {
		if p = s.text(p); p < 0 {
			return -1
		}
		// text has seen to it that there is a '<'.
		if p+1 >= len(raw) {
			return s.fail(p, NotWellFormed, "unexpected end")
		}
		switch raw[p+1] {
		case '/':
			if p = s.endTag(p); p < 0 || s.frames.n == 0 {
				return p
			}
		case '!':
			p = s.declaration(p, true)
		case '?':
			p = s.fail(p, RestrictedXML, "processing instruction")
		default:
			p = s.startTag(p)
		}
		if p < 0 {
			return -1
		}
	}
}

// text scans character data up to the next '<'.
func (s *scanner) text(p int) int {
	raw := s.raw
	for {
		for p+8 <= len(raw) {
			x := binary.LittleEndian.Uint64(raw[p:])
			if m := specialBytes(x) | equalBytes(x, '<') | equalBytes(x, '&') | equalBytes(x, ']'); m != 0 {
				p += bits.TrailingZeros64(m) >> 3
				break
			}
			p += 8
		}
		if p >= len(raw) {
			return s.fail(p, NotWellFormed, "unexpected end")
		}
		switch c := raw[p]; {
		case c == '<':
			return p
		case c == '&':
			if p = s.reference(p); p < 0 {
				return -1
			}
		case c == ']':
			if p+2 < len(raw) && raw[p+1] == ']' && raw[p+2] == '>' {
				return s.fail(p, NotWellFormed, "]]> in character data")
			}
			p++
		case c >= 0x80:
			if p = s.chars(p); p < 0 {
				return -1
			}
		case c >= 0x20 || class[c]&white != 0:
			p++
		default:
			return s.fail(p, NotWellFormed, "forbidden character")
		}
	}
}

// chars scans a run of characters beyond ASCII.
func (s *scanner) chars(p int) int {
	for p < len(s.raw) && s.raw[p] >= 0x80 {
		n := charSize(s.raw, p)
		if n <= 0 {
			return s.failChar(p, n)
		}
		p += n
	}
	return p
}

// failChar refuses what charSize refused (RFC 6120 §11.6, §4.9.3.22).
func (s *scanner) failChar(p, size int) int {
	if size < 0 {
		return s.fail(p, NotWellFormed, "forbidden character")
	}
	return s.fail(p, UnsupportedEncoding, "not UTF-8")
}

// reference scans from '&' past ';'. Only the predefined entities and characters exist (RFC 6120 §11.1).
func (s *scanner) reference(p int) int {
	raw := s.raw
	q := p + 1
	if q < len(raw) && raw[q] == '#' {
		q++
		for q < len(raw) && class[raw[q]]&(nameChar|nameStart) != 0 {
			q++
		}
		if q >= len(raw) || raw[q] != ';' {
			return s.fail(p, NotWellFormed, "malformed character reference")
		}
		n, ok := charReference(raw[p+1 : q])
		if !ok || !isChar(n) {
			return s.fail(p, NotWellFormed, "reference to a forbidden character")
		}
		return q + 1
	}
	end, _ := s.ncname(q)
	if end <= q || end >= len(raw) || raw[end] != ';' {
		s.err = nil
		return s.fail(p, NotWellFormed, "malformed reference")
	}
	switch string(raw[q:end]) {
	case "amp", "lt", "gt", "quot", "apos":
		return end + 1
	}
	return s.fail(p, RestrictedXML, "entity reference")
}

// declaration scans what begins with "<!": CDATA is the one that XMPP allows (RFC 6120 §11.1).
func (s *scanner) declaration(p int, cdata bool) int {
	const open = "<![CDATA["
	raw := s.raw
	rest := raw[p:]
	switch {
	case len(rest) >= 4 && string(rest[:4]) == "<!--":
		return s.fail(p, RestrictedXML, "comment")
	case len(rest) >= len("<!DOCTYPE") && string(rest[:len("<!DOCTYPE")]) == "<!DOCTYPE":
		return s.fail(p, RestrictedXML, "document type declaration")
	case !cdata || len(rest) < len(open) || string(rest[:len(open)]) != open:
		return s.fail(p, NotWellFormed, "malformed declaration")
	}
	p += len(open)
	for {
		for p+8 <= len(raw) {
			x := binary.LittleEndian.Uint64(raw[p:])
			if m := specialBytes(x) | equalBytes(x, ']'); m != 0 {
				p += bits.TrailingZeros64(m) >> 3
				break
			}
			p += 8
		}
		if p >= len(raw) {
			return s.fail(p, NotWellFormed, "unexpected end of CDATA")
		}
		switch c := raw[p]; {
		case c == ']':
			if p+2 < len(raw) && raw[p+1] == ']' && raw[p+2] == '>' {
				return p + 3
			}
			p++
		case c >= 0x80:
			if p = s.chars(p); p < 0 {
				return -1
			}
		case c >= 0x20 || class[c]&white != 0:
			p++
		default:
			return s.fail(p, NotWellFormed, "forbidden character")
		}
	}
}

// endTag scans from "</" past '>' and closes the innermost element.
func (s *scanner) endTag(p int) int {
	raw := s.raw
	f := s.frames.last()
	q := p + 2 + int(f.nameLen)
	if q >= len(raw) || string(raw[p+2:q]) != string(raw[f.name:f.name+f.nameLen]) {
		return s.fail(p, NotWellFormed, "end tag does not match")
	}
	for q < len(raw) && class[raw[q]]&white != 0 {
		q++
	}
	if q >= len(raw) || raw[q] != '>' {
		return s.fail(p, NotWellFormed, "end tag does not match")
	}
	q++
	switch s.frames.n {
	case 1:
		s.e.contentEnd = uint32(p)
	case 2:
		s.endChild(p, q)
	}
	s.scope.unbind(s.raw, int(f.marks))
	s.frames.truncate(s.frames.n - 1)
	return q
}

// endChild closes a direct child whose content ends at p and which ends at q.
func (s *scanner) endChild(p, q int) {
	c := s.e.children.last()
	c.end = uint32(q)
	if s.pending != 0 {
		if int(c.content) < p {
			s.e.payloads |= s.pending
		}
		s.pending = 0
	}
}
