package auth

import (
	"context"
	"errors"
	"time"

	"holdfast/stanza"
)

// Errors of a Store and of Accounts.
var (
	ErrExists   = errors.New("account exists")
	ErrNotFound = errors.New("no such account")

	errRemoving = errors.New("what an earlier account of this name had is still being removed")
)

// Account is what is kept of a user.
type Account struct {
	Addr        stanza.Addr // bare
	Version     int64       // differs after each change, also from that of an earlier account of the same name
	Created     time.Time   // to the second
	Disabled    bool
	Removing    bool // a removal of an earlier account of this name is pending; only Load says it
	Credentials []Credential
}

// Change is one entry of the log of changes.
type Change struct {
	Seq  int64 // in the order in which the changes became visible
	Addr stanza.Addr
}

// Store keeps accounts. Each method is one transaction, and each change of an account adds one entry to the log of
// changes in that transaction. Errors other than the two named are the store's trouble.
type Store interface {
	// Load returns the account with those of its credentials that are named, or ErrNotFound.
	Load(ctx context.Context, user stanza.Addr, mechanisms ...string) (Account, error)
	// Create adds accounts; Version and Created are given by the store. For each that exists already it says
	// ErrExists in the slice, and adds the others.
	Create(ctx context.Context, accounts []Account) ([]error, error)
	// Update replaces the credentials (none given: they stay) and Disabled, or says ErrNotFound.
	Update(ctx context.Context, account Account) error
	// Remove removes an account, or says ErrNotFound. The entry in the log of changes is pending and has the
	// returned Seq.
	Remove(ctx context.Context, user stanza.Addr) (int64, error)
	// List returns up to limit accounts with addresses after the given one in byte order, without credentials.
	List(ctx context.Context, after stanza.Addr, limit int) ([]Account, error)
	// Secret returns random bytes that are the same at each call, in each process, for the life of the store.
	Secret(ctx context.Context) ([]byte, error)
	Guests
	Log
}

// Log is a store's log of changes.
type Log interface {
	// Changes returns up to limit entries after seq, oldest first.
	Changes(ctx context.Context, after int64, limit int) ([]Change, error)
	// Last returns the Seq of the last entry ever, 0 before the first.
	Last(ctx context.Context) (int64, error)
	// Pending returns up to limit removals that are pending, oldest first.
	Pending(ctx context.Context, limit int) ([]Change, error)
	// Claim takes a pending removal for claimant, who may claim it again, and reports whether that succeeded: it does
	// not while another's lease runs, nor when the removal is pending no more. A store that one gateway has to itself
	// may always say yes.
	Claim(ctx context.Context, seq int64, claimant string, lease time.Duration) (bool, error)
	// Handled says that a removal is pending no more. If the name has an account again, that is logged as a change of it.
	Handled(ctx context.Context, seq int64) error
	// Prune removes entries older than the given time that are not pending.
	Prune(ctx context.Context, before time.Time) error
}
