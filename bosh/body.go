package bosh

import (
	"bytes"
	"errors"
	"strings"

	"holdfast/stanza"
)

const (
	nsBind  = "http://jabber.org/protocol/httpbind"
	nsXBOSH = "urn:xmpp:xbosh"

	maxRID = 1<<53 - 1 // XEP-0124 §14.1
)

// body is the <body/> of a request. Its values are parts of the request's bytes, still escaped.
type body struct {
	elem stanza.Element
	values

	decls    []decl
	prefixed []prefixed
	scratch  []byte // a child that had to be rewritten
}

// values is what the attributes say.
type values struct {
	rid uint64

	sid, typ, key, newkey             []byte
	ack, pause, wait, hold, ver       []byte
	to, from, content, lang, version  []byte
	restart                           bool
	scanned                           bool // elem is this request's
	hasAck, hasPause, hasKey, hasNewk bool
}

// decl is a namespace declaration of <body/>; the prefix is empty for the default namespace.
type decl struct{ prefix, value []byte }

// prefixed is an attribute with a prefix.
type prefixed struct{ prefix, local, value []byte }

// errBody is wrapped by what is wrong with a request but not with its XML.
var errBody = errors.New("bosh: malformed request")

func malformed(reason string) error { return &bodyError{reason} }

type bodyError struct{ reason string }

func (e *bodyError) Error() string { return "bosh: malformed request: " + e.reason }
func (e *bodyError) Unwrap() error { return errBody }

// parse reads raw, which is referred to until the next parse. The error wraps errBody or is a *stanza.SyntaxError.
func (b *body) parse(raw []byte, lim stanza.Limits) error {
	b.reset()
	raw, err := skipDeclaration(raw)
	if err != nil {
		return err
	}
	if err := b.elem.Scan(raw, lim); err != nil {
		return err
	}
	b.scanned = true
	if !b.elem.Is(nsBind, "body") {
		return malformed("no <body/>")
	}
	b.attributes()
	rid, ok := number(b.value("rid"))
	if !ok || rid == 0 || rid > maxRID {
		return malformed("rid")
	}
	b.rid = rid
	return b.checkText()
}

func (b *body) reset() {
	clear(b.decls)
	clear(b.prefixed)
	b.values, b.decls, b.prefixed = values{}, b.decls[:0], b.prefixed[:0]
}

func (b *body) value(name string) []byte {
	v, _ := b.elem.AttrRaw(name)
	return v
}

// skipDeclaration passes over what may stand before an XML document's element. RFC 6120 would not have it, but HTTP
// libraries write it.
func skipDeclaration(raw []byte) ([]byte, error) {
	raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))
	raw = bytes.TrimLeft(raw, " \t\r\n")
	if !bytes.HasPrefix(raw, []byte("<?xml ")) {
		return raw, nil
	}
	d, rest, ok := bytes.Cut(raw, []byte("?>"))
	if !ok || len(d) > 256 {
		return nil, malformed("XML declaration")
	}
	if i := bytes.Index(d, []byte("encoding")); i >= 0 && !bytes.Contains(bytes.ToLower(d[i:]), []byte("utf-8")) {
		return nil, malformed("encoding")
	}
	return bytes.TrimLeft(rest, " \t\r\n"), nil
}

// attributes reads the start tag, which Scan has accepted.
func (b *body) attributes() {
	raw := b.elem.Raw()
	p := 1
	for !space(raw[p]) && raw[p] != '>' && raw[p] != '/' {
		p++
	}
	for {
		for space(raw[p]) {
			p++
		}
		if raw[p] == '>' || raw[p] == '/' {
			break
		}
		start, colon := p, -1
		for raw[p] != '=' && !space(raw[p]) {
			if raw[p] == ':' {
				colon = p
			}
			p++
		}
		name := raw[start:p]
		for raw[p] != '\'' && raw[p] != '"' {
			p++
		}
		n := bytes.IndexByte(raw[p+1:], raw[p])
		value := raw[p+1 : p+1+n]
		p += n + 2
		if colon < 0 {
			b.attribute(name, value)
			continue
		}
		prefix, local := raw[start:colon], raw[colon+1:start+len(name)]
		switch string(prefix) {
		case "xmlns":
			b.decls = append(b.decls, decl{local, value})
		case "xml":
			if string(local) == "lang" {
				b.lang = value
			}
		default:
			b.prefixed = append(b.prefixed, prefixed{prefix, local, value})
		}
	}
	for _, a := range b.prefixed {
		for _, d := range b.decls {
			if len(d.prefix) > 0 && string(d.prefix) == string(a.prefix) && string(d.value) == nsXBOSH {
				switch string(a.local) {
				case "restart":
					b.restart = string(a.value) == "true" || string(a.value) == "1"
				case "version":
					b.version = a.value
				}
			}
		}
	}
}

func (b *body) attribute(name, value []byte) {
	switch string(name) {
	case "xmlns":
		b.decls = append(b.decls, decl{nil, value})
	case "sid":
		b.sid = value
	case "type":
		b.typ = value
	case "key":
		b.key, b.hasKey = value, true
	case "newkey":
		b.newkey, b.hasNewk = value, true
	case "ack":
		b.ack, b.hasAck = value, true
	case "pause":
		b.pause, b.hasPause = value, true
	case "wait":
		b.wait = value
	case "hold":
		b.hold = value
	case "ver":
		b.ver = value
	case "to":
		b.to = value
	case "from":
		b.from = value
	case "content":
		b.content = value
	}
}

// checkText refuses character data between the children (XEP-0124 §6).
func (b *body) checkText() error {
	rest := b.elem.Inner()
	for i := range b.elem.NumChildren() {
		c := b.elem.Child(i).Raw()
		at := cap(rest) - cap(c) // both end where the body ends
		if len(bytes.TrimLeft(rest[:at], " \t\r\n")) > 0 {
			return malformed("text in <body/>")
		}
		rest = rest[at+len(c):]
	}
	if len(bytes.TrimLeft(rest, " \t\r\n")) > 0 {
		return malformed("text in <body/>")
	}
	return nil
}

// terminates reports whether the client ends the session with this request.
func (b *body) terminates() bool { return string(b.typ) == "terminate" }

// empty reports whether nothing but the sign of life is in the request (XEP-0124 §11, §12).
func (b *body) empty() bool {
	return b.elem.NumChildren() == 0 && !b.terminates() && !b.hasPause && !b.restart
}

// child scans the i-th payload into e, self-contained. e refers to the request's bytes or to scratch, until the next call.
func (b *body) child(e *stanza.Element, i int, lim stanza.Limits) error {
	c := b.elem.Child(i)
	raw := c.Raw()
	ns, own := c.AttrRaw("xmlns")
	switch {
	case own && string(ns) == nsBind:
		// Some clients repeat the namespace of <body/> where they mean that of the stream (XEP-0206 §3).
		at := cap(raw) - cap(ns)
		b.scratch = append(b.scratch[:0], raw[:at]...)
		b.scratch = append(b.scratch, stanza.NSClient...)
		b.scratch = append(b.scratch, raw[at+len(ns):]...)
		raw = b.scratch
	case !own:
		b.scratch = b.declare(b.scratch[:0], raw, nil, b.defaultSpace())
		raw = b.scratch
	}
	err := e.Scan(raw, lim)
	if err == nil || !errors.Is(err, stanza.BadNamespacePrefix) {
		return err
	}
	// A prefix that is declared on <body/>. It is rare, so that it costs a second scan does not matter.
	made := false
	for _, d := range b.decls {
		if len(d.prefix) == 0 || !bytes.Contains(raw, append(bytes.Clone(d.prefix), ':')) || c.HasAttr("xmlns:"+string(d.prefix)) {
			continue
		}
		raw = b.declare(nil, raw, d.prefix, d.value)
		made = true
	}
	if !made {
		return err
	}
	return e.Scan(raw, lim)
}

// defaultSpace is the namespace of children that do not say theirs.
func (b *body) defaultSpace() []byte {
	for _, d := range b.decls {
		if len(d.prefix) == 0 && len(d.value) > 0 && string(d.value) != nsBind {
			return d.value
		}
	}
	return []byte(stanza.NSClient)
}

// declare appends raw with one more namespace declaration in its start tag. The value is written as it was.
func (b *body) declare(dst, raw, prefix, value []byte) []byte {
	p := 1
	for !space(raw[p]) && raw[p] != '>' && raw[p] != '/' {
		p++
	}
	dst = append(append(dst, raw[:p]...), " xmlns"...)
	if len(prefix) > 0 {
		dst = append(append(dst, ':'), prefix...)
	}
	quote := byte('\'')
	if bytes.IndexByte(value, quote) >= 0 {
		quote = '"'
	}
	dst = append(append(append(dst, '=', quote), value...), quote)
	return append(dst, raw[p:]...)
}

func space(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// number reads an unsigned decimal number that fits into what JavaScript can count (XEP-0124 §14.1) and a little more.
func number(v []byte) (n uint64, ok bool) {
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + uint64(c-'0')
	}
	return n, true
}

// version reads "major.minor" (XEP-0124 §7.1).
func version(v []byte) (major, minor uint64, ok bool) {
	a, m, found := bytes.Cut(v, []byte("."))
	if !found || len(a) > 4 || len(m) > 4 {
		return 0, 0, false
	}
	major, ok1 := number(a)
	minor, ok2 := number(m)
	return major, minor, ok1 && ok2
}

// contentType accepts what the client wants its answers to be called (XEP-0124 §7.1): a media type, and UTF-8.
func contentType(v string) (string, bool) {
	if len(v) > 128 {
		return "", false
	}
	media, params, _ := strings.Cut(v, ";")
	typ, sub, found := strings.Cut(strings.TrimSpace(media), "/")
	if !found || !token(typ) || !token(sub) {
		return "", false
	}
	params = strings.ReplaceAll(strings.ReplaceAll(strings.TrimSpace(params), " ", ""), `"`, "")
	if params != "" && !strings.EqualFold(params, "charset=utf-8") {
		return "", false
	}
	return typ + "/" + sub + "; charset=utf-8", true
}

func token(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("+-._", c) < 0 {
			return false
		}
	}
	return s != ""
}
