package stanza

// DelayedBy reports whether the stanza says that it was delayed by an address (XEP-0203 §2).
func (e *Element) DelayedBy(by Addr) bool {
	if e.payloads&Delay == 0 {
		return false
	}
	for i := range e.children.n {
		c := Child{e, i}
		if c.kind() != Delay {
			continue
		}
		if v, ok := c.AttrRaw("from"); ok {
			if a, err := parseValue(v); err == nil && a == by {
				return true
			}
		}
	}
	return false
}
