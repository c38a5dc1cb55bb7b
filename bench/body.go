package bench

import (
	"bytes"
	"strconv"
)

// The bodies of BOSH requests and responses (XEP-0124, XEP-0206), and those of the bare long poll: one line for each
// letter, which begins with the recipient's name.

const (
	bodyOf    = "<body rid='"
	bodyTo    = "' sid='"
	bodyNS    = "' xmlns='http://jabber.org/protocol/httpbind'"
	bodyEnd   = "</body>"
	restartNS = " xmpp:restart='true' xmlns:xmpp='urn:xmpp:xbosh'"

	// holdTime is how long a request may be held, in seconds. Servers make less of it.
	holdTime = 60
)

// appendCreation appends the request for a session (XEP-0124 §7.1), which has one request held.
func appendCreation(dst []byte, rid uint64, domain string) []byte {
	dst = strconv.AppendUint(append(dst, bodyOf...), rid, 10)
	dst = append(append(dst, "' to='"...), domain...)
	dst = append(dst, bodyNS+" hold='1' ver='1.6' content='text/xml; charset=utf-8' xml:lang='en'"+
		" xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh' wait='"...)
	return append(strconv.AppendInt(dst, holdTime, 10), "'/>"...)
}

// appendBody appends a request with stanzas, which may be none. more is further attributes, each with the space before.
func appendBody(dst []byte, rid uint64, sid, more string, stanzas []byte) []byte {
	dst = strconv.AppendUint(append(dst, bodyOf...), rid, 10)
	dst = append(append(dst, bodyTo...), sid...)
	dst = append(append(dst, bodyNS...), more...)
	if len(stanzas) == 0 {
		return append(dst, "/>"...)
	}
	return append(append(append(dst, '>'), stanzas...), bodyEnd...)
}

// envelope is how much longer a request is than the stanza in it: with a rid of ten digits, as clients begin with, and a
// sid of 32 characters, as 24 random bytes have.
const envelope = len(bodyOf) + 10 + len(bodyTo) + 32 + len(bodyNS) + 1 + len(bodyEnd)

// payloads is what is between the tags of a response's <body/>, and that <body/> with its attributes. ok is false when it is
// something else.
func payloads(raw []byte) (body, inner []byte, ok bool) {
	if bytes.HasPrefix(raw, []byte("<?")) {
		_, raw, _ = bytes.Cut(raw, []byte("?>"))
	}
	body = bytes.TrimSpace(raw)
	tag := startTag(body)
	if string(nameOf(body)) != "body" || len(tag) < 2 {
		return nil, nil, false
	}
	if tag[len(tag)-2] == '/' {
		return body, nil, true
	}
	end := bytes.LastIndex(body, []byte("</"))
	if end < len(tag) {
		return nil, nil, false
	}
	return body, body[len(tag):end], true
}

// cutElement takes the first element off b; nil when there is no whole one. (Stanzas have no comments, no CDATA sections
// and, see startTag, no '>' in attribute values.)
func cutElement(b []byte) (element, rest []byte) {
	start := bytes.IndexByte(b, '<')
	if start < 0 {
		return nil, nil
	}
	b = b[start:]
	for depth, at := 0, 0; ; {
		i := bytes.IndexByte(b[at:], '<')
		if i < 0 {
			return nil, nil
		}
		at += i
		n := bytes.IndexByte(b[at:], '>')
		if n < 2 {
			return nil, nil
		}
		tag := b[at : at+n+1]
		at += n + 1
		switch {
		case tag[1] == '/':
			depth--
		case tag[n-1] != '/':
			depth++
		}
		if depth < 0 {
			return nil, nil
		}
		if depth == 0 {
			return b[:at], b[at:]
		}
	}
}
