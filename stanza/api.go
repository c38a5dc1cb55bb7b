package stanza

// This file is a sketch of the package's surface, replaced by the real files as they are written.

import (
	"encoding/xml"
	"errors"
	"time"

	"mellium.im/xmpp/jid"
	mstanza "mellium.im/xmpp/stanza"
)

var errSketch = errors.New("sketch")

// Namespaces of the core.
const (
	NSClient  = "jabber:client"
	NSStream  = "http://etherx.jabber.org/streams"
	NSFraming = "urn:ietf:params:xml:ns:xmpp-framing"
	NSSASL    = "urn:ietf:params:xml:ns:xmpp-sasl"
	NSBind    = "urn:ietf:params:xml:ns:xmpp-bind"
	NSSM      = "urn:xmpp:sm:3"
	// … more as needed
)

// ---------------------------------------------------------------- addresses

// Addr is a comparable XMPP address (RFC 7622), usable as a map key. The zero Addr is "no address".
type Addr struct {
	full      string
	at, slash uint16
}

func ParseAddr(s string) (Addr, error)      { return Addr{}, errSketch } // PRECIS through mellium's jid, cached, bounded
func ParseAddrBytes(b []byte) (Addr, error) { return Addr{}, errSketch } // no allocation when the cache knows it
func MustParseAddr(s string) Addr           { return Addr{} }
func NewAddr(local, domain, resource string) (Addr, error) {
	return Addr{}, errSketch
}
func (a Addr) String() string                             { return a.full }
func (a Addr) Local() string                              { return "" }
func (a Addr) Domain() string                             { return "" }
func (a Addr) Resource() string                           { return "" }
func (a Addr) Bare() Addr                                 { return a } // no allocation
func (a Addr) Server() Addr                               { return a } // the domain part alone; no allocation
func (a Addr) IsZero() bool                               { return a.full == "" }
func (a Addr) IsBare() bool                               { return false } // has no resource part
func (a Addr) IsFull() bool                               { return false }
func (a Addr) WithResource(resource string) (Addr, error) { return a, errSketch }
func (a Addr) JID() jid.JID                               { return jid.JID{} }

// ---------------------------------------------------------------- stanza ids

// ID is the sortable unique id that the gateway stamps on a message at ingress (UUIDv7).
// NewID is strictly increasing within a process.
type ID [16]byte

func NewID() ID                    { return ID{} }
func ParseID(s string) (ID, error) { return ID{}, errSketch }
func (id ID) String() string       { return "" }
func (id ID) IsZero() bool         { return id == ID{} }
func (id ID) Time() time.Time      { return time.Time{} }
func (id ID) Compare(other ID) int { return 0 }

// ---------------------------------------------------------------- elements

type Kind uint8

const (
	Other Kind = iota // any element that is not one of the three stanzas of jabber:client
	Message
	Presence
	IQ
)

// Payload is a set of the direct children that rules look at, found during the one scan.
type Payload uint64

const (
	Body                 Payload = 1 << iota // <body/> jabber:client, non-empty
	Subject                                  // <subject/>
	Thread                                   //
	Error                                    // <error/>
	Delay                                    // urn:xmpp:delay
	StanzaID                                 // urn:xmpp:sid:0 stanza-id
	OriginID                                 // urn:xmpp:sid:0 origin-id
	ReceiptRequest                           // urn:xmpp:receipts request
	ReceiptReceived                          // urn:xmpp:receipts received
	Markable                                 // urn:xmpp:chat-markers:0 markable
	MarkerReceived                           // … received
	MarkerDisplayed                          // … displayed
	MarkerAcknowledged                       // … acknowledged
	ChatState                                // http://jabber.org/protocol/chatstates, any
	HintNoStore                              // urn:xmpp:hints no-store
	HintNoPermanentStore                     // no-permanent-store
	HintNoCopy                               // no-copy
	HintStore                                // store
	LegacyEvent                              // jabber:x:event
	MUC                                      // http://jabber.org/protocol/muc and #user
	Caps                                     // http://jabber.org/protocol/caps c
	Unknown                                  // at least one child that is none of these
)

// Limits caps what Scan accepts; 0 lifts a cap.
type Limits struct {
	Size     int // bytes of the whole element
	Depth    int // nested elements
	Attrs    int // attributes of one element, namespace declarations included
	Children int // direct children
}

// Child is a direct child element of an Element.
type Child struct {
	e *Element
	i int
}

func (c Child) Name() []byte             { return nil } // local name
func (c Child) Space() []byte            { return nil } // namespace, entities resolved
func (c Child) Raw() []byte              { return nil } // the whole child; prefixes may be declared outside of it
func (c Child) Inner() []byte            { return nil } // between its tags, still escaped
func (c Child) Attr(name string) string  { return "" }  // unescaped, "" when absent
func (c Child) HasAttr(name string) bool { return false }
func (c Child) Text() string             { return "" } // character data, unescaped, CDATA resolved

// Element is one complete scanned XML element: raw bytes and what one scan learnt of them. Scan reuses the
// receiver and allocates nothing for ordinary elements; the Element refers to raw, which must not change.
type Element struct {
	raw []byte
	// offsets …
}

func (e *Element) Scan(raw []byte, lim Limits) error     { return errSketch } // *SyntaxError
func (e *Element) Raw() []byte                           { return e.raw }
func (e *Element) Kind() Kind                            { return Other } // by local name and namespace jabber:client
func (e *Element) Name() []byte                          { return nil }
func (e *Element) Space() []byte                         { return nil }
func (e *Element) Is(space, name string) bool            { return false }
func (e *Element) Attr(name string) string               { return "" } // unescaped; unprefixed attributes, plus "xml:lang"
func (e *Element) HasAttr(name string) bool              { return false }
func (e *Element) AttrRaw(name string) ([]byte, bool)    { return nil, false } // as written, still escaped
func (e *Element) IDRaw() []byte                         { return nil }        // id attribute as written, nil when absent
func (e *Element) TypeRaw() []byte                       { return nil }        // type attribute
func (e *Element) Payloads() Payload                     { return 0 }
func (e *Element) NumChildren() int                      { return 0 }
func (e *Element) Child(i int) Child                     { return Child{} }
func (e *Element) Find(space, name string) (Child, bool) { return Child{}, false }
func (e *Element) Text() string                          { return "" } // own character data, for <auth>…</auth>
func (e *Element) Inner() []byte                         { return nil }
func (e *Element) Decode(v any) error                    { return xml.Unmarshal(e.raw, v) } // the rare paths

// ---------------------------------------------------------------- stanzas

// Stanza is an immutable message, presence or iq in its canonical form: raw bytes with xmlns='jabber:client'
// explicit, and its head. Safe to share between goroutines.
type Stanza struct {
	Element
	From, To Addr
	ID       ID // stanza id; zero for what is not a message that the gateway stamped
}

// Edit says what Rewrite changes. Everything not named is carried over verbatim: other attributes, namespace
// declarations, prefixes, content.
type Edit struct {
	From   Addr   // replaces from; the zero Addr removes it
	To     Addr   // replaces to; the zero Addr removes it
	Type   string // replaces type when not empty
	ID     ID     // when not zero: existing <stanza-id/> children with by=IDBy are removed, one <stanza-id xmlns='urn:xmpp:sid:0' id by/> is added, Stanza.ID is set
	IDBy   Addr
	Append []byte // children to add before the end tag, well-formed, each with its own xmlns
}

// Rewrite makes a Stanza out of e. At most two allocations: the bytes and the Stanza. The head is carried over by
// shifting offsets, not by a second scan (when Append or an ID adds children they are in the new head too).
func (e *Element) Rewrite(ed Edit) *Stanza { return nil }

// Parse makes a Stanza of stored bytes: scans, parses from and to, and takes ID from the argument.
func Parse(raw []byte, id ID) (*Stanza, error) { return nil, errSketch }

// New builds a stanza that the gateway itself says. inner is well-formed content, each child with its own xmlns.
func New(kind Kind, typ, id string, from, to Addr, inner []byte) *Stanza { return nil }

// Result answers an IQ; from/to are swapped unless from is given.
func Result(iq *Stanza, inner []byte) *Stanza { return nil }

// ErrorReply answers any stanza with type='error', from and to swapped, the same id, with the condition of
// mellium's stanza.Error (type, condition, text). It returns nil where RFC 6120 §8.3.1 forbids an answer
// (type error, iq results).
func ErrorReply(st *Stanza, cond mstanza.Error) *Stanza { return nil }

// AppendEscaped appends s escaped for character data and attribute values in either quotes.
func AppendEscaped(dst []byte, s string) []byte { return dst }

// DelayChild renders <delay xmlns='urn:xmpp:delay' from= stamp=/> (XEP-0203).
func DelayChild(from Addr, at time.Time, text string) []byte { return nil }

// ---------------------------------------------------------------- errors

// StreamError is a stream-level error condition of RFC 6120 §4.9.3, a comparable value.
type StreamError struct {
	Condition string
	Text      string
}

func (e StreamError) Error() string { return "stream error: " + e.Condition }
func (e StreamError) Raw() []byte   { return nil } // <stream:error xmlns:stream='…'>…</stream:error>

// SyntaxError says what Scan refused, where, and which stream error it amounts to.
type SyntaxError struct {
	Offset int
	Reason string
	Stream StreamError
}

func (e *SyntaxError) Error() string { return e.Reason }
