package offline

import "errors"

var (
	// ErrFull is what Put says when a limit is reached. The Verdict beside it says which, and what the sender gets.
	ErrFull = errors.New("offline: mailbox is full")
	// ErrClosed says that the Mailbox was closed.
	ErrClosed = errors.New("offline: mailbox is closed")
	// ErrNoID refuses a message without a stanza id: nothing here works without.
	ErrNoID = errors.New("offline: message has no stanza id")
)
