package offline

import (
	"bytes"
	"fmt"
	"strings"

	"holdfast/stanza"
)

// Matchers are OFFLINE_MATCHERS: rules in order, of which the first that matches a message decides about it. The
// package's doc has the grammar.
type Matchers struct {
	text  string // as it was written
	rules []matcher
}

// matcher is one rule. It is immutable.
type matcher struct {
	refuse  bool // "-"
	message conditions
	child   string // local name of a direct child, "*" for any, "" when the rule is about the message alone
	payload conditions
}

// conditions are what has to hold for one element.
type conditions struct {
	space string // namespace, "" for any
	attrs []attrCondition
}

type attrCondition struct {
	name, value string
	present     bool // it only has to be there
}

// String returns the rules as they were written.
func (m Matchers) String() string { return m.text }

// UnmarshalText reads OFFLINE_MATCHERS. Its errors name the rule and the character, both counted from 1.
func (m *Matchers) UnmarshalText(text []byte) error {
	p := matcherParser{in: string(text)}
	var rules []matcher
	p.blank()
	for p.at < len(p.in) {
		r, err := p.rule()
		if err != nil {
			return fmt.Errorf("rule %d, at character %d: %w", len(rules)+1, 1+len([]rune(p.in[:p.at])), err)
		}
		rules = append(rules, r)
	}
	*m = Matchers{text: p.in, rules: rules}
	return nil
}

// match returns what the first rule that matches st says; ok is false when none does.
func (m Matchers) match(st *stanza.Stanza) (refuse, ok bool) {
	for i := range m.rules {
		if r := &m.rules[i]; r.matches(st) {
			return r.refuse, true
		}
	}
	return false, false
}

func (r *matcher) matches(st *stanza.Stanza) bool {
	if !r.message.holdForMessage(st) {
		return false
	}
	if r.child == "" {
		return true
	}
	for i := range st.NumChildren() {
		if c := st.Child(i); (r.child == "*" || string(c.Name()) == r.child) && r.payload.holdForChild(c) {
			return true
		}
	}
	return false
}

func (c *conditions) holdForMessage(st *stanza.Stanza) bool {
	if c.space != "" && string(st.Space()) != c.space {
		return false
	}
	for i := range c.attrs {
		a := &c.attrs[i]
		if a.name == "type" && !a.present { // RFC 6121 §5.2.2: no type and an unknown one are normal
			if effectiveType(st.TypeRaw()) != a.value {
				return false
			}
			continue
		}
		raw, ok := st.AttrRaw(a.name)
		if !a.holds(raw, ok, st.Attr) {
			return false
		}
	}
	return true
}

func (c *conditions) holdForChild(child stanza.Child) bool {
	if c.space != "" && string(child.Space()) != c.space {
		return false
	}
	for i := range c.attrs {
		a := &c.attrs[i]
		raw, ok := child.AttrRaw(a.name)
		if !a.holds(raw, ok, child.Attr) {
			return false
		}
	}
	return true
}

// holds compares the raw value where it can, since resolving references takes memory.
func (a *attrCondition) holds(raw []byte, ok bool, resolved func(string) string) bool {
	switch {
	case !ok || a.present:
		return ok
	case bytes.ContainsAny(raw, "&\t\n\r"):
		return resolved(a.name) == a.value
	}
	return string(raw) == a.value
}

func effectiveType(raw []byte) string {
	switch string(raw) {
	case "chat":
		return "chat"
	case "groupchat":
		return "groupchat"
	case "headline":
		return "headline"
	case "error":
		return "error"
	}
	return "normal"
}

// matcherParser reads rules from left to right; at is where it is, and where an error is.
type matcherParser struct {
	in string
	at int
}

type matcherError string

func (e matcherError) Error() string { return string(e) }

const (
	errPath      = matcherError("a rule is [+|-]/message[…]/name[…]")
	errName      = matcherError("expected the name of an element, or *")
	errDeep      = matcherError("only direct children of a message can be named")
	errCondition = matcherError("a condition is [@attribute], [@attribute=value], [xmlns=namespace] or [namespace]")
	errOpen      = matcherError("the condition has no end")
	errTwoSpaces = matcherError("an element has one namespace")
	errNever     = matcherError("errors are never stored, and not matched")
	errComma     = matcherError("expected a comma before the next rule")
	errNoRule    = matcherError("expected a rule after the comma")
)

func (p *matcherParser) blank() {
	for p.at < len(p.in) && strings.IndexByte(" \t\r\n", p.in[p.at]) >= 0 {
		p.at++
	}
}

func (p *matcherParser) take(c byte) bool {
	if p.at < len(p.in) && p.in[p.at] == c {
		p.at++
		return true
	}
	return false
}

// rule reads one, and the comma behind it.
func (p *matcherParser) rule() (r matcher, err error) {
	if r.refuse = p.take('-'); !r.refuse {
		p.take('+')
	}
	start := p.at
	if !p.take('/') || p.name() != "message" {
		p.at = start
		return r, errPath
	}
	if r.message, err = p.conditions(); err != nil {
		return r, err
	}
	for _, a := range r.message.attrs {
		if a.name == "type" && a.value == "error" {
			return r, errNever
		}
	}
	if p.take('/') {
		if p.take('*') {
			r.child = "*"
		} else if r.child = p.name(); r.child == "" {
			return r, errName
		}
		if r.payload, err = p.conditions(); err != nil {
			return r, err
		}
	}
	p.blank()
	switch {
	case p.at == len(p.in):
		return r, nil
	case p.in[p.at] == '/':
		return r, errDeep
	case !p.take(','):
		return r, errComma
	}
	p.blank()
	if p.at == len(p.in) {
		return r, errNoRule
	}
	return r, nil
}

// name reads the local name of an element.
func (p *matcherParser) name() string {
	start := p.at
	for p.at < len(p.in) && strings.IndexByte("/[],*@+= \t\r\n'\"<>&:", p.in[p.at]) < 0 {
		p.at++
	}
	return p.in[start:p.at]
}

func (p *matcherParser) conditions() (c conditions, err error) {
	for p.at < len(p.in) && p.in[p.at] == '[' {
		n := strings.IndexByte(p.in[p.at:], ']')
		if n < 0 {
			return c, errOpen
		}
		inner := p.in[p.at+1 : p.at+n]
		attr, isAttr := strings.CutPrefix(inner, "@")
		space, _ := strings.CutPrefix(inner, "xmlns=")
		switch {
		case isAttr:
			name, value, hasValue := strings.Cut(attr, "=")
			if name == "" || strings.ContainsAny(name, " \t\r\n[@/'\"<>&") {
				return c, errCondition
			}
			c.attrs = append(c.attrs, attrCondition{name: name, value: value, present: !hasValue})
		case space == "" || strings.ContainsAny(space, " \t\r\n["):
			return c, errCondition
		case c.space != "":
			return c, errTwoSpaces
		default:
			c.space = space
		}
		p.at += n + 1
	}
	return c, nil
}
