package stanza

import (
	"bytes"
	"encoding/xml"
	"io"
)

// Child is a direct child element of an Element, and as immutable. The zero Child is an absent one: it has no name
// and nothing in it.
type Child struct {
	e *Element
	i int
}

// tagName returns where the name is written, and where its local part begins.
func (c Child) tagName() (name, local, end int) {
	raw := c.e.raw
	name = int(c.e.children.at(c.i).start) + 1
	local, end = name, name
	for ; ; end++ {
		switch b := raw[end]; {
		case b == ':':
			local = end + 1
		case b == '>', b == '/', class[b]&white != 0:
			return name, local, end
		}
	}
}

// Name returns the local name.
func (c Child) Name() []byte {
	if c.e == nil {
		return nil
	}
	_, local, end := c.tagName()
	return c.e.raw[local:end]
}

// Space returns the namespace name, with references resolved; nil when c is in none.
func (c Child) Space() []byte {
	if c.e == nil {
		return nil
	}
	return namespace(c.e.raw, c.e.children.at(c.i).space)
}

// Is reports whether c is the element of that namespace and local name.
func (c Child) Is(space, name string) bool {
	return string(c.Name()) == name && string(c.Space()) == space
}

// kind is what Payloads says of c; a <body/> counts as one though it may be empty.
func (c Child) kind() Payload { return classify(c.Name(), c.Space()) }

// Raw returns the whole child. Prefixes, and the default namespace, may be declared outside of it.
func (c Child) Raw() []byte {
	if c.e == nil {
		return nil
	}
	at := c.e.children.at(c.i)
	return c.e.raw[at.start:at.end]
}

// Inner returns what is between c's tags, still escaped.
func (c Child) Inner() []byte {
	if c.e == nil {
		return nil
	}
	at := c.e.children.at(c.i)
	b := c.e.raw[at.content:at.end]
	if len(b) == 0 {
		return nil
	}
	return b[:bytes.LastIndexByte(b, '<')]
}

// Attr returns an attribute's value with references resolved, "" when it is absent. name is as written.
func (c Child) Attr(name string) string {
	v, _ := c.AttrRaw(name)
	return valueString(v)
}

// HasAttr reports whether the attribute is there, empty or not.
func (c Child) HasAttr(name string) bool {
	_, ok := c.AttrRaw(name)
	return ok
}

// AttrRaw returns an attribute's value as written, still escaped.
func (c Child) AttrRaw(name string) ([]byte, bool) {
	if c.e == nil {
		return nil, false
	}
	_, _, end := c.tagName()
	return attrRaw(c.e.raw, end, name)
}

// Text returns c's own character data, with references and CDATA resolved; that of its children is left out.
func (c Child) Text() string { return ownText(c.Inner()) }

// Decode hands c to encoding/xml, with the namespaces that are declared outside of it, for the rare paths.
func (c Child) Decode(v any) error {
	if c.e == nil {
		return io.EOF
	}
	d := xml.NewDecoder(bytes.NewReader(c.e.raw))
	if _, err := d.Token(); err != nil {
		return err
	}
	for i := 0; ; {
		t, err := d.Token()
		if err != nil {
			return err
		}
		start, ok := t.(xml.StartElement)
		switch {
		case !ok:
		case i == c.i:
			return d.DecodeElement(v, &start)
		default:
			i++
			if err := d.Skip(); err != nil {
				return err
			}
		}
	}
}

// attrRaw walks a start tag that Scan has accepted, from the end of its name at p.
func attrRaw(raw []byte, p int, name string) ([]byte, bool) {
	for {
		for class[raw[p]]&white != 0 {
			p++
		}
		if raw[p] == '>' || raw[p] == '/' {
			return nil, false
		}
		start := p
		for raw[p] != '=' && class[raw[p]]&white == 0 {
			p++
		}
		found := string(raw[start:p]) == name
		for raw[p] != '\'' && raw[p] != '"' {
			p++
		}
		v := quoted(raw, p+1)
		if found {
			return v, true
		}
		p += len(v) + 2
	}
}

// skipTag returns the end of the tag that begins at b[p], and by how much it changes the depth.
func skipTag(b []byte, p int) (end, depth int) {
	if b[p+1] == '/' {
		return p + bytes.IndexByte(b[p:], '>') + 1, -1
	}
	for ; b[p] != '>'; p++ {
		if b[p] == '\'' || b[p] == '"' {
			p += 1 + bytes.IndexByte(b[p+1:], b[p])
		}
	}
	if b[p-1] == '/' {
		return p + 1, 0
	}
	return p + 1, 1
}

// ownText collects the character data of content that Scan has accepted, leaving out child elements.
func ownText(b []byte) string {
	if bytes.IndexByte(b, '<') < 0 && !bytes.ContainsAny(b, "&\r") {
		return string(b)
	}
	const open, end = "<![CDATA[", "]]>"
	var out []byte
	depth := 0
	for p := 0; p < len(b); {
		switch {
		case b[p] != '<':
			n := bytes.IndexByte(b[p:], '<')
			if n < 0 {
				n = len(b) - p
			}
			if depth == 0 {
				out = appendText(out, b[p:p+n])
			}
			p += n
		case b[p+1] == '!':
			p += len(open)
			n := bytes.Index(b[p:], []byte(end))
			if depth == 0 {
				out = appendLines(out, b[p:p+n])
			}
			p += n + len(end)
		default:
			next, d := skipTag(b, p)
			p, depth = next, depth+d
		}
	}
	return string(out)
}

// appendLines appends the content of a CDATA section, in which line ends alone are normalized (XML §2.11).
func appendLines(dst, src []byte) []byte {
	for i := 0; i < len(src); i++ {
		c := src[i]
		if c == '\r' {
			c = '\n'
			if i+1 < len(src) && src[i+1] == '\n' {
				i++
			}
		}
		dst = append(dst, c)
	}
	return dst
}
