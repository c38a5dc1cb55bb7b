package roster

// Subscription is the agreed part of a subscription state (RFC 6121 §2.1.2.5), as seen from the roster's owner.
type Subscription uint8

const (
	// None: neither side gets the other's presence.
	None Subscription = 0
	// To: the user gets the contact's presence.
	To Subscription = 1
	// From: the contact gets the user's presence.
	From Subscription = 2
	// Both is To and From.
	Both Subscription = To | From
)

var subscriptions = [...]string{None: "none", To: "to", From: "from", Both: "both"}

// String is the value of the subscription attribute.
func (s Subscription) String() string {
	if int(s) >= len(subscriptions) {
		return "none"
	}
	return subscriptions[s]
}

// HasTo reports whether the user gets the contact's presence.
func (s Subscription) HasTo() bool { return s&To != 0 }

// HasFrom reports whether the contact gets the user's presence.
func (s Subscription) HasFrom() bool { return s&From != 0 }

// Kind is the type of a presence stanza that changes a subscription.
type Kind uint8

const (
	// NoKind is the zero Kind: none of the four.
	NoKind Kind = iota
	// Subscribe asks for the other's presence.
	Subscribe
	// Subscribed approves such a request, or pre-approves one (§3.4).
	Subscribed
	// Unsubscribe gives up the other's presence, or the request for it.
	Unsubscribe
	// Unsubscribed denies a request or cancels an approval.
	Unsubscribed
)

var kinds = [...]string{
	NoKind: "", Subscribe: "subscribe", Subscribed: "subscribed", Unsubscribe: "unsubscribe", Unsubscribed: "unsubscribed",
}

// String is the value of the type attribute.
func (k Kind) String() string {
	if int(k) >= len(kinds) {
		return ""
	}
	return kinds[k]
}

// ParseKind reads a presence stanza's type attribute; ok is false for every other type.
func ParseKind(typ []byte) (k Kind, ok bool) {
	switch string(typ) {
	case "subscribe":
		return Subscribe, true
	case "subscribed":
		return Subscribed, true
	case "unsubscribe":
		return Unsubscribe, true
	case "unsubscribed":
		return Unsubscribed, true
	}
	return NoKind, false
}

// state is a subscription state of RFC 6121 §A.1, and pre-approval beside it. ask is "Pending Out".
type state struct {
	sub                      Subscription
	ask, pendingIn, approved bool
}

// decision is what a state and a stanza lead to, whoever the contact is.
type decision struct {
	route       bool
	reply       Kind
	presence    bool
	unavailable bool
	again       bool
}

// outbound is §A.2: the user sends kind to the contact.
func (s state) outbound(kind Kind) (state, decision) {
	switch kind {
	case Subscribe: // §A.2.1
		if !s.sub.HasTo() {
			s.ask = true
		}
		return s, decision{route: true}

	case Unsubscribe: // §A.2.2
		s.sub &^= To
		s.ask = false
		return s, decision{route: true}

	case Subscribed: // §A.2.3
		switch {
		case s.pendingIn:
			s.sub |= From
			s.pendingIn = false
			return s, decision{route: true, presence: true, again: s.ask}
		case !s.sub.HasFrom():
			s.approved = true // §3.4.2
		}
		return s, decision{}

	case Unsubscribed: // §A.2.4
		d := decision{
			route:       s.sub.HasFrom() || s.pendingIn,
			unavailable: s.sub.HasFrom(), // §3.2.2: while the contact is still subscribed
		}
		s.sub &^= From
		s.pendingIn, s.approved = false, false
		return s, d
	}
	return s, decision{}
}

// inbound is §A.3: the contact sent kind to the user.
func (s state) inbound(kind Kind) (state, decision) {
	switch kind {
	case Subscribe: // §A.3.1
		switch {
		case s.sub.HasFrom():
			// The contact lost count of what it has. Its presence is as out of date as its state.
			return s, decision{reply: Subscribed, presence: true}
		case s.approved:
			s.sub |= From
			return s, decision{reply: Subscribed, presence: true, again: s.ask}
		case s.pendingIn:
			return s, decision{}
		}
		s.pendingIn = true
		return s, decision{route: true}

	case Unsubscribe: // §A.3.2
		d := decision{
			route:       s.sub.HasFrom() || s.pendingIn,
			unavailable: s.sub.HasFrom(), // §3.3.3
		}
		s.sub &^= From
		s.pendingIn = false
		return s, d

	case Subscribed: // §A.3.3
		if !s.ask {
			return s, decision{}
		}
		s.sub |= To
		s.ask = false
		return s, decision{route: true}

	case Unsubscribed: // §A.3.4
		d := decision{route: s.sub.HasTo() || s.ask}
		s.sub &^= To
		s.ask = false
		return s, d
	}
	return s, decision{}
}
