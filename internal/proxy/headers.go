package proxy

import (
	"net/http"
	"net/netip"
	"strings"
)

// maxHops bounds how far a list is walked: more proxies than this in a row are not believed.
const maxHops = 32

// saying is what forwarding headers said.
type saying struct {
	addr   netip.Addr // of the client; the zero Addr when nobody said
	proto  string     // "https", "http", or "" when nobody said
	hidden bool       // there is somebody behind addr who was not named in a usable way
}

func (t *Trust) forwarded(h http.Header) saying {
	xff, fwd := h["X-Forwarded-For"], h["Forwarded"]
	proto := h["X-Forwarded-Proto"]
	useX := t.header == HeaderXForwarded || t.header == HeaderAuto && (len(xff) > 0 || len(fwd) == 0)
	if useX {
		s := t.walkX(xff)
		s.proto = protoX(proto)
		// A proxy that speaks of the protocol but not of the address stands for somebody else.
		if len(xff) == 0 && s.proto != "" {
			s.hidden = true
		}
		return s
	}
	return t.walkForwarded(fwd)
}

// walkX walks X-Forwarded-For from the right to the first address that is not trusted.
func (t *Trust) walkX(values []string) (s saying) {
	hops := 0
	for v := len(values) - 1; v >= 0; v-- {
		rest := values[v]
		for rest != "" {
			var item string
			if i := strings.LastIndexByte(rest, ','); i >= 0 {
				rest, item = rest[:i], rest[i+1:]
			} else {
				rest, item = "", rest
			}
			hops++
			addr := addrOf(strings.TrimSpace(item))
			if !addr.IsValid() || hops > maxHops {
				s.hidden = true
				return s
			}
			s.addr = addr
			if !t.Trusts(addr) {
				return s
			}
		}
	}
	return s
}

// protoX reads X-Forwarded-Proto. Proxies that append make a list of it; the client's side counts as TLS only when
// all of it was.
func protoX(values []string) string {
	proto := ""
	for _, v := range values {
		for item := range strings.SplitSeq(v, ",") {
			switch strings.ToLower(strings.TrimSpace(item)) {
			case "https", "wss":
				if proto == "" {
					proto = "https"
				}
			default:
				proto = "http"
			}
		}
	}
	return proto
}

// walkForwarded walks RFC 7239's header from the right. Each element tells who asked that proxy and how, so the
// protocol is that of the element that names the client.
func (t *Trust) walkForwarded(values []string) (s saying) {
	hops := 0
	for v := len(values) - 1; v >= 0; v-- {
		elements, ok := splitQuoted(values[v], ',')
		if !ok {
			s.hidden = true
			return s
		}
		for i := len(elements) - 1; i >= 0; i-- {
			hops++
			node, proto, ok := forwardedElement(elements[i])
			if !ok || hops > maxHops {
				s.hidden, s.proto = true, ""
				return s
			}
			s.proto = proto
			addr := addrOf(node)
			if !addr.IsValid() { // RFC 7239 §6.2, §6.3: unknown, or an obfuscated name
				s.hidden = true
				return s
			}
			s.addr = addr
			if !t.Trusts(addr) {
				return s
			}
		}
	}
	return s
}

// forwardedElement reads one forwarded-element of RFC 7239 §4.
func forwardedElement(e string) (node, proto string, ok bool) {
	pairs, ok := splitQuoted(e, ';')
	if !ok {
		return "", "", false
	}
	for _, p := range pairs {
		p = strings.TrimSpace(p)
		if p == "" {
			continue
		}
		name, value, found := strings.Cut(p, "=")
		if !found {
			return "", "", false
		}
		if value, ok = unquote(value); !ok {
			return "", "", false
		}
		switch strings.ToLower(name) {
		case "for":
			node = value
		case "proto":
			proto = strings.ToLower(value)
		}
	}
	if proto != "" && proto != "https" && proto != "wss" {
		proto = "http"
	}
	if proto == "wss" {
		proto = "https"
	}
	return node, proto, true
}

// splitQuoted splits at sep outside of quoted strings; ok is false when a quote is not closed.
func splitQuoted(s string, sep byte) (parts []string, ok bool) {
	quoted, start := false, 0
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case !quoted && s[i] == sep:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:]), !quoted
}

func unquote(s string) (string, bool) {
	if s == "" || s[0] != '"' {
		return s, !strings.ContainsAny(s, "\" \t")
	}
	if len(s) < 2 || s[len(s)-1] != '"' {
		return "", false
	}
	s = s[1 : len(s)-1]
	if !strings.ContainsRune(s, '\\') {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			if i++; i == len(s) {
				return "", false
			}
		}
		b.WriteByte(s[i])
	}
	return b.String(), true
}
