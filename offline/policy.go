package offline

import (
	"fmt"
	"slices"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

// Policy is what an operator can choose about which messages are kept. Decide applies it; nothing else in the
// gateway asks whether a message belongs into a mailbox.
type Policy struct {
	Storage          Storage  `env:"OFFLINE_STORAGE" desc:"on keeps messages for users who are away; error and drop keep nothing new, and answer the sender with service-unavailable, or not at all"`
	Groupchat        bool     `env:"OFFLINE_GROUPCHAT" desc:"keep messages of type groupchat as if they were of type chat, for rooms that send to members who are away; otherwise they are answered with service-unavailable"`
	StoreBodiless    bool     `env:"OFFLINE_STORE_BODILESS" desc:"keep chat and normal messages without a body, receipt, marker or store hint too; otherwise they are answered with service-unavailable"`
	Matchers         Matchers `env:"OFFLINE_MATCHERS" desc:"rules that decide what is kept before anything else does, in order, comma-separated, each [+|-]/message[…]/payload[…]; docs/operations.md has the grammar"`
	StoreNoPermanent bool     `env:"OFFLINE_STORE_NO_PERMANENT" desc:"keep messages with the hint no-permanent-store (XEP-0334) until they are delivered; otherwise they are answered with service-unavailable"`
}

// Storage says whether messages are kept at all.
type Storage uint8

const (
	// StorageOn keeps what the rest of the policy wants kept.
	StorageOn Storage = iota
	// StorageError bounces what would be kept.
	StorageError
	// StorageDrop drops it, and all that would be bounced.
	StorageDrop
)

var storageNames = [...]string{StorageOn: "on", StorageError: "error", StorageDrop: "drop"}

func (s Storage) String() string { return storageNames[s] }

// UnmarshalText reads OFFLINE_STORAGE.
func (s *Storage) UnmarshalText(text []byte) error {
	i := slices.Index(storageNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("%q is none of on, error, drop", text)
	}
	*s = Storage(i)
	return nil
}

// OverLimit says what happens to what is over a limit.
type OverLimit uint8

const (
	// LimitError bounces it, with a text that says which limit.
	LimitError OverLimit = iota
	// LimitDrop drops it.
	LimitDrop
)

var overLimitNames = [...]string{LimitError: "error", LimitDrop: "drop"}

func (o OverLimit) String() string { return overLimitNames[o] }

// UnmarshalText reads OFFLINE_OVER_LIMIT.
func (o *OverLimit) UnmarshalText(text []byte) error {
	i := slices.Index(overLimitNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("%q is neither error nor drop", text)
	}
	*o = OverLimit(i)
	return nil
}

// Action is what happens to a message for a user who is not there.
type Action uint8

const (
	// Store puts it into the mailbox.
	Store Action = iota
	// Drop ignores it silently.
	Drop
	// Bounce answers it with Verdict.Condition.
	Bounce
)

var actionNames = [...]string{Store: "store", Drop: "drop", Bounce: "bounce"}

func (a Action) String() string { return actionNames[a] }

// Reason is why.
type Reason uint8

const (
	HasBody         Reason = iota // a body or a subject: text for a human (RFC 6121 §5.2.3, §5.2.4)
	HasReceipt                    // a receipt or a request for one (XEP-0184)
	HasMarker                     // a chat marker or a request for one (XEP-0333)
	HintStore                     // the hint store (XEP-0334 §4.4)
	HintNoStore                   // the hint no-store (XEP-0334 §4.2)
	HintNoPermanent               // the hint no-permanent-store (XEP-0334 §4.1)
	Bodiless                      // other content without a body
	ChatStateOnly                 // nothing but a chat state (XEP-0085, XEP-0160 §3)
	Empty                         // nothing at all
	TypeError                     // type error (RFC 6121 §8.5.2.2.1)
	TypeHeadline                  // type headline
	TypeGroupchat                 // type groupchat
	NotMessage                    // presence or iq
	Matcher                       // a rule of OFFLINE_MATCHERS
	Overdue                       // it expired before it was to be stored (XEP-0023)
	Superseded                    // a newer marker says as much (XEP-0333)
	Disabled                      // OFFLINE_STORAGE
	PairFull                      // OFFLINE_LIMIT reached, or what the recipient chose in its place
	Declined                      // the recipient chose that nothing is stored
	MessagesFull                  // OFFLINE_USER_LIMIT reached
	BytesFull                     // OFFLINE_USER_BYTES reached
	reasons                       // how many there are
)

var reasonNames = [reasons]string{
	HasBody: "body", HasReceipt: "receipt", HasMarker: "marker", HintStore: "hint_store",
	HintNoStore: "hint_no_store", HintNoPermanent: "hint_no_permanent_store", Bodiless: "bodiless",
	ChatStateOnly: "chat_state", Empty: "empty", TypeError: "error", TypeHeadline: "headline",
	TypeGroupchat: "groupchat", NotMessage: "not_message", Matcher: "matcher", Overdue: "expired", Superseded: "superseded", Disabled: "disabled", PairFull: "pair_full", Declined: "declined", MessagesFull: "messages_full",
	BytesFull: "bytes_full",
}

func (r Reason) String() string { return reasonNames[r] }

// bounceText says to the sender why; reasons that never bounce have none.
var bounceText = [reasons]string{
	HintNoStore:     "The recipient is offline and the message asked not to be stored",
	HintNoPermanent: "The recipient is offline and the message asked not to be stored",
	Bodiless:        "The recipient is offline and messages without a body are not stored",
	TypeGroupchat:   "The recipient is offline and groupchat messages are not stored",
	Matcher:         "The recipient is offline and messages of this kind are not stored",
	Disabled:        "Bounce offline message", // the text that other servers have
	PairFull:        "The recipient is offline and too many of your messages to them are waiting already",
	Declined:        "The recipient is offline and does not have messages stored",
	MessagesFull:    "The recipient is offline and too many messages to them are waiting already",
	BytesFull:       "The recipient is offline and their mailbox has no room for a message of this size",
}

// Verdict is what is done with a message, and why. It is comparable.
type Verdict struct {
	Action Action
	Reason Reason
}

// Text says to the sender of what is bounced why; it is "" otherwise.
func (v Verdict) Text() string { return bounceText[v.Reason] }

// Condition is the error for the sender of what is bounced: service-unavailable with a text that says why
// (XEP-0160 §2, RFC 6121 §8.5.2.2.1).
func (v Verdict) Condition() mstanza.Error {
	e := mstanza.Error{Type: mstanza.Cancel, Condition: mstanza.ServiceUnavailable}
	if text := v.Text(); text != "" {
		e.Text = map[string]string{"en": text}
	}
	return e
}

const (
	text     = stanza.Body | stanza.Subject
	receipts = stanza.ReceiptRequest | stanza.ReceiptReceived
	markers  = stanza.Markable | stanza.MarkerReceived | stanza.MarkerDisplayed | stanza.MarkerAcknowledged
	// passing is what has a meaning only now, or only beside other content.
	passing = stanza.ChatState | stanza.LegacyEvent | stanza.Thread | stanza.Delay | stanza.StanzaID |
		stanza.OriginID | stanza.HintNoStore | stanza.HintNoPermanentStore | stanza.HintNoCopy | stanza.HintStore | stanza.AMP | stanza.Expire | stanza.Retrieved
)

// Decide says what is done with st when its recipient has no available resource of non-negative priority. It is
// pure: limits are not its business. The package's doc has the table.
func Decide(st *stanza.Stanza, p Policy) Verdict {
	v := p.decide(st)
	switch {
	case p.Storage == StorageError && v.Action == Store:
		return Verdict{Bounce, Disabled}
	case p.Storage == StorageDrop && v.Action == Store && string(st.TypeRaw()) == "groupchat":
		return Verdict{Bounce, Disabled} // rooms are to notice
	case p.Storage == StorageDrop && v.Action != Drop && v.Reason != TypeGroupchat:
		return Verdict{Drop, Disabled}
	}
	return v
}

// decide is Decide with storage switched on.
func (p Policy) decide(st *stanza.Stanza) Verdict {
	if st.Kind() != stanza.Message {
		return Verdict{Drop, NotMessage}
	}
	has := st.Payloads()
	switch string(st.TypeRaw()) {
	case "error": // hints inside of errors are not looked at (XEP-0334 §5)
		return Verdict{Drop, TypeError}
	}
	if refuse, ok := p.Matchers.match(st); ok {
		if !refuse {
			return Verdict{Store, Matcher}
		}
		return Verdict{refusal(st), Matcher}
	}
	switch string(st.TypeRaw()) {
	case "groupchat":
		if !p.Groupchat {
			return Verdict{Bounce, TypeGroupchat}
		}
	case "headline":
		if _, refused := p.refuses(has); !refused && has.Has(stanza.HintStore) {
			return Verdict{Store, HintStore}
		}
		return Verdict{Drop, TypeHeadline}
	}
	// chat, normal, groupchat on request, no type and, as RFC 6121 §5.2.2 has it, any other word for a type
	if reason, refused := p.refuses(has); refused {
		switch {
		case has&^passing == 0 && has.Has(stanza.ChatState):
			return Verdict{Drop, ChatStateOnly}
		case has&^(passing|receipts|markers) == 0:
			return Verdict{Drop, reason} // there is no content that the sender could miss
		}
		return Verdict{Bounce, reason}
	}
	switch {
	case has.Has(stanza.HintStore):
		return Verdict{Store, HintStore}
	case has&text != 0:
		return Verdict{Store, HasBody}
	case has&receipts != 0:
		return Verdict{Store, HasReceipt}
	case has&markers != 0:
		return Verdict{Store, HasMarker}
	case has&^passing == 0 && has.Has(stanza.ChatState):
		return Verdict{Drop, ChatStateOnly}
	case has&^passing == 0:
		return Verdict{Drop, Empty}
	case p.StoreBodiless:
		return Verdict{Store, Bodiless}
	}
	return Verdict{Bounce, Bodiless}
}

// refusal is how what could not be stored is refused: as RFC 6121 §8.5.2.2.1 has it, unless there is no content that
// the sender could miss.
func refusal(st *stanza.Stanza) Action {
	if string(st.TypeRaw()) == "headline" || st.Payloads()&^(passing|receipts|markers) == 0 {
		return Drop
	}
	return Bounce
}

// refuses reports whether a hint forbids to store. It wins over the hint store: what was stored against the sender's
// will cannot be taken back, while a bounce loses nothing.
func (p Policy) refuses(has stanza.Payload) (Reason, bool) {
	switch {
	case has.Has(stanza.HintNoStore):
		return HintNoStore, true
	case has.Has(stanza.HintNoPermanentStore) && !p.StoreNoPermanent:
		return HintNoPermanent, true
	}
	return 0, false
}
