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
	list     []attr
	prefixed int // how many have a prefix that is used, not declared
	seen     map[string]struct{}
	expanded map[expandedName]struct{}

	list0 [few]attr
}

func (t *attrSet) init() { t.list = t.list0[:0] }

func (t *attrSet) reset() {
	t.list, t.prefixed, t.seen, t.expanded = t.list[:0], 0, nil, nil
}

func (t *attrSet) len() int { return len(t.list) }

// add reports whether no attribute of that name was there.
func (t *attrSet) add(raw []byte, a attr) bool {
	name := raw[a.name:a.end]
	if len(t.list) < few {
		for i := range t.list {
			if b := &t.list[i]; b.end-b.name == a.end-a.name && string(raw[b.name:b.end]) == string(name) {
				return false
			}
		}
	} else {
		if t.seen == nil {
			t.seen = make(map[string]struct{}, 2*few)
			for _, b := range t.list {
				t.seen[string(raw[b.name:b.end])] = struct{}{}
			}
		}
		n := len(t.seen)
		t.seen[string(name)] = struct{}{}
		if len(t.seen) == n {
			return false
		}
	}
	t.list = append(t.list, a)
	if a.local > a.name && !a.declares(raw) {
		t.prefixed++
	}
	return true
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
	list   []binding
	byName map[string]int32 // the innermost binding of each prefix, once there are more than a few

	list0 [4]binding
}

func (t *scope) init() { t.list = t.list0[:0] }

func (t *scope) len() int { return len(t.list) }

func (t *scope) bind(raw []byte, prefix, end int, space nsRef) {
	t.list = append(t.list, binding{prefix: uint32(prefix), end: uint32(end), space: space})
	if t.byName != nil {
		t.index(raw, len(t.list)-1)
		return
	}
	if len(t.list) > few {
		t.byName = make(map[string]int32, 2*few)
		for i := range t.list {
			t.index(raw, i)
		}
	}
}

func (t *scope) index(raw []byte, i int) {
	b := &t.list[i]
	name := string(raw[b.prefix:b.end])
	b.shadowed = -1
	if j, ok := t.byName[name]; ok {
		b.shadowed = j
	}
	t.byName[name] = int32(i)
}

// shrink unbinds all but the first n.
func (t *scope) shrink(raw []byte, n int) {
	if t.byName != nil {
		for i := len(t.list) - 1; i >= n; i-- {
			b := &t.list[i]
			if b.shadowed < 0 {
				delete(t.byName, string(raw[b.prefix:b.end]))
			} else {
				t.byName[string(raw[b.prefix:b.end])] = b.shadowed
			}
		}
	}
	t.list = t.list[:n]
}

// lookup finds what the prefix raw[prefix:end] stands for.
func (t *scope) lookup(raw []byte, prefix, end int) (nsRef, bool) {
	name := raw[prefix:end]
	if t.byName != nil {
		if i, ok := t.byName[string(name)]; ok {
			return t.list[i].space, true
		}
	} else {
		for i := len(t.list) - 1; i >= 0; i-- {
			if b := &t.list[i]; string(raw[b.prefix:b.end]) == string(name) {
				return b.space, true
			}
		}
	}
	if string(name) == "xml" {
		return nsRef{off: refXML}, true
	}
	return nsRef{}, false
}
