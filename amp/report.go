package amp

import (
	"bytes"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

// specific renders a condition with the rules that it is about (§6).
func specific(space, name string, rules []Rule) []byte {
	b := []byte("<" + name + " xmlns='" + space + "'>")
	for _, r := range rules {
		b = r.append(b, space != NS)
	}
	return append(b, "</"+name+">"...)
}

// append renders a rule, with its namespace where the element around it has another one.
func (r Rule) append(b []byte, foreign bool) []byte {
	b = append(b, "<rule"...)
	if foreign {
		b = append(b, " xmlns='"+NS+"'"...)
	}
	for _, a := range [...]struct{ name, value string }{{"action", string(r.Action)}, {"condition", r.Condition}, {"value", r.Value}} {
		b = append(append(append(b, ' '), a.name...), "='"...)
		b = append(stanza.AppendEscaped(b, a.value), '\'')
	}
	return append(b, "/>"...)
}

func head(status string, from, to stanza.Addr) []byte {
	b := []byte("<amp xmlns='" + NS + "'")
	for _, a := range [...]struct{ name, value string }{{"status", status}, {"from", from.String()}, {"to", to.String()}} {
		if a.value != "" {
			b = append(append(append(b, ' '), a.name...), "='"...)
			b = append(stanza.AppendEscaped(b, a.value), '\'')
		}
	}
	return append(b, '>')
}

// Report is what the sender of st is told of a rule that was met; drop tells nothing.
func Report(st *stanza.Stanza, r Rule) *stanza.Stanza {
	if r.Action == Drop {
		return nil
	}
	inner := append(r.append(head(string(r.Action), st.From, st.To), false), "</amp>"...)
	typ := ""
	if r.Action == Error {
		typ = "error"
		failed := specific(NSErrors, "failed-rules", []Rule{r})
		inner = append(inner, WithSpecific(stanza.ErrorChild(mstanza.Error{Type: mstanza.Modify, Condition: mstanza.UndefinedCondition}), failed)...)
	}
	return stanza.New(stanza.Message, typ, st.Attr("id"), st.To.Server(), st.From, inner)
}

// WithSpecific puts an application-specific condition into a rendered <error/> (RFC 6120 §8.3.4).
func WithSpecific(rendered, condition []byte) []byte {
	end := []byte("</error>")
	if len(condition) == 0 || !bytes.HasSuffix(rendered, end) {
		return rendered
	}
	return append(append(bytes.Clone(bytes.TrimSuffix(rendered, end)), condition...), end...)
}

// Refusal answers st, whose rules can't be followed (§6).
func Refusal(st *stanza.Stanza, cond mstanza.Error, condition []byte) *stanza.Stanza {
	var rules []byte
	if amp, ok := st.Find(NS, "amp"); ok && amp.Is(NS, "amp") {
		rules = append(head("", stanza.Addr{}, stanza.Addr{}), bytes.Clone(amp.Inner())...)
		rules = append(rules, "</amp>"...)
	}
	failed := WithSpecific(stanza.ErrorChild(cond), condition)
	inner := append(bytes.Clone(rules), failed...)
	reply := stanza.New(stanza.Message, "error", st.Attr("id"), st.To.Server(), st.From, inner)
	if reply.NumChildren() == 0 { // prefixes of the rules are declared outside of them
		reply = stanza.New(stanza.Message, "error", st.Attr("id"), st.To.Server(), st.From, failed)
	}
	return reply
}

// Marked is st with the addresses in its <amp/> that a server has to put there (§5.1).
func Marked(raw []byte, amp stanza.Child, from, to stanza.Addr) []byte {
	outer, inner := amp.Raw(), amp.Inner()
	at := bytes.Index(raw, outer)
	if at < 0 {
		return raw
	}
	b := append([]byte(nil), raw[:at]...)
	h := head("", from, to)
	if hop := amp.Attr("per-hop"); hop == "true" || hop == "false" {
		h = append(h[:len(h)-1], " per-hop='"+hop+"'>"...)
	}
	b = append(append(append(b, h...), inner...), "</amp>"...)
	return append(b, raw[at+len(outer):]...)
}
