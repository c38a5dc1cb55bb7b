package offline

import (
	"context"
	"database/sql"

	"holdfast/internal/sqlx"
	"holdfast/stanza"
)

// Backend keeps mailboxes on disk. Users and senders are bare JIDs in canonical form. A Mailbox is the only one who
// writes to its Backend, or with Config.Shared the only one who writes to a user's part of it.
type Backend interface {
	// Transactor's Tx gives Apply its transaction: all of a batch is there afterwards, or nothing of it.
	sqlx.Transactor
	// Apply carries out batch as if one change after the other: it is idempotent, so that the same batch may come
	// again. It must not keep batch.
	Apply(ctx context.Context, tx *sql.Tx, batch []Change) error
	// Totals counts what is stored for user, and says what the user chose, by one query.
	Totals(ctx context.Context, user string) (Totals, error)
	// Scan yields the messages of user in the order of their ids until yield returns false.
	Scan(ctx context.Context, user string, in Range, yield func(Row) bool) error
	// Users returns up to n users with mail whose names come after after, in byte order.
	Users(ctx context.Context, after string, n int) ([]string, error)
	// Marks returns the messages of sender for user that were put with a Mark of that thread, without bodies, in any order.
	Marks(ctx context.Context, user, sender string, thread [16]byte) ([]Row, error)
	// Due returns up to n messages of all users that expired by now, in milliseconds since 1970, which come after after
	// in the order of expiry, user and id.
	Due(ctx context.Context, now int64, after Due, n int) ([]Due, error)
	// Choosers returns up to n users who chose a limit, like Users.
	Choosers(ctx context.Context, after string, n int) ([]string, error)
	// Stored is about how many messages there are for all users, exactly while they are few. It is for a gauge.
	Stored(ctx context.Context) (int64, error)
}

// Op tells changes apart.
type Op uint8

const (
	// OpPut stores the message ID unless it is there already.
	OpPut Op = iota
	// OpRemove takes out the messages IDs, those that are there.
	OpRemove
	// OpPurge takes out all messages.
	OpPurge
	// OpLimit notes what the user chose, in place of what was chosen before.
	OpLimit
)

// Change is one write.
type Change struct {
	Op      Op
	User    string
	ID      stanza.ID   // OpPut
	Sender  string      // OpPut
	Raw     []byte      // OpPut
	Expires int64       // OpPut: milliseconds since 1970, UTC, from which on nobody is given the message; 0 for never
	Mark    Mark        // OpPut
	IDs     []stanza.ID // OpRemove
	Run     bool        // OpRemove: user has nothing else from the first of IDs to the last
	Limit   OwnLimit    // OpLimit; the zero OwnLimit forgets it
}

// Range is a part of a mailbox: After < id <= To, where a zero To is the end.
type Range struct {
	After, To stanza.ID
	Bodies    bool // fill in Row.Raw and Row.Expires
}

// Row is one stored message.
type Row struct {
	ID      stanza.ID
	Sender  string
	Bytes   int    // length of the message
	Expires int64  // as it was put, with Range.Bodies
	Mark    Mark   // as it was put, with Marks
	Raw     []byte // with Range.Bodies; it belongs to who gets the Row
}

// Totals is what the limits count, and what the user chose.
type Totals struct {
	Messages int
	Bytes    int64
	Senders  map[string]int // messages of each sender; nil when there are none
	Last     stanza.ID      // the greatest id
	Own      OwnLimit
}
