package stanza

import (
	"slices"
	"time"

	mstanza "mellium.im/xmpp/stanza"
)

// New builds a stanza that the gateway itself says. typ and id are left out when they are empty, from and to when
// they are zero; kind is one of the three stanzas. inner is well-formed content, each child with its own xmlns;
// what is not well-formed is left out.
func New(kind Kind, typ, id string, from, to Addr, inner []byte) *Stanza {
	var b []byte
	if id != "" {
		b = append(AppendEscaped(append(b, '\''), id), '\'')
	}
	return build(kind, typ, b, from, to, inner)
}

// build takes the id with its quotes, as it goes on the wire.
func build(kind Kind, typ string, id []byte, from, to Addr, inner []byte) *Stanza {
	name := kind.String()
	size := 2*len(name) + len("< xmlns='' from='' to='' id= type=''></>") + len(NSClient) +
		addrSize(from, "") + addrSize(to, "") + len(id) + len(typ) + len(inner)
	b := make([]byte, 0, size)
	b = append(append(append(b, '<'), name...), " xmlns='"+NSClient+"'"...)
	if !from.IsZero() {
		b = append(appendAddr(append(b, " from='"...), from), '\'')
	}
	if !to.IsZero() {
		b = append(appendAddr(append(b, " to='"...), to), '\'')
	}
	if len(id) > 0 {
		b = append(append(b, " id="...), id...)
	}
	if typ != "" {
		b = append(AppendEscaped(append(b, " type='"...), typ), '\'')
	}
	if len(inner) == 0 {
		b = append(b, "/>"...)
	} else {
		b = append(append(b, '>'), inner...)
		b = append(append(append(b, "</"...), name...), '>')
	}
	st := &Stanza{From: from, To: to}
	if err := st.Scan(b, Limits{}); err != nil && len(inner) > 0 {
		return build(kind, typ, id, from, to, nil)
	}
	return st
}

// reply addresses st's sender, with st's id as it was written.
func reply(st *Stanza, typ string, inner []byte) *Stanza {
	var id []byte
	if st.id.off != 0 {
		id = st.raw[st.id.off-1 : st.id.end+1]
	}
	return build(st.kind, typ, id, st.To, st.From, inner)
}

// Result answers an IQ with type='result', from and to swapped and the same id (RFC 6120 §8.2.3).
func Result(iq *Stanza, inner []byte) *Stanza { return reply(iq, "result", inner) }

// ErrorReply answers any stanza with type='error', from and to swapped, the same id, with the condition of
// mellium's stanza.Error (type, condition, by, text). The type is the one that RFC 6120 §8.3.3 gives for the condition
// when cond has none; an unknown condition is undefined-condition. What the stanza held is not repeated.
//
// It returns nil where no answer is allowed (RFC 6120 §8.3.1, §8.2.3): to errors and to IQ results.
func ErrorReply(st *Stanza, cond mstanza.Error) *Stanza {
	if t := string(st.TypeRaw()); t == "error" || st.kind == IQ && t == "result" || st.kind == Other {
		return nil
	}
	return reply(st, "error", ErrorChild(cond))
}

// ErrorChild renders the <error/> child (RFC 6120 §8.3.2).
func ErrorChild(e mstanza.Error) []byte {
	typ, ok := errorTypes[e.Condition]
	if !ok {
		e.Condition, typ = mstanza.UndefinedCondition, mstanza.Cancel
	}
	if e.Type != "" {
		typ = e.Type
	}
	b := make([]byte, 0, 128)
	b = append(b, "<error xmlns='"+NSClient+"' type='"...)
	b = AppendEscaped(b, string(typ))
	if by := e.By.String(); by != "" {
		b = AppendEscaped(append(b, "' by='"...), by)
	}
	b = append(append(b, "'><"...), e.Condition...)
	b = append(b, " xmlns='"+NSStanzaErrors+"'/>"...)
	langs := make([]string, 0, len(e.Text))
	for lang := range e.Text {
		langs = append(langs, lang)
	}
	slices.Sort(langs)
	for _, lang := range langs {
		b = append(b, "<text xmlns='"+NSStanzaErrors+"'"...)
		if lang != "" {
			b = append(AppendEscaped(append(b, " xml:lang='"...), lang), '\'')
		}
		b = append(AppendEscaped(append(b, '>'), e.Text[lang]), "</text>"...)
	}
	return append(b, "</error>"...)
}

// errorTypes holds the conditions and the type that RFC 6120 §8.3.3 recommends for each (the first where it names
// several).
var errorTypes = map[mstanza.Condition]mstanza.ErrorType{
	mstanza.BadRequest:            mstanza.Modify,
	mstanza.Conflict:              mstanza.Cancel,
	mstanza.FeatureNotImplemented: mstanza.Cancel,
	mstanza.Forbidden:             mstanza.Auth,
	mstanza.Gone:                  mstanza.Cancel,
	mstanza.InternalServerError:   mstanza.Cancel,
	mstanza.ItemNotFound:          mstanza.Cancel,
	mstanza.JIDMalformed:          mstanza.Modify,
	mstanza.NotAcceptable:         mstanza.Modify,
	mstanza.NotAllowed:            mstanza.Cancel,
	mstanza.NotAuthorized:         mstanza.Auth,
	mstanza.PolicyViolation:       mstanza.Modify,
	mstanza.RecipientUnavailable:  mstanza.Wait,
	mstanza.Redirect:              mstanza.Modify,
	mstanza.RegistrationRequired:  mstanza.Auth,
	mstanza.RemoteServerNotFound:  mstanza.Cancel,
	mstanza.RemoteServerTimeout:   mstanza.Wait,
	mstanza.ResourceConstraint:    mstanza.Wait,
	mstanza.ServiceUnavailable:    mstanza.Cancel,
	mstanza.SubscriptionRequired:  mstanza.Auth,
	mstanza.UndefinedCondition:    mstanza.Cancel,
	mstanza.UnexpectedRequest:     mstanza.Wait,
}

// DelayChild renders <delay xmlns='urn:xmpp:delay' from= stamp=/> (XEP-0203 §4), with text as the reason unless it
// is empty. The stamp is UTC with milliseconds (XEP-0082 §3.2).
func DelayChild(from Addr, at time.Time, text string) []byte {
	b := make([]byte, 0, 96+addrSize(from, "")+len(text))
	b = append(b, "<delay xmlns='"+NSDelay+"'"...)
	if !from.IsZero() {
		b = append(appendAddr(append(b, " from='"...), from), '\'')
	}
	b = at.UTC().AppendFormat(append(b, " stamp='"...), "2006-01-02T15:04:05.000Z")
	if text == "" {
		return append(b, "'/>"...)
	}
	return append(AppendEscaped(append(b, "'>"...), text), "</delay>"...)
}
