package offline

import "errors"

var (
	// ErrFull is what Put says when a limit is reached. The Verdict beside it says which, and what the sender gets.
	ErrFull = errors.New("offline: mailbox is full")
	// ErrBusy is what Put says while too much waits to be written. Nothing was done; Room says when to try again.
	ErrBusy = errors.New("offline: too much waits to be written")
	// ErrInUse is what Release says when somebody used the mailbox meanwhile.
	ErrInUse = errors.New("offline: mailbox is in use")
	// ErrClosed says that the Mailbox was closed.
	ErrClosed = errors.New("offline: mailbox is closed")
	// ErrNoID refuses a message without a stanza id: nothing here works without.
	ErrNoID = errors.New("offline: message has no stanza id")
)
