package xmppclient

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Element is one element as it came in a frame, or in the body of an HTTP response.
type Element struct {
	Name     xml.Name
	Attrs    []xml.Attr
	Children []*Element
	Text     string // of this element, without that of its children
	Raw      string // the whole frame; empty for children
}

// Parse reads a frame, which has to hold exactly one element.
func Parse(frame string) (*Element, error) {
	d := xml.NewDecoder(strings.NewReader(frame))
	var root *Element
	var open []*Element
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("xmppclient: %w in %q", err, frame)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			e := &Element{Name: tok.Name, Attrs: append([]xml.Attr(nil), tok.Attr...)}
			switch {
			case len(open) > 0:
				up := open[len(open)-1]
				up.Children = append(up.Children, e)
			case root != nil:
				return nil, fmt.Errorf("xmppclient: two elements in %q", frame)
			default:
				root = e
			}
			open = append(open, e)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				open[len(open)-1].Text += string(tok)
			} else if strings.TrimSpace(string(tok)) != "" {
				return nil, fmt.Errorf("xmppclient: text outside of the element in %q", frame)
			}
		}
	}
	if root == nil {
		return nil, fmt.Errorf("xmppclient: no element in %q", frame)
	}
	root.Raw = frame
	return root, nil
}

// Is reports whether e has this name.
func (e *Element) Is(space, local string) bool {
	return e != nil && e.Name.Space == space && e.Name.Local == local
}

// Attr returns the value of an attribute without a namespace, "" when there is none.
func (e *Element) Attr(name string) string {
	if e == nil {
		return ""
	}
	for _, a := range e.Attrs {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// Child returns the first child of this name, or nil. An empty space stands for any.
func (e *Element) Child(space, local string) *Element {
	if e == nil {
		return nil
	}
	for _, c := range e.Children {
		if c.Name.Local == local && (space == "" || c.Name.Space == space) {
			return c
		}
	}
	return nil
}

// Condition names the first child of e that is not <text/>: the condition of an error or a failure.
func (e *Element) Condition() string {
	if e == nil {
		return ""
	}
	for _, c := range e.Children {
		if c.Name.Local != "text" {
			return c.Name.Local
		}
	}
	return ""
}

// StanzaError names the condition of a stanza's <error/>, "" when it has none.
func (e *Element) StanzaError() string { return e.Child("", "error").Condition() }

// Stanza reports whether e is counted by XEP-0198 §4.
func (e *Element) Stanza() bool {
	return e != nil && e.Name.Space == NSClient && (e.Name.Local == "message" || e.Name.Local == "presence" || e.Name.Local == "iq")
}

func (e *Element) String() string {
	if e == nil {
		return "nothing"
	}
	if e.Raw != "" {
		return e.Raw
	}
	var b strings.Builder
	e.render(&b, "")
	return b.String()
}

// render writes e for a place where space is the default namespace. What the parser does not keep, the place of text
// between children and the prefixes, is lost.
func (e *Element) render(b *strings.Builder, space string) {
	b.WriteString("<" + e.Name.Local)
	if e.Name.Space != space {
		b.WriteString(" xmlns='" + Escape(e.Name.Space) + "'")
	}
	for i, a := range e.Attrs {
		name := a.Name.Local
		switch {
		case a.Name.Space == "xmlns", a.Name.Space == "" && name == "xmlns":
			continue
		case a.Name.Space == "http://www.w3.org/XML/1998/namespace":
			name = "xml:" + name
		case a.Name.Space != "":
			fmt.Fprintf(b, " xmlns:n%d='%s'", i, Escape(a.Name.Space))
			name = fmt.Sprintf("n%d:%s", i, name)
		}
		b.WriteString(" " + name + "='" + Escape(a.Value) + "'")
	}
	if e.Text == "" && len(e.Children) == 0 {
		b.WriteString("/>")
		return
	}
	b.WriteString(">" + Escape(e.Text))
	for _, c := range e.Children {
		c.render(b, e.Name.Space)
	}
	b.WriteString("</" + e.Name.Local + ">")
}

// Escape makes text fit for character data and attribute values.
func Escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder does not fail
	return b.String()
}
