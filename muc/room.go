package muc

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"time"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

// maxOuts is more than what one stanza makes a room send.
const maxOuts = 16_000

// Out is a stanza that a room sends: Stanza, with these addresses in place of its own. The same Stanza may be in many
// Outs; whoever sends it rewrites it once per recipient.
type Out struct {
	Stanza   *stanza.Stanza
	From, To stanza.Addr
}

// Room is one room. It is not safe for concurrent use.
type Room struct {
	sv     *Service
	addr   stanza.Addr
	limits limits
	// secret makes occupant ids (XEP-0421 §3.1) and is never told.
	secret []byte

	options      options
	creator      stanza.Addr // bare; zero while the room does not exist
	affiliations map[stanza.Addr]affiliation
	history      history
	subject      entry
	invited      []invited // those who may decline, in the order in which they were invited

	occupants []*occupant // in the order in which they came
	byNick    map[string]*occupant
	bySession map[stanza.Addr]*occupant
	sessions  int // of all occupants

	dirty   bool // Save has something to do
	spoken  bool // the same for messages, which have time
	saved   time.Time
	granted bool // the store has the room among the persistent ones of its creator
	unsure  bool // the store may have lost what the State says it has; not in the State

	outs []Out                  // of the stanza that is being handled
	ours func(stanza.Addr) bool // whether an address is the room's or the host's
}

func (s *Service) newRoom(addr stanza.Addr) *Room {
	r := &Room{
		sv:        s,
		addr:      addr,
		limits:    s.limits(addr),
		byNick:    make(map[string]*occupant),
		bySession: make(map[stanza.Addr]*occupant),
	}
	// One that names nobody is taken to be of who sends it on.
	r.ours = func(a stanza.Addr) bool { return a.IsZero() || a == addr || a == addr.Server() }
	r.clear()
	return r
}

// clear makes the room one that does not exist.
func (r *Room) clear() {
	r.options = defaultOptions()
	r.creator = stanza.Addr{}
	r.affiliations = make(map[stanza.Addr]affiliation)
	r.history = history{}
	r.subject = entry{}
	r.invited = nil
	r.occupants = nil
	clear(r.byNick)
	clear(r.bySession)
	r.sessions = 0
	r.spoken, r.granted = false, false
}

// exists reports whether somebody is in the room or it is kept.
func (r *Room) exists() bool { return !r.creator.IsZero() }

// nobody stands for the creator of a room that the operator named.
func (r *Room) nobody() stanza.Addr { return r.addr.Server() }

// endIfEmpty ends a temporary room that nobody is in. The next one here is another room, with other occupant ids.
func (r *Room) endIfEmpty() {
	if r.exists() && len(r.occupants) == 0 && !r.options.Persistent {
		r.end()
	}
}

func (r *Room) end() {
	r.clear()
	h := hmac.New(sha256.New, r.secret)
	h.Write([]byte("next room"))
	r.secret = h.Sum(nil)
	r.dirty = true
}

// changed notes that what is kept of the room is not what the store has.
func (r *Room) changed() {
	if r.options.Persistent {
		r.dirty = true
	}
}

// Idle reports whether nobody is in the room: when Save has nothing to do, it may be forgotten and opened again without loss.
func (r *Room) Idle() bool { return len(r.occupants) == 0 }

// Handle does what a stanza asks for and returns what the room sends, in order; never more than 16,000 stanzas.
// It depends on the room's state and st alone, st.ID included.
func (r *Room) Handle(st *stanza.Stanza) []Out {
	if st.From.IsZero() {
		return nil
	}
	switch st.Kind() {
	case stanza.Presence:
		r.handlePresence(st)
	case stanza.Message:
		r.handleMessage(st)
	case stanza.IQ:
		r.handleIQ(st)
	}
	outs := r.outs
	r.outs = nil
	return outs
}

// send adds to what the room sends.
func (r *Room) send(st *stanza.Stanza, from, to stanza.Addr) {
	r.outs = append(r.outs, Out{Stanza: st, From: from, To: to})
}

// sendAll sends st to every session of every occupant.
func (r *Room) sendAll(st *stanza.Stanza, from stanza.Addr) {
	if r.outs == nil {
		r.outs = make([]Out, 0, r.sessions)
	}
	for _, o := range r.occupants {
		for i := range o.sessions {
			r.outs = append(r.outs, Out{Stanza: st, From: from, To: o.sessions[i].addr})
		}
	}
}

// refuse answers with an error, unless none may be.
func (r *Room) refuse(st *stanza.Stanza, condition mstanza.Condition, text string) {
	r.refuseWith(st, mstanza.Error{Condition: condition}, text)
}

func (r *Room) refuseWith(st *stanza.Stanza, e mstanza.Error, text string) {
	e.By = r.addr.JID()
	if text != "" {
		e.Text = map[string]string{"en": text}
	}
	if reply := stanza.ErrorReply(st, e); reply != nil {
		r.send(reply, st.To, st.From)
	}
}

// fits reports whether what everybody is told of n occupants is few enough stanzas for one answer.
func (r *Room) fits(n int) bool { return (n+2)*r.sessions < maxOuts-maxHistory }

// reserved reports whether only a room may say c: what it knows of an occupant (XEP-0045 §17.2, XEP-0421 §4.1), and,
// with ids, that it stamped a message (XEP-0359 §5). The request to enter is for the room alone.
func (r *Room) reserved(c stanza.Child, ids bool) bool {
	switch string(c.Name()) {
	case "x":
		space := string(c.Space())
		return space == stanza.NSMUCUser || space == stanza.NSMUC
	case occupantIDTag:
		return string(c.Space()) == nsOccupantID
	case "stanza-id":
		if !ids || string(c.Space()) != stanza.NSStanzaID {
			return false
		}
		by, err := stanza.ParseAddr(c.Attr("by"))
		return err == nil && by == r.addr
	}
	return false
}

// strip leaves out what only a room may say. It costs a look at the children where there is nothing of that kind.
func (r *Room) strip(st *stanza.Stanza, ids bool) *stanza.Stanza {
	const kinds = stanza.MUC | stanza.Unknown | stanza.StanzaID
	if st.Payloads()&kinds == 0 {
		return st
	}
	for i := range st.NumChildren() {
		if r.reserved(st.Child(i), ids) {
			return r.stripSlow(st, ids)
		}
	}
	return st
}

// stripSlow puts the start tag, whose prefixes the children may use, and the children that are kept together again.
// Text between them means nothing in a stanza.
func (r *Room) stripSlow(st *stanza.Stanza, ids bool) *stanza.Stanza {
	raw := st.Raw()
	end := bytes.LastIndex(raw, []byte("</"))
	b := make([]byte, 0, len(raw))
	b = append(b, raw[:end-len(st.Inner())]...)
	for i := range st.NumChildren() {
		if c := st.Child(i); !r.reserved(c, ids) {
			b = append(b, c.Raw()...)
		}
	}
	b = append(b, raw[end:]...)
	kept, err := stanza.Parse(b, st.ID)
	if err != nil { // not to be: its parts were scanned
		return stanza.New(st.Kind(), st.Attr("type"), st.Attr("id"), st.From, st.To, nil)
	}
	return kept
}
