package stanza

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// oracleNode is what encoding/xml sees of an element.
type oracleNode struct {
	start xml.StartElement
	text  string
}

// readXML reads one element with encoding/xml: the outermost and its direct children.
func readXML(raw []byte) (root oracleNode, children []oracleNode, err error) {
	d := xml.NewDecoder(bytes.NewReader(raw))
	depth, roots := 0, 0
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			if roots != 1 {
				return root, nil, errors.New("not one element")
			}
			return root, children, nil
		}
		if err != nil {
			return root, nil, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			depth++
			switch depth {
			case 1:
				roots++
				root.start = t.Copy()
			case 2:
				children = append(children, oracleNode{start: t.Copy()})
			}
		case xml.EndElement:
			depth--
		case xml.CharData:
			switch depth {
			case 1:
				root.text += string(t)
			case 2:
				children[len(children)-1].text += string(t)
			case 0:
				if strings.TrimSpace(string(t)) != "" {
					return root, nil, errors.New("text outside")
				}
			}
		default:
			return root, nil, fmt.Errorf("restricted: %T", t)
		}
	}
}

// spaces evens out what encoding/xml does not normalize (XML §3.3.3).
var spaces = strings.NewReplacer("\t", " ", "\n", " ", "\r", " ")

// compareXML holds what e says against encoding/xml's reading of the same bytes.
func compareXML(e *Element) error {
	root, children, err := readXML(e.Raw())
	if err != nil {
		return fmt.Errorf("encoding/xml refuses: %w", err)
	}
	if err := compareNode(root, e.Name(), e.Space(), e.Text(), e.AttrRaw, e.Attr); err != nil {
		return err
	}
	if len(children) != e.NumChildren() {
		return fmt.Errorf("%d children, want %d", e.NumChildren(), len(children))
	}
	var payloads Payload
	for i, want := range children {
		c := e.Child(i)
		if err := compareNode(want, c.Name(), c.Space(), c.Text(), c.AttrRaw, c.Attr); err != nil {
			return fmt.Errorf("child %d: %w", i, err)
		}
		p := classify([]byte(want.start.Name.Local), []byte(spaces.Replace(want.start.Name.Space)))
		if p == Body && len(c.Inner()) == 0 {
			p = 0
		}
		payloads |= p
	}
	if payloads != e.Payloads() {
		return fmt.Errorf("payloads %b, want %b", e.Payloads(), payloads)
	}
	return nil
}

func compareNode(want oracleNode, name, space []byte, text string, rawAttr func(string) ([]byte, bool), attr func(string) string) error {
	if string(name) != want.start.Name.Local || spaces.Replace(string(space)) != spaces.Replace(want.start.Name.Space) {
		return fmt.Errorf("name {%s}%s, want %v", space, name, want.start.Name)
	}
	if text != want.text {
		return fmt.Errorf("text %q, want %q", text, want.text)
	}
	for _, a := range want.start.Attr {
		// encoding/xml has resolved the prefix of all but declarations.
		written := a.Name.Local
		switch a.Name.Space {
		case "":
		case NSXML:
			written = "xml:" + a.Name.Local
		case "xmlns":
			written = "xmlns:" + a.Name.Local
		default:
			continue
		}
		if _, ok := rawAttr(written); !ok {
			if a.Name.Space == NSXML {
				continue
			}
			return fmt.Errorf("attribute %s is missing", written)
		}
		if got := attr(written); spaces.Replace(got) != spaces.Replace(a.Value) {
			return fmt.Errorf("attribute %s = %q, want %q", written, got, a.Value)
		}
	}
	return nil
}

func seed(f *testing.F) {
	for _, raw := range accepted {
		f.Add([]byte(raw))
	}
	for _, tt := range refused {
		f.Add([]byte(tt.raw))
	}
}

// FuzzScan: what Scan accepts, encoding/xml accepts and reads alike; so what encoding/xml refuses, Scan refuses. The
// caps only ever refuse more, and a rewrite of nothing keeps the meaning.
func FuzzScan(f *testing.F) {
	seed(f)
	lim := Limits{Size: 512, Depth: 4, Attrs: 4, Children: 4}
	f.Fuzz(func(t *testing.T, raw []byte) {
		kept := bytes.Clone(raw)
		var e, capped Element
		err := e.Scan(raw, Limits{})
		if !bytes.Equal(raw, kept) {
			t.Fatal("Scan changed its input")
		}
		if capped.Scan(raw, lim) == nil && err != nil {
			t.Fatalf("accepted with limits only: %v", err)
		}
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || syntax.Offset < 0 || syntax.Offset > len(raw) || syntax.Stream.Condition == "" {
				t.Fatalf("not a proper SyntaxError: %#v", err)
			}
			return
		}
		if err := compareXML(&e); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
	})
}
