package stanza

import "fmt"

// Stanza is an immutable message, presence or iq in its canonical form: raw bytes with xmlns='jabber:client'
// explicit, and its head. It is safe to share between goroutines.
type Stanza struct {
	Element
	From, To Addr
	ID       ID // stanza id; zero for what is not a message that the gateway stamped
}

// Parse makes a Stanza of bytes that were stored: it scans them without limits and reads from and to; id was stored
// beside them. The Stanza refers to raw, which must not change.
func Parse(raw []byte, id ID) (*Stanza, error) {
	st := &Stanza{ID: id}
	if err := st.Scan(raw, Limits{}); err != nil {
		return nil, fmt.Errorf("stanza: parse: %w", err)
	}
	if st.kind == Other {
		return nil, fmt.Errorf("stanza: parse: %w", UnsupportedStanzaType)
	}
	var err error
	if st.From, err = st.addr(st.from); err != nil {
		return nil, fmt.Errorf("stanza: parse from: %w", err)
	}
	if st.To, err = st.addr(st.to); err != nil {
		return nil, fmt.Errorf("stanza: parse to: %w", err)
	}
	return st, nil
}

// AddrAttr reads an attribute that holds an address. Without the attribute it returns the zero Addr.
func (e *Element) AddrAttr(name string) (Addr, error) {
	v, ok := e.AttrRaw(name)
	if !ok {
		return Addr{}, nil
	}
	return parseValue(v)
}

func (e *Element) addr(s span) (Addr, error) {
	if s.off == 0 {
		return Addr{}, nil
	}
	return parseValue(e.raw[s.off:s.end])
}

// parseValue reads an address as it is written in an attribute.
func parseValue(v []byte) (Addr, error) {
	for _, c := range v {
		if c == '&' || c < 0x20 {
			return ParseAddrBytes(appendValue(nil, v))
		}
	}
	return ParseAddrBytes(v)
}
