package roster

import (
	mstanza "mellium.im/xmpp/stanza"
)

// Error is a refusal to be told to the client. Errors are comparable values; errors.As finds the mellium stanza error
// in them.
type Error struct {
	Type      mstanza.ErrorType
	Condition mstanza.Condition
	Text      string
}

// The refusals (RFC 6121 §2.3.3, §2.5.3).
var (
	ErrItemNotFound   = Error{mstanza.Cancel, mstanza.ItemNotFound, "no such contact"}
	ErrBadContact     = Error{mstanza.Modify, mstanza.BadRequest, "the item has no usable jid"}
	ErrDuplicateGroup = Error{mstanza.Modify, mstanza.BadRequest, "a group is named twice"}
	ErrOwnContact     = Error{mstanza.Cancel, mstanza.NotAllowed, "a user is not a contact of itself"}
	ErrEmptyGroup     = Error{mstanza.Modify, mstanza.NotAcceptable, "a group has no name"}
	ErrLongName       = Error{mstanza.Modify, mstanza.NotAcceptable, "a name is too long"}
	ErrManyGroups     = Error{mstanza.Modify, mstanza.NotAcceptable, "too many groups"}
	ErrManyItems      = Error{mstanza.Modify, mstanza.PolicyViolation, "the roster is full"}
)

func (e Error) Error() string { return "roster: " + string(e.Condition) + ": " + e.Text }

// Unwrap returns e as a [mstanza.Error].
func (e Error) Unwrap() error {
	return mstanza.Error{Type: e.Type, Condition: e.Condition, Text: map[string]string{"en": e.Text}}
}
