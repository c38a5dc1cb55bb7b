package stanza

import (
	"bytes"
	"encoding/xml"
)

// Kind tells the three stanzas from all else.
type Kind uint8

// The kinds. Other is any element that is not one of the three stanzas of jabber:client.
const (
	Other Kind = iota
	Message
	Presence
	IQ
)

// String returns the element's name, "other" for Other.
func (k Kind) String() string {
	switch k {
	case Message:
		return "message"
	case Presence:
		return "presence"
	case IQ:
		return "iq"
	}
	return "other"
}

// References to namespace names, as 32 bits: nothing, the one that is never declared, or the offset of the value of
// an xmlns attribute in the raw bytes. No declaration's value can begin at the first two offsets.
const (
	refNone    uint32 = 0
	refXML     uint32 = 1
	refFirst   uint32 = 2
	refEscaped uint32 = 1 << 31 // the value is not plain and is resolved when it is asked for
)

func valueRef(value, quote int, plain bool) nsRef {
	ref := nsRef{off: uint32(value), size: uint32(quote - value)}
	if !plain {
		ref.off |= refEscaped
	}
	return ref
}

// namespace returns the namespace name behind ref.
func namespace(raw []byte, ref uint32) []byte {
	switch ref {
	case refNone:
		return nil
	case refXML:
		return []byte(NSXML)
	}
	at := ref &^ refEscaped
	v := quoted(raw, int(at))
	if ref&refEscaped != 0 {
		return appendValue(nil, v)
	}
	return v
}

// quoted returns the attribute value that begins at p, as written.
func quoted(raw []byte, p int) []byte {
	v := raw[p:]
	return v[:bytes.IndexByte(v, raw[p-1])]
}

// span is a value in the raw bytes; off is 0 when there is none.
type span struct{ off, end uint32 }

// child is a direct child: [start:end], its content from content on (end when the tag is self-closing).
type child struct {
	start, end, content uint32
	space               uint32
}

// keepSpilled is up to how many spilled children's room is kept for the next Scan.
const keepSpilled = 64

// Element is one complete scanned XML element: raw bytes and what one scan learnt of them. It refers to the raw
// bytes, which must not change. The zero Element is empty; so is one whose Scan failed. Reading is safe from any
// number of goroutines. An Element with more than a few children must not be copied and scanned again.
type Element struct {
	raw        []byte
	payloads   Payload
	children   list[child]
	id, typ    span
	from, to   span
	nameEnd    uint32
	local      uint32 // where the local name begins
	content    uint32 // after the start tag; len(raw) when it is self-closing
	contentEnd uint32
	space      uint32
	kind       Kind
}

func (e *Element) reset() {
	more := e.children.more[:0]
	if cap(more) > keepSpilled {
		more = nil
	}
	*e = Element{children: list[child]{more: more}}
}

// setRoot notes the outermost element, of which the start tag ends at p.
func (e *Element) setRoot(raw []byte, nameEnd, local, p int, space nsRef) {
	e.raw = raw
	e.nameEnd, e.local, e.content = uint32(nameEnd), uint32(local), uint32(p)
	e.space = space.off
	e.kind = Other
	switch string(raw[local:nameEnd]) {
	case "message":
		e.kind = Message
	case "presence":
		e.kind = Presence
	case "iq":
		e.kind = IQ
	}
	if e.kind != Other && string(e.Space()) != NSClient {
		e.kind = Other
	}
}

// noteAttr notes an unprefixed attribute of the outermost element.
func (e *Element) noteAttr(name []byte, value, quote int) {
	if s := e.known(name); s != nil {
		*s = span{uint32(value), uint32(quote)}
	}
}

func (e *Element) known(name []byte) *span {
	switch len(name) {
	case 2:
		switch string(name) {
		case "id":
			return &e.id
		case "to":
			return &e.to
		}
	case 4:
		switch string(name) {
		case "type":
			return &e.typ
		case "from":
			return &e.from
		}
	}
	return nil
}

// Raw returns the whole element as it was scanned.
func (e *Element) Raw() []byte { return e.raw }

// Kind tells whether e is a stanza, by local name and namespace.
func (e *Element) Kind() Kind { return e.kind }

// Name returns the local name.
func (e *Element) Name() []byte { return e.raw[e.local:e.nameEnd] }

// Space returns the namespace name, with references resolved; nil when e is in none.
func (e *Element) Space() []byte { return namespace(e.raw, e.space) }

// Is reports whether e is the element of that namespace and local name.
func (e *Element) Is(space, name string) bool {
	return string(e.Name()) == name && string(e.Space()) == space
}

// Attr returns an attribute's value with references resolved, "" when it is absent. name is as written, so it finds
// unprefixed attributes and xml:lang.
func (e *Element) Attr(name string) string {
	v, _ := e.AttrRaw(name)
	return valueString(v)
}

// HasAttr reports whether the attribute is there, empty or not.
func (e *Element) HasAttr(name string) bool {
	_, ok := e.AttrRaw(name)
	return ok
}

// AttrRaw returns an attribute's value as written, still escaped.
func (e *Element) AttrRaw(name string) ([]byte, bool) {
	s := span{}
	switch name {
	case "id":
		s = e.id
	case "type":
		s = e.typ
	case "from":
		s = e.from
	case "to":
		s = e.to
	default:
		if len(e.raw) == 0 {
			return nil, false
		}
		return attrRaw(e.raw, int(e.nameEnd), name)
	}
	if s.off == 0 {
		return nil, false
	}
	return e.raw[s.off:s.end], true
}

func (e *Element) value(s span) []byte {
	if s.off == 0 {
		return nil
	}
	return e.raw[s.off:s.end]
}

// IDRaw returns the id attribute as written, nil when it is absent.
func (e *Element) IDRaw() []byte { return e.value(e.id) }

// TypeRaw returns the type attribute as written, nil when it is absent.
func (e *Element) TypeRaw() []byte { return e.value(e.typ) }

// Payloads returns which children that rules look at are there.
func (e *Element) Payloads() Payload { return e.payloads }

// NumChildren returns how many direct child elements there are.
func (e *Element) NumChildren() int { return e.children.n }

// Child returns the i-th direct child element, the zero Child when there is none.
func (e *Element) Child(i int) Child {
	if uint(i) >= uint(e.children.n) {
		return Child{}
	}
	return Child{e, i}
}

// Find returns the first direct child of that namespace and local name.
func (e *Element) Find(space, name string) (Child, bool) {
	for i := range e.children.n {
		if c := (Child{e, i}); c.Is(space, name) {
			return c, true
		}
	}
	return Child{}, false
}

// Text returns e's own character data, with references and CDATA resolved; that of its children is left out.
func (e *Element) Text() string { return ownText(e.Inner()) }

// Inner returns what is between e's tags, still escaped.
func (e *Element) Inner() []byte { return e.raw[e.content:e.contentEnd] }

// Decode hands e to encoding/xml, for the rare paths.
func (e *Element) Decode(v any) error { return xml.Unmarshal(e.raw, v) }
