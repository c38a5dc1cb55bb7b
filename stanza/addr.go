package stanza

import (
	"errors"
	"fmt"
	"strings"

	"mellium.im/xmpp/jid"
)

// Addr is a comparable XMPP address in its canonical form (RFC 7622), usable as a map key. The zero Addr is "no
// address".
type Addr struct {
	full  string
	local uint16 // length of the localpart, 0 without one
	slash uint16 // where the resourcepart's '/' is, 0 without one
	esc   bool   // full must be escaped to stand in an attribute; only a resourcepart can need it
}

// maxPart is how many bytes one part of an address may have (RFC 7622 §3.1).
const maxPart = 1023

// maxSpelling is how much of a localpart or resourcepart is handed to PRECIS at all; a domainpart must be within its
// bound as it is spelt, since reading A-labels takes time quadratic in their length.
const maxSpelling = 4 * maxPart

// ErrAddr is wrapped by the errors of all that makes an Addr.
var ErrAddr = errors.New("stanza: malformed address")

// ParseAddr reads an address and brings it into its canonical form. Addresses seen lately cost no allocation.
// Its errors wrap ErrAddr and never quote s.
func ParseAddr(s string) (Addr, error) {
	slot := addrs.slot(s)
	if a, ok := slot.find(s); ok {
		return a, nil
	}
	return slot.parse(strings.Clone(s))
}

// ParseAddrBytes is ParseAddr for bytes, which it does not keep.
func ParseAddrBytes(b []byte) (Addr, error) {
	slot := addrs.slotBytes(b)
	if a, ok := slot.findBytes(b); ok {
		return a, nil
	}
	return slot.parse(string(b))
}

// MustParseAddr is ParseAddr for constants; it panics where that fails.
func MustParseAddr(s string) Addr {
	a, err := ParseAddr(s)
	if err != nil {
		panic(fmt.Sprintf("MustParseAddr(%q): %v", s, err))
	}
	return a
}

// NewAddr puts an address together from its parts; local and resource may be empty.
func NewAddr(local, domain, resource string) (Addr, error) {
	n := len(local) + len(domain) + len(resource) + 2
	b := make([]byte, 0, n)
	if local != "" {
		b = append(append(b, local...), '@')
	}
	b = append(b, domain...)
	if resource != "" {
		b = append(append(b, '/'), resource...)
	}
	// The parts are what the caller says they are, not where the first separators happen to be.
	if strings.ContainsAny(local, "@/") || strings.ContainsAny(domain, "@/") {
		return Addr{}, fmt.Errorf("%w: a separator within a part", ErrAddr)
	}
	return ParseAddrBytes(b)
}

// parseAddr is ParseAddr without the cache; the Addr refers to s when s is canonical already.
func parseAddr(s string) (Addr, error) {
	if a, ok := plainAddr(s); ok {
		return a, nil
	}
	local, domain, resource, err := jid.SplitString(s)
	if err != nil {
		return Addr{}, fmt.Errorf("%w: %w", ErrAddr, err)
	}
	if len(local) > maxSpelling || len(domain) > maxPart || len(resource) > maxSpelling {
		return Addr{}, fmt.Errorf("%w: too long", ErrAddr)
	}
	j, err := jid.New(local, domain, resource)
	if err != nil {
		return Addr{}, fmt.Errorf("%w: %w", ErrAddr, err)
	}
	full := j.String()
	again, err := jid.Parse(full)
	if err != nil || !again.Equal(j) {
		// A form that changes again when it is read again cannot be a key.
		return Addr{}, fmt.Errorf("%w: no stable canonical form", ErrAddr)
	}
	a := Addr{full: full, local: uint16(len(j.Localpart()))}
	if r := j.Resourcepart(); r != "" {
		if len(r) > maxPart {
			return Addr{}, fmt.Errorf("%w: resourcepart too long", ErrAddr)
		}
		a.slash = uint16(len(full) - len(r) - 1)
		a.esc = needsEscape(r)
	}
	if needsEscape(a.Bare().full) {
		return Addr{}, fmt.Errorf("%w: forbidden character", ErrAddr)
	}
	if d := a.Domain(); d[0] == '.' || strings.Contains(d, "..") {
		return Addr{}, fmt.Errorf("%w: empty label in the domainpart", ErrAddr)
	}
	return a, nil
}

// plainAddr reads addresses that are their own canonical form by inspection: a lower-case ASCII localpart, an LDH
// domain without A-labels, a resourcepart of printable ASCII. Nearly all are.
func plainAddr(s string) (Addr, bool) {
	a := Addr{full: s}
	domain := s
	if i := strings.IndexByte(s, '/'); i >= 0 {
		r := s[i+1:]
		if i == 0 || len(r) == 0 || len(r) > maxPart || i > 2*maxPart+1 {
			return Addr{}, false
		}
		for j := range len(r) {
			if r[j] < 0x20 || r[j] > 0x7e {
				return Addr{}, false
			}
		}
		a.slash, a.esc = uint16(i), needsEscape(r)
		domain = s[:i]
	}
	if i := strings.IndexByte(domain, '@'); i >= 0 {
		if i == 0 || i > maxPart {
			return Addr{}, false
		}
		for j := range i {
			if !plainLocal[domain[j]] {
				return Addr{}, false
			}
		}
		a.local = uint16(i)
		domain = domain[i+1:]
	}
	if !plainDomain(domain) {
		return Addr{}, false
	}
	return a, true
}

// plainLocal holds the ASCII of UsernameCaseMapped that maps to itself, less what RFC 7622 §3.3.1 forbids.
var plainLocal = func() (t [256]bool) {
	for c := byte(0x21); c < 0x7f; c++ {
		t[c] = (c < 'A' || c > 'Z') && strings.IndexByte(`"&'/:<>@`, c) < 0
	}
	return t
}()

// plainDomain accepts lower-case LDH labels. What looks like an A-label (RFC 5890 §2.3.1) is left to IDNA.
func plainDomain(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	start := 0
	for i := 0; ; i++ {
		if i == len(s) || s[i] == '.' {
			n := i - start
			if n == 0 || n > 63 || s[start] == '-' || s[i-1] == '-' {
				return false
			}
			if n >= 4 && s[start+2] == '-' && s[start+3] == '-' {
				return false
			}
			if i == len(s) {
				return true
			}
			start = i + 1
			continue
		}
		if c := s[i]; c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
}

// String returns the canonical form, "" for the zero Addr.
func (a Addr) String() string { return a.full }

// Local returns the localpart, "" without one.
func (a Addr) Local() string { return a.full[:a.local] }

// Domain returns the domainpart.
func (a Addr) Domain() string { return a.Server().full }

// Resource returns the resourcepart, "" without one.
func (a Addr) Resource() string {
	if a.slash == 0 {
		return ""
	}
	return a.full[a.slash+1:]
}

// Bare returns the address without its resourcepart.
func (a Addr) Bare() Addr {
	if a.slash == 0 {
		return a
	}
	return Addr{full: a.full[:a.slash], local: a.local}
}

// Server returns the domainpart alone as an address.
func (a Addr) Server() Addr {
	full := a.Bare().full
	if a.local != 0 {
		full = full[a.local+1:]
	}
	return Addr{full: full}
}

// IsZero reports whether a is "no address".
func (a Addr) IsZero() bool { return a.full == "" }

// IsBare reports whether a is an address without a resourcepart.
func (a Addr) IsBare() bool { return a.full != "" && a.slash == 0 }

// IsFull reports whether a has a resourcepart.
func (a Addr) IsFull() bool { return a.slash != 0 }

// WithResource returns the address of one resource of a's bare address; an empty resource gives the bare address.
func (a Addr) WithResource(resource string) (Addr, error) {
	if a.IsZero() {
		return Addr{}, fmt.Errorf("%w: a resource of no address", ErrAddr)
	}
	if resource == "" {
		return a.Bare(), nil
	}
	return ParseAddr(a.Bare().full + "/" + resource)
}

// JID returns a for mellium's types; the zero JID for the zero Addr.
func (a Addr) JID() jid.JID {
	if a.IsZero() {
		return jid.JID{}
	}
	return jid.NewUnsafe(a.Local(), a.Domain(), a.Resource()).JID
}

// MarshalText implements encoding.TextMarshaler.
func (a Addr) MarshalText() ([]byte, error) { return []byte(a.full), nil }

// UnmarshalText implements encoding.TextUnmarshaler; empty text is the zero Addr.
func (a *Addr) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*a = Addr{}
		return nil
	}
	got, err := ParseAddrBytes(text)
	if err == nil {
		*a = got
	}
	return err
}
