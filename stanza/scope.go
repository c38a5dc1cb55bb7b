package stanza

// few is up to how many attributes or prefixes are compared one by one; beyond it a map keeps the work linear,
// since a client chooses the number.
const few = 16

// attr is an attribute's name in the raw bytes: [name:end], its local part from local on.
type attr struct {
	name, local, end uint32
}

// declares reports whether a, which has a prefix, declares one.
func (a *attr) declares(raw []byte) bool {
	return a.local-a.name == 6 && string(raw[a.name:a.local]) == "xmlns:"
}

// expandedName is a namespace and a local name.
type expandedName struct{ space, local string }

// attrSet is the attributes of one start tag.
type attrSet struct {
	names    list[attr]
	prefixed int // how many have a prefix that is used, not declared
	seen     map[string]struct{}
	expanded map[expandedName]struct{}
}

func (t *attrSet) reset() {
	t.names.truncate(0)
	t.prefixed, t.seen, t.expanded = 0, nil, nil
}

// add reports whether no attribute of that name was there.
func (t *attrSet) add(raw []byte, a attr) bool {
	name := raw[a.name:a.end]
	if t.names.n < few {
		for i := range t.names.n {
			if b := t.names.at(i); b.end-b.name == a.end-a.name && string(raw[b.name:b.end]) == string(name) {
				return false
			}
		}
	} else if !t.addSeen(raw, name) {
		return false
	}
	t.names.push(a)
	if a.local > a.name && !a.declares(raw) {
		t.prefixed++
	}
	return true
}

func (t *attrSet) addSeen(raw, name []byte) bool {
	if t.seen == nil {
		t.seen = make(map[string]struct{}, 2*few)
		for i := range t.names.n {
			b := t.names.at(i)
			t.seen[string(raw[b.name:b.end])] = struct{}{}
		}
	}
	n := len(t.seen)
	t.seen[string(name)] = struct{}{}
	return len(t.seen) > n
}

// addExpanded reports whether no prefixed attribute of that namespace and name was there. It allocates: elements
// with two prefixed attributes are rare.
func (t *attrSet) addExpanded(space, local []byte) bool {
	if t.expanded == nil {
		t.expanded = make(map[expandedName]struct{}, t.prefixed)
	}
	n := len(t.expanded)
	t.expanded[expandedName{string(space), string(local)}] = struct{}{}
	return len(t.expanded) > n
}

// binding is a prefix [prefix:end] of the raw bytes and the namespace it stands for.
type binding struct {
	prefix, end uint32
	space       nsRef
	shadowed    int32 // the binding of the same prefix that this one hides, -1 for none; kept with byName only
}

// scope is the prefixes that are bound at one point of the scan, innermost last.
type scope struct {
	bound  list[binding]
	byName map[string]int32 // the innermost binding of each prefix, once there are more than a few
}

func (t *scope) bind(raw []byte, prefix, end int, space nsRef) {
	t.bound.push(binding{prefix: uint32(prefix), end: uint32(end), space: space})
	switch {
	case t.byName != nil:
		t.index(raw, t.bound.n-1)
	case t.bound.n > few:
		t.byName = make(map[string]int32, 2*few)
		for i := range t.bound.n {
			t.index(raw, i)
		}
	}
}

func (t *scope) index(raw []byte, i int) {
	b := t.bound.at(i)
	name := string(raw[b.prefix:b.end])
	b.shadowed = -1
	if j, ok := t.byName[name]; ok {
		b.shadowed = j
	}
	t.byName[name] = int32(i)
}

// unbind drops all but the first n.
func (t *scope) unbind(raw []byte, n int) {
	if t.byName != nil {
		for i := t.bound.n - 1; i >= n; i-- {
			b := t.bound.at(i)
			if b.shadowed < 0 {
				delete(t.byName, string(raw[b.prefix:b.end]))
			} else {
				t.byName[string(raw[b.prefix:b.end])] = b.shadowed
			}
		}
	}
	if t.bound.n > n {
		t.bound.truncate(n)
	}
}

// lookup finds what the prefix raw[prefix:end] stands for.
func (t *scope) lookup(raw []byte, prefix, end int) (nsRef, bool) {
	name := raw[prefix:end]
	if t.byName != nil {
		if i, ok := t.byName[string(name)]; ok {
			return t.bound.at(int(i)).space, true
		}
	} else {
		for i := t.bound.n - 1; i >= 0; i-- {
			if b := t.bound.at(i); string(raw[b.prefix:b.end]) == string(name) {
				return b.space, true
			}
		}
	}
	if string(name) == "xml" {
		return nsRef{off: refXML}, true
	}
	return nsRef{}, false
}
