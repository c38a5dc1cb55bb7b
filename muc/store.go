package muc

import (
	"context"

	"holdfast/stanza"
)

// Store is where rooms are kept. Calls for one room come one at a time; those of different rooms do not wait for each
// other.
type Store interface {
	// Load reads one room; ok is false when it is not kept.
	Load(ctx context.Context, room stanza.Addr) (k Kept, ok bool, err error)
	// Save inserts or replaces a room as a whole and is durable when it returns nil. After an error the change may or
	// may not have been made.
	Save(ctx context.Context, k Kept) error
	// Remove deletes a room, durably; one that is not kept is no error.
	Remove(ctx context.Context, room stanza.Addr) error
	// Public lists at most count public rooms of host, without their State, in the order of the bytes of their
	// addresses. It begins behind the address after, which need not be a room; "" stands for the beginning.
	Public(ctx context.Context, host string, after string, count int) ([]Kept, error)
	// Persistent counts the persistent rooms that a user created.
	Persistent(ctx context.Context, creator stanza.Addr) (int, error)
}

// Kept is what a Store has of a room.
type Kept struct {
	Room       stanza.Addr // bare
	Name       string
	Creator    stanza.Addr // bare
	Public     bool
	Persistent bool
	State      []byte // of persistent rooms; as Room.State made it
}
