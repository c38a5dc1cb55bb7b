package journal

import (
	"encoding/binary"
	"fmt"
	"time"

	"holdfast/stanza"
)

// FlagLink in Session.Flags says that it is no session but a link from another node, whose messages are counted.
const FlagLink uint8 = 1 << 7

// Forward is the KindForward record: a message for another node, and the inbound stanza that it came of. The link that
// it goes through is a session of its own as far as counting goes: KindHandled with Link says up to which Seq the
// other node has it.
type Forward struct {
	Origin  uint64 // Session.Ord of the sender, 0 when it is not counted
	N       uint32 // the sender's inbound count with this stanza
	Link    uint64 // Session.Ord of the link
	To      string // the node that the link leads to
	Seq     uint32 // the message's place among all that went through the link, from 1
	Op      uint8  // what the other node is to do; package session's
	Leaves  bool   // the user is handed over: its sessions and awaited receipts are this node's no more
	Term    uint64 // of the user's home that it is meant for; package cluster's
	User    stanza.Addr
	Payload []byte
}

// leaves is the flag of a Forward.
const leaves = 1

// AppendHead appends all but the payload, which follows it.
func (r *Forward) AppendHead(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, r.Origin)
	dst = binary.LittleEndian.AppendUint32(dst, r.N)
	dst = binary.LittleEndian.AppendUint64(dst, r.Link)
	dst = binary.LittleEndian.AppendUint32(dst, r.Seq)
	flags := byte(0)
	if r.Leaves {
		flags |= leaves
	}
	dst = append(dst, r.Op, flags)
	dst = binary.LittleEndian.AppendUint64(dst, r.Term)
	return appendString(appendString(dst, r.To), r.User.String())
}

// DecodeForward reads a KindForward record. The result does not refer to b.
func DecodeForward(b []byte) (*Forward, error) {
	const fixed = 8 + 4 + 8 + 4 + 2 + 8
	if len(b) < fixed {
		return nil, errShort
	}
	r := &Forward{
		Origin: binary.LittleEndian.Uint64(b),
		N:      binary.LittleEndian.Uint32(b[8:]),
		Link:   binary.LittleEndian.Uint64(b[12:]),
		Seq:    binary.LittleEndian.Uint32(b[20:]),
		Op:     b[24],
		Leaves: b[25]&leaves != 0,
		Term:   binary.LittleEndian.Uint64(b[26:]),
	}
	d := decoder{b: b[fixed:]}
	r.To, r.User = d.string(), d.addr()
	if d.err != nil {
		return nil, fmt.Errorf("journal: forwarded message: %w", d.err)
	}
	r.Payload = append([]byte(nil), d.b...)
	return r, nil
}

// User is all that a node has of one user: what it hands over to another, and what that one takes.
type User struct {
	Addr     stanza.Addr
	Sessions []Kept
	Awaited  []Await
	// Seen is how far the node that hands over has got in what the other one sent it.
	Seen uint32
}

// Kept is a session with its counters and queue.
type Kept struct {
	State   *Session
	Handled uint32
	Acked   uint64
	Queue   []*Stanza // places Acked+1 and on, without a gap
	// What a session remembers of messages that it was given out of turn (see session.Session).
	Passed, Had []stanza.ID
}

// Await is a message that awaits its receipt.
type Await struct {
	ID       stanza.ID
	From, To stanza.Addr
	MsgID    string
	Stanza   *stanza.Stanza // nil when the message is in offline storage
	Deadline time.Time      // zero for never
	Step     int
}

// Taken is the KindTaken record: a User, and the message of a link that brought it.
type Taken struct {
	Origin uint64
	N      uint32
	User   *User
}

// AppendHead appends all but the user, which follows as User.Append has it.
func (r *Taken) AppendHead(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, r.Origin)
	return binary.LittleEndian.AppendUint32(dst, r.N)
}

// DecodeTaken reads a KindTaken record.
func DecodeTaken(b []byte) (*Taken, error) {
	if len(b) < 12 {
		return nil, errShort
	}
	u, err := DecodeUser(b[12:])
	if err != nil {
		return nil, err
	}
	return &Taken{Origin: binary.LittleEndian.Uint64(b), N: binary.LittleEndian.Uint32(b[8:]), User: u}, nil
}

// Append encodes u after dst.
func (u *User) Append(dst []byte) []byte {
	dst = appendString(dst, u.Addr.String())
	dst = binary.AppendUvarint(dst, uint64(u.Seen))
	dst = binary.AppendUvarint(dst, uint64(len(u.Sessions)))
	for i := range u.Sessions {
		k := &u.Sessions[i]
		dst = appendString(dst, string(k.State.Append(nil)))
		dst = binary.AppendUvarint(dst, uint64(k.Handled))
		dst = binary.AppendUvarint(dst, k.Acked)
		dst = binary.AppendUvarint(dst, uint64(len(k.Queue)))
		for _, q := range k.Queue {
			dst = q.Append(dst)
		}
		dst = appendIDs(appendIDs(dst, k.Passed), k.Had)
	}
	dst = binary.AppendUvarint(dst, uint64(len(u.Awaited)))
	for i := range u.Awaited {
		a := &u.Awaited[i]
		dst = append(dst, a.ID[:]...)
		dst = appendString(dst, a.From.String())
		dst = appendString(dst, a.To.String())
		dst = appendString(dst, a.MsgID)
		dst = binary.AppendVarint(dst, milli(a.Deadline))
		dst = binary.AppendUvarint(dst, uint64(a.Step))
		var raw string
		if a.Stanza != nil {
			raw = string(a.Stanza.Raw())
		}
		dst = appendString(dst, raw)
	}
	return dst
}

// DecodeUser reads what Append wrote. The result does not refer to b.
func DecodeUser(b []byte) (*User, error) {
	d := decoder{b: b}
	u := &User{Addr: d.addr(), Seen: uint32(d.uvarint())}
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		u.Sessions = append(u.Sessions, d.kept())
	}
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		u.Awaited = append(u.Awaited, d.await())
	}
	if d.err != nil {
		return nil, fmt.Errorf("journal: user: %w", d.err)
	}
	return u, nil
}

func (d *decoder) kept() (k Kept) {
	state, err := DecodeSession([]byte(d.string()))
	d.fail(err)
	k = Kept{State: state, Handled: uint32(d.uvarint()), Acked: d.uvarint()}
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		q, rest, err := CutStanza(d.b)
		if d.fail(err); d.err != nil {
			break
		}
		d.b = rest
		k.Queue = append(k.Queue, q)
	}
	k.Passed, k.Had = d.ids(), d.ids()
	return k
}

func (d *decoder) await() (a Await) {
	a = Await{ID: d.id(), From: d.addr(), To: d.addr(), MsgID: d.string(), Deadline: fromMilli(d.varint()), Step: int(d.uvarint())}
	if raw := d.string(); raw != "" && d.err == nil {
		st, err := stanza.Parse([]byte(raw), a.ID)
		d.fail(err)
		a.Stanza = st
	}
	return a
}

func (d *decoder) fail(err error) {
	if err != nil && d.err == nil {
		d.err, d.b = err, nil
	}
}

func (d *decoder) addr() (a stanza.Addr) {
	s := d.string()
	if s == "" || d.err != nil {
		return a
	}
	a, err := stanza.ParseAddr(s)
	d.fail(err)
	return a
}

func (d *decoder) ids() (ids []stanza.ID) {
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		ids = append(ids, d.id())
	}
	return ids
}

func appendIDs(dst []byte, ids []stanza.ID) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(ids)))
	for i := range ids {
		dst = append(dst, ids[i][:]...)
	}
	return dst
}
