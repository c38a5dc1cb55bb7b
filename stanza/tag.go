package stanza

import (
	"encoding/binary"
	"math/bits"
)

// startTag scans from '<' past '>'. An element that is not empty is open afterwards.
func (s *scanner) startTag(p int) int {
	raw := s.raw
	depth := s.frames.n + 1
	if s.lim.Depth > 0 && depth > s.lim.Depth {
		return s.fail(p, PolicyViolation, "elements nested too deeply")
	}
	name := p + 1
	end, local := s.qname(name)
	if end < 0 {
		return -1
	}
	f := frame{name: uint32(name), nameLen: uint32(end - name), marks: uint32(s.scope.bound.n)}
	if depth > 1 {
		f.space = s.frames.last().space
	}
	p, empty := s.attributes(end, depth == 1, &f)
	if p < 0 {
		return -1
	}
	space := f.space
	if local > name {
		var ok bool
		if space, ok = s.scope.lookup(raw, name, local-1); !ok {
			return s.fail(name, BadNamespacePrefix, "undeclared prefix")
		}
	}
	switch depth {
	case 1:
		s.e.setRoot(raw, end, local, p, space)
	case 2:
		if s.lim.Children > 0 && s.e.NumChildren() >= s.lim.Children {
			return s.fail(name-1, PolicyViolation, "too many children")
		}
		s.addChild(child{start: uint32(name - 1), content: uint32(p), space: space.off}, raw[local:end], space)
	}
	if !empty {
		s.frames.push(f)
		return p
	}
	s.scope.unbind(raw, int(f.marks))
	switch depth {
	case 1:
		s.e.contentEnd = uint32(p)
	case 2:
		s.endChild(p, p)
	}
	return p
}

// addChild notes a direct child of which the start tag is scanned.
func (s *scanner) addChild(c child, local []byte, space nsRef) {
	s.e.children.push(c)
	what := classify(local, s.spaceName(space))
	if what == Body {
		s.pending = what
		return
	}
	s.e.payloads |= what
}

// spaceName is the namespace behind ref.
func (s *scanner) spaceName(ref nsRef) []byte {
	if ref.off < refFirst || ref.off&refEscaped != 0 {
		return namespace(s.raw, ref.off)
	}
	return s.raw[ref.off : ref.off+ref.size]
}

// attributes scans from the end of the name past '>', and reports whether the element is empty. It binds prefixes
// and sets f.space to the default namespace within.
func (s *scanner) attributes(p int, root bool, f *frame) (next int, empty bool) {
	raw := s.raw
	s.attrs.reset()
	for {
		if p >= len(raw) {
			return s.fail(p, NotWellFormed, "unexpected end in a tag"), false
		}
		gap := p
		for class[raw[p]]&white != 0 {
			if p++; p >= len(raw) {
				return s.fail(p, NotWellFormed, "unexpected end in a tag"), false
			}
		}
		switch raw[p] {
		case '>':
			return s.endAttributes(p+1, f), false
		case '/':
			if p+1 >= len(raw) || raw[p+1] != '>' {
				return s.fail(p, NotWellFormed, "malformed tag"), false
			}
			return s.endAttributes(p+2, f), true
		}
		if gap == p {
			return s.fail(p, NotWellFormed, "malformed tag"), false
		}
		name := p
		end, local := s.qname(p)
		if end < 0 {
			return -1, false
		}
		value := s.equals(end)
		if value < 0 {
			return -1, false
		}
		quote, plain := s.value(value, raw[value-1])
		if quote < 0 {
			return -1, false
		}
		if !s.attrs.add(raw, attr{name: uint32(name), local: uint32(local), end: uint32(end)}) {
			return s.fail(name, NotWellFormed, "attribute given twice"), false
		}
		if s.lim.Attrs > 0 && s.attrs.names.n > s.lim.Attrs {
			return s.fail(name, PolicyViolation, "too many attributes"), false
		}
		switch {
		case local > name:
			if local-name == len("xmlns:") && string(raw[name:local]) == "xmlns:" {
				if !s.bind(local, end, value, quote, plain) {
					return -1, false
				}
			}
		case end-name == len("xmlns") && string(raw[name:end]) == "xmlns":
			if !s.bindDefault(value, quote, plain, f) {
				return -1, false
			}
		case root:
			s.e.noteAttr(raw[name:end], value, quote)
		}
		p = quote + 1
	}
}

// endAttributes checks what only the whole tag shows: that prefixes are declared, and that no attribute is given
// twice by namespace and local name (XML-NAMES §6.3).
func (s *scanner) endAttributes(p int, f *frame) int {
	if s.attrs.prefixed == 0 {
		return p
	}
	for i := range s.attrs.names.n {
		a := s.attrs.names.at(i)
		if a.local == a.name || a.declares(s.raw) {
			continue
		}
		ref, ok := s.scope.lookup(s.raw, int(a.name), int(a.local)-1)
		if !ok {
			return s.fail(int(a.name), BadNamespacePrefix, "undeclared prefix")
		}
		if s.attrs.prefixed > 1 && !s.attrs.addExpanded(s.spaceName(ref), s.raw[a.local:a.end]) {
			return s.fail(int(a.name), NotWellFormed, "attribute given twice")
		}
	}
	return p
}

// bindDefault handles xmlns='…'.
func (s *scanner) bindDefault(value, quote int, plain bool, f *frame) bool {
	if quote-value > maxNamespace {
		s.fail(value, PolicyViolation, "namespace name too long")
		return false
	}
	ref := valueRef(value, quote, plain)
	if ns := s.spaceName(ref); string(ns) == NSXML || string(ns) == NSXMLNS {
		s.fail(value, NotWellFormed, "reserved namespace")
		return false
	}
	f.space = ref
	return true
}

// bind handles xmlns:prefix='…' (XML-NAMES §3, §2.2).
func (s *scanner) bind(prefix, end, value, quote int, plain bool) bool {
	if quote-value > maxNamespace {
		s.fail(value, PolicyViolation, "namespace name too long")
		return false
	}
	ref := valueRef(value, quote, plain)
	ns := s.spaceName(ref)
	name := s.raw[prefix:end]
	switch {
	case string(name) == "xmlns", string(ns) == NSXMLNS:
		s.fail(prefix, NotWellFormed, "reserved namespace")
		return false
	case (string(name) == "xml") != (string(ns) == NSXML):
		s.fail(prefix, NotWellFormed, "reserved namespace")
		return false
	case len(ns) == 0:
		s.fail(prefix, NotWellFormed, "prefix bound to nothing")
		return false
	}
	s.scope.bind(s.raw, prefix, end, ref)
	return true
}

// equals scans Eq and the opening quote; it returns where the value begins.
func (s *scanner) equals(p int) int {
	raw := s.raw
	if p+1 < len(raw) && raw[p] == '=' && (raw[p+1] == '\'' || raw[p+1] == '"') {
		return p + 2
	}
	for p < len(raw) && class[raw[p]]&white != 0 {
		p++
	}
	if p >= len(raw) || raw[p] != '=' {
		return s.fail(p, NotWellFormed, "attribute without a value")
	}
	p++
	for p < len(raw) && class[raw[p]]&white != 0 {
		p++
	}
	if p >= len(raw) || raw[p] != '\'' && raw[p] != '"' {
		return s.fail(p, NotWellFormed, "attribute without quotes")
	}
	return p + 1
}

// value scans an attribute value up to its closing quote. It is plain when it stands for itself: no references, no
// white space that is normalized.
func (s *scanner) value(p int, quote byte) (end int, plain bool) {
	raw := s.raw
	plain = true
	for {
		for p+8 <= len(raw) {
			x := binary.LittleEndian.Uint64(raw[p:])
			if m := specialBytes(x) | equalBytes(x, quote) | equalBytes(x, '<') | equalBytes(x, '&'); m != 0 {
				p += bits.TrailingZeros64(m) >> 3
				break
			}
			p += 8
		}
		if p >= len(raw) {
			return s.fail(p, NotWellFormed, "unexpected end in a tag"), false
		}
		switch c := raw[p]; {
		case c == quote:
			return p, plain
		case c == '<':
			return s.fail(p, NotWellFormed, "< in an attribute"), false
		case c == '&':
			if p = s.reference(p); p < 0 {
				return -1, false
			}
			plain = false
		case c >= 0x80:
			if p = s.chars(p); p < 0 {
				return -1, false
			}
		case c >= 0x20:
			p++
		case class[c]&white != 0:
			plain = false
			p++
		default:
			return s.fail(p, NotWellFormed, "forbidden character"), false
		}
	}
}

// qname scans a QName (XML-NAMES §4); local is where its local part begins.
func (s *scanner) qname(p int) (end, local int) {
	end, ok := s.ncname(p)
	if !ok {
		return -1, 0
	}
	if end < len(s.raw) && s.raw[end] == ':' {
		local = end + 1
		if end, ok = s.ncname(local); !ok {
			return -1, 0
		}
		return end, local
	}
	return end, p
}

// ncname scans an NCName. It fails on what cannot begin one.
func (s *scanner) ncname(p int) (end int, ok bool) {
	raw := s.raw
	if p >= len(raw) {
		return s.fail(p, NotWellFormed, "unexpected end in a tag"), false
	}
	if class[raw[p]]&nameStart == 0 && raw[p] < 0x80 {
		return s.fail(p, NotWellFormed, "malformed name"), false
	}
	for start := p; ; {
		for p < len(raw) && class[raw[p]]&nameChar != 0 {
			p++
		}
		if p >= len(raw) || raw[p] < 0x80 {
			return p, true
		}
		n := s.nameRune(p, p == start)
		if n < 0 {
			return -1, false
		}
		p += n
	}
}

// nameRune scans one character of a name that is not ASCII.
func (s *scanner) nameRune(p int, first bool) int {
	n := charSize(s.raw, p)
	if n <= 0 {
		return s.failChar(p, n)
	}
	if !isNameRune(s.raw[p:p+n], first) {
		return s.fail(p, NotWellFormed, "malformed name")
	}
	return n
}
