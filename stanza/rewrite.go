package stanza

// Edit says what Rewrite changes. Everything not named is carried over verbatim: other attributes, namespace
// declarations, prefixes, content.
type Edit struct {
	From Addr   // replaces from; the zero Addr removes it
	To   Addr   // replaces to; the zero Addr removes it
	Type string // replaces type when not empty

	// ID stamps the stanza when it is not zero: existing <stanza-id/> children with by=IDBy are removed (XEP-0359
	// §3.1), one <stanza-id xmlns='urn:xmpp:sid:0' id= by=/> is added, and Stanza.ID is set. With a zero IDBy only
	// Stanza.ID is set.
	ID   ID
	IDBy Addr

	// Without leaves out the children of these kinds, which may be among Delay, Expire and Retrieved; of Delay only
	// those whose from is an address for which DelayBy is true, the zero Addr for one without. It costs nothing where
	// there are none.
	Without Payload
	DelayBy func(Addr) bool

	// Append is children to add before the end tag, well-formed, each with its own xmlns. What is not well-formed
	// is not added: it would end the stream of everybody who gets it.
	Append []byte
}

// Rewrite makes a Stanza out of e, with one allocation, or two for a long one. The head is carried over by shifting
// offsets, not by a second scan; of Append only what is added is scanned.
//
// The Stanza shares nothing with e. Rewriting what is not a stanza (Kind Other) gives a Stanza of Kind Other.
func (e *Element) Rewrite(ed Edit) *Stanza {
	if len(e.raw) == 0 {
		return &Stanza{}
	}
	r := rewriter{old: e}
	if !r.run(&ed) {
		ed.Append = nil
		r = rewriter{old: e}
		r.run(&ed)
	}
	return r.st
}

// Rewrite is Element.Rewrite; the stanza id stays what it was unless ed gives another.
func (st *Stanza) Rewrite(ed Edit) *Stanza {
	next := st.Element.Rewrite(ed)
	if ed.ID.IsZero() {
		next.ID = st.ID
	}
	return next
}

// rewriter turns old into st.
type rewriter struct {
	old *Element
	st  *Stanza
	out []byte

	cuts     [3]span // attributes to leave out, each with the white space before it, in order
	ncuts    int
	inserted uint32 // bytes written between the name and the other attributes
}

const (
	stanzaIDOpen = "<stanza-id xmlns='" + NSStanzaID + "' id='"
	stanzaIDBy   = "' by='"
	stanzaIDEnd  = "'/>"
)

func (r *rewriter) run(ed *Edit) bool {
	old := r.old
	stamp := !ed.ID.IsZero() && !ed.IDBy.IsZero()

	removed := r.cut(old.from, "from") + r.cut(old.to, "to")
	if ed.Type != "" {
		removed += r.cut(old.typ, "type")
	}
	added := addrSize(ed.From, " from=''") + addrSize(ed.To, " to=''") + len(ed.Append)
	if ed.Type != "" {
		added += len(" type=''") + escapedSize(ed.Type)
	}
	if stamp {
		added += len(stanzaIDOpen+stanzaIDBy+stanzaIDEnd) + idLen + addrSize(ed.IDBy, "")
	}
	selfClosing := int(old.content) == len(old.raw)
	closeTag := selfClosing && (stamp || len(ed.Append) > 0)
	if closeTag {
		added += len("</>") - len("/") + int(old.nameEnd) - 1
	}
	var st *Stanza
	st, r.out = allocate(len(old.raw) - removed + added)
	r.st = st
	st.From, st.To, st.ID = ed.From, ed.To, ed.ID

	r.startTag(ed, closeTag)
	r.content(ed, stamp)
	tail := len(r.out)
	r.out = append(r.out, ed.Append...)
	st.contentEnd = uint32(len(r.out))
	if closeTag {
		r.out = append(append(append(r.out, "</"...), old.raw[1:old.nameEnd]...), '>')
	} else {
		r.out = append(r.out, old.raw[old.contentEnd:]...)
	}
	r.out = r.out[:len(r.out):len(r.out)]
	st.raw = r.out
	// Text is no child, and with what is before it might be ]]>, which is not allowed.
	return len(ed.Append) == 0 || ed.Append[0] == '<' && r.scanTail(tail)
}

// scanTail scans what was appended, in the scope of the start tag, into the head.
func (r *rewriter) scanTail(p int) bool {
	s := scanner{e: &r.st.Element, raw: r.out}
	if s.startTag(0) < 0 || s.frames.n == 0 {
		return false
	}
	return s.content(p) == len(r.out)
}

// cut notes an attribute to leave out, and returns its size with the white space before it.
func (r *rewriter) cut(value span, name string) int {
	if value.off == 0 {
		return 0
	}
	raw := r.old.raw
	start := value.off - 1 // the quote; before it '=' and the name, perhaps with white space between
	for raw[start] != '=' {
		start--
	}
	for start--; class[raw[start]]&white != 0; start-- {
	}
	start -= uint32(len(name)) - 1
	for class[raw[start-1]]&white != 0 {
		start--
	}
	c := span{start, value.end + 1}
	i := r.ncuts
	for ; i > 0 && r.cuts[i-1].off > c.off; i-- {
		r.cuts[i] = r.cuts[i-1]
	}
	r.cuts[i] = c
	r.ncuts++
	return int(c.end - c.off)
}

// shift moves an offset of the start tag behind the name.
func (r *rewriter) shift(off uint32) uint32 {
	to := off + r.inserted
	for _, c := range r.cuts[:r.ncuts] {
		if c.end <= off {
			to -= c.end - c.off
		}
	}
	return to
}

func (r *rewriter) shiftSpan(s span) span {
	if s.off == 0 {
		return s
	}
	to := r.shift(s.off)
	return span{to, to + s.end - s.off}
}

// startTag writes the start tag and shifts the head's offsets into it. The new attributes come first.
func (r *rewriter) startTag(ed *Edit, open bool) {
	old, st := r.old, r.st
	r.out = append(r.out, old.raw[:old.nameEnd]...)
	if !ed.From.IsZero() {
		r.out = append(r.out, " from='"...)
		st.from = r.attr(ed.From)
	}
	if !ed.To.IsZero() {
		r.out = append(r.out, " to='"...)
		st.to = r.attr(ed.To)
	}
	if ed.Type != "" {
		r.out = append(r.out, " type='"...)
		at := uint32(len(r.out))
		r.out = AppendEscaped(r.out, ed.Type)
		st.typ = span{at, uint32(len(r.out))}
		r.out = append(r.out, '\'')
	}
	r.inserted = uint32(len(r.out)) - old.nameEnd

	at := old.nameEnd
	for _, c := range r.cuts[:r.ncuts] {
		r.out = append(r.out, old.raw[at:c.off]...)
		at = c.end
	}
	if open {
		r.out = append(append(r.out, old.raw[at:old.content-2]...), '>')
	} else {
		r.out = append(r.out, old.raw[at:old.content]...)
	}
	st.nameEnd, st.local, st.kind = old.nameEnd, old.local, old.kind
	st.content = uint32(len(r.out))
	st.id = r.shiftSpan(old.id)
	if ed.Type == "" {
		st.typ = r.shiftSpan(old.typ)
	}
	st.space = r.shiftRef(old.space, 0)
}

func (r *rewriter) attr(a Addr) span {
	at := uint32(len(r.out))
	r.out = appendAddr(r.out, a)
	s := span{at, uint32(len(r.out))}
	r.out = append(r.out, '\'')
	return s
}

// shiftRef moves a reference to a namespace name, which is in the start tag or in a child that moves by delta.
func (r *rewriter) shiftRef(ref, delta uint32) uint32 {
	off := ref &^ refEscaped
	switch {
	case off < refFirst:
		return ref
	case off < r.old.content:
		return r.shift(off) | ref&refEscaped
	}
	return (off+delta)&^refEscaped | ref&refEscaped
}

// content writes what is between the tags, less the stanza ids that only the gateway may set, then its own.
func (r *rewriter) content(ed *Edit, stamp bool) {
	old, st := r.old, r.st
	st.payloads = old.payloads
	strip := stamp && old.payloads&StanzaID != 0
	if old.children.n >= inline {
		st.children.more = make([]child, 0, old.children.n-inline+1)
	}
	without := ed.Without & old.payloads
	kept := Payload(0) // of without
	at := old.content
	delta := st.content - old.content // modulo 2^32
	space, shifted := old.space, st.space
	for i := range old.children.n {
		c := *old.children.at(i)
		leave := strip && forged(Child{old, i}, ed.IDBy)
		if without != 0 && !leave {
			kind := Child{old, i}.kind() & without
			leave = kind != 0 && (kind != Delay || delayBy(Child{old, i}, ed.DelayBy))
			if !leave {
				kept |= kind
			}
		}
		if leave {
			r.out = append(r.out, old.raw[at:c.start]...)
			at = c.end
			delta -= c.end - c.start
			continue
		}
		if c.space == space {
			c.space = shifted
		} else {
			c.space = r.shiftRef(c.space, delta)
		}
		c.start, c.end, c.content = c.start+delta, c.end+delta, c.content+delta
		st.children.push(c)
	}
	r.out = append(r.out, old.raw[at:old.contentEnd]...)
	st.payloads = st.payloads&^without | kept
	if !stamp {
		return
	}
	c := child{start: uint32(len(r.out))}
	c.space = c.start + uint32(len("<stanza-id xmlns='"))
	r.out = append(r.out, stanzaIDOpen...)
	r.out = ed.ID.AppendTo(r.out)
	r.out = append(r.out, stanzaIDBy...)
	r.out = appendAddr(r.out, ed.IDBy)
	r.out = append(r.out, stanzaIDEnd...)
	c.end = uint32(len(r.out))
	c.content = c.end
	st.children.push(c)
	st.payloads |= StanzaID
}

// delayBy reports whether c says that it was delayed by an address of a kind.
func delayBy(c Child, kind func(Addr) bool) bool {
	v, ok := c.AttrRaw("from")
	if !ok {
		return kind(Addr{})
	}
	a, err := parseValue(v)
	return err == nil && kind(a)
}

// forged reports whether c is a stanza id that claims to be by's. Spellings that mean the same address count.
func forged(c Child, by Addr) bool {
	if !c.Is(NSStanzaID, "stanza-id") {
		return false
	}
	v, ok := c.AttrRaw("by")
	if !ok {
		return false
	}
	a, err := parseValue(v)
	return err == nil && a == by
}

// addrSize is the room for a as an attribute's value around which markup stands; none for the zero Addr.
func addrSize(a Addr, markup string) int {
	switch {
	case a.IsZero():
		return 0
	case a.esc:
		return len(markup) + escapedSize(a.full)
	}
	return len(markup) + len(a.full)
}

// escapedSize is no less than AppendEscaped needs for s.
func escapedSize(s string) int {
	if !needsEscape(s) {
		return len(s)
	}
	return 6 * len(s)
}
