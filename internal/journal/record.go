package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"holdfast/stanza"
)

// Kind tells the records apart. The numbers are on disk: never reuse one.
type Kind uint8

const (
	// KindStanza is a stanza that entered outboxes or the mailbox.
	KindStanza Kind = 1
	// KindHandled is an inbound stanza whose effects, if any, are in records of their own.
	KindHandled Kind = 2
	// KindAcked is a client's acknowledgement.
	KindAcked Kind = 3
	// KindSession is the state of a session, replacing what an earlier record said.
	KindSession Kind = 4
	// KindEnded is the end of a session.
	KindEnded Kind = 5
	// KindUnstored takes messages out of a mailbox; with none named, all of them.
	KindUnstored Kind = 6
	// KindProved closes a packet-cache entry.
	KindProved Kind = 7
	// KindDirected is one address more, or less, that a session sent directed presence to.
	KindDirected Kind = 8
	// KindMoved is an outbox place whose stanza was handed on because the session ended.
	KindMoved Kind = 9
	// KindForward is a message for another node of the cluster.
	KindForward Kind = 10
	// KindTaken is a user whom another node handed over, with all sessions.
	KindTaken Kind = 11
	// KindCarried is what the transport of a session noted, replacing what it noted before.
	KindCarried Kind = 12
)

// Target is one outbox that a stanza entered, and its place there.
type Target struct {
	Session uint64 // Session.Ord
	Pos     uint64 // place in the outbox, counted from 1 since the session was bound
}

// Flags of a KindStanza record.
type Flags uint8

const (
	// Stored: the stanza went to the mailbox of To.
	Stored Flags = 1 << iota
	// Awaits: a packet-cache entry was opened for it; together with Stored: the message of an open entry went
	// to the mailbox, and only a late receipt is awaited.
	Awaits
	// FromMailbox: the stanza came out of the mailbox of the target's user and stays there until acknowledged.
	FromMailbox
	// Held: the target had no connection when the stanza arrived, so it gets a delay stamp.
	Held
	// Copied: several sessions of the user got it.
	Copied
)

// Stanza is the KindStanza record.
type Stanza struct {
	Origin  uint64 // Session.Ord of the sender, 0 when it is not counted
	N       uint32 // the sender's inbound count with this stanza
	Flags   Flags
	Targets []Target
	Stanza  *stanza.Stanza
}

// Session is the KindSession record: what a resumption needs besides counters and queue.
type Session struct {
	Ord       uint64
	Addr      stanza.Addr
	Token     string // XEP-0198 id, empty without resumption
	Managed   bool   // XEP-0198 is on
	Base      uint64 // outbox place at which the client's count began
	Max       time.Duration
	Presence  []byte // last broadcast presence, nil while unavailable
	Priority  int8
	Flags     uint8     // session's own
	Taken     stanza.ID // newest message that the session was given out of the mailbox
	Directed  []string  // only in a checkpoint; in the journal each is a record of its own
	Detached  time.Time // zero while attached
	Since     stanza.ID // made when the session began to get messages to the bare address
	CreatedAt time.Time
	Sid       string        // what the client knows its transport as, if that outlives its process
	Linger    time.Duration // how long the client may take to come back to it
	Carried   []byte        // what the transport noted
	Earlier   uint64        // inbound stanzas from before XEP-0198 was enabled
}

// Unresumable says that what clients know of the session may differ from what is stored, so that it must end.
func (r *Session) Unresumable() { r.Token, r.Sid = "", "" }

var errShort = errors.New("journal: record too short")

// ErrFenced says that another node has taken over what this one had: it may write nothing any more.
var ErrFenced = errors.New("journal: this node was fenced")

// The encoding is fixed little-endian fields followed by the variable parts, each with a uvarint length.

// AppendHead appends the fixed part of r to dst; the stanza's bytes follow it in the log.
func (r *Stanza) AppendHead(dst []byte) []byte {
	dst = append(dst, byte(r.Flags))
	dst = binary.LittleEndian.AppendUint64(dst, r.Origin)
	dst = binary.LittleEndian.AppendUint32(dst, r.N)
	dst = append(dst, r.Stanza.ID[:]...)
	dst = binary.AppendUvarint(dst, uint64(len(r.Targets)))
	for _, t := range r.Targets {
		dst = binary.AppendUvarint(dst, t.Session)
		dst = binary.AppendUvarint(dst, t.Pos)
	}
	return dst
}

// Append appends the whole record with its length, so that several can stand behind each other.
func (r *Stanza) Append(dst []byte) []byte {
	var buf [160]byte
	head := r.AppendHead(buf[:0])
	dst = binary.AppendUvarint(dst, uint64(len(head)+len(r.Stanza.Raw())))
	return append(append(dst, head...), r.Stanza.Raw()...)
}

// CutStanza reads the first of the records that Append put behind each other, and returns the others.
func CutStanza(b []byte) (r *Stanza, rest []byte, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, errShort
	}
	b = b[size:]
	r, err = DecodeStanza(b[:n])
	return r, b[n:], err
}

// DecodeStanza reads a KindStanza record. The result does not refer to b.
func DecodeStanza(b []byte) (*Stanza, error) {
	const fixed = 1 + 8 + 4 + 16
	if len(b) < fixed {
		return nil, errShort
	}
	r := &Stanza{
		Flags:  Flags(b[0]),
		Origin: binary.LittleEndian.Uint64(b[1:]),
		N:      binary.LittleEndian.Uint32(b[9:]),
	}
	id := stanza.ID(b[13:29])
	d := decoder{b: b[fixed:]}
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		return nil, errShort
	}
	r.Targets = make([]Target, 0, n)
	for range n {
		r.Targets = append(r.Targets, Target{Session: d.uvarint(), Pos: d.uvarint()})
	}
	if d.err != nil {
		return nil, d.err
	}
	st, err := stanza.Parse(append([]byte(nil), d.b...), id)
	if err != nil {
		return nil, fmt.Errorf("journal: stored stanza: %w", err)
	}
	r.Stanza = st
	return r, nil
}

// AppendCount encodes the KindHandled, KindAcked, KindMoved and KindEnded records: a session and a count or place.
func AppendCount(dst []byte, session, count uint64) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, session)
	return binary.LittleEndian.AppendUint64(dst, count)
}

// DecodeCount reads what AppendCount wrote.
func DecodeCount(b []byte) (session, count uint64, err error) {
	if len(b) != 16 {
		return 0, 0, errShort
	}
	return binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), nil
}

// AppendDirected encodes a KindDirected record. The zero address stands for all of them.
func AppendDirected(dst []byte, session uint64, to stanza.Addr, add bool) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, session)
	if add {
		dst = append(dst, 1)
	} else {
		dst = append(dst, 0)
	}
	return append(dst, to.String()...)
}

// DecodeDirected reads what AppendDirected wrote.
func DecodeDirected(b []byte) (session uint64, to string, add bool, err error) {
	if len(b) < 9 {
		return 0, "", false, errShort
	}
	return binary.LittleEndian.Uint64(b), string(b[9:]), b[8] == 1, nil
}

// AppendIDs encodes the KindUnstored (with its user) and KindProved (without) records.
func AppendIDs(dst []byte, user stanza.Addr, ids []stanza.ID) []byte {
	dst = appendString(dst, user.String())
	for _, id := range ids {
		dst = append(dst, id[:]...)
	}
	return dst
}

// DecodeIDs reads what AppendIDs wrote.
func DecodeIDs(b []byte) (user stanza.Addr, ids []stanza.ID, err error) {
	d := decoder{b: b}
	s := d.string()
	if d.err != nil || len(d.b)%16 != 0 {
		return user, nil, errShort
	}
	if s != "" {
		if user, err = stanza.ParseAddr(s); err != nil {
			return user, nil, fmt.Errorf("journal: user: %w", err)
		}
	}
	for b := d.b; len(b) > 0; b = b[16:] {
		ids = append(ids, stanza.ID(b[:16]))
	}
	return user, ids, nil
}

// Append encodes r after dst.
func (r *Session) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, r.Ord)
	dst = appendString(dst, r.Addr.String())
	dst = appendString(dst, r.Token)
	managed := byte(0)
	if r.Managed {
		managed = 1
	}
	dst = append(dst, managed, byte(r.Priority), r.Flags)
	dst = binary.AppendUvarint(dst, r.Base)
	dst = binary.AppendUvarint(dst, uint64(r.Max))
	dst = binary.AppendVarint(dst, milli(r.Detached))
	dst = binary.AppendVarint(dst, milli(r.CreatedAt))
	dst = append(dst, r.Since[:]...)
	dst = append(dst, r.Taken[:]...)
	dst = appendString(dst, string(r.Presence))
	dst = binary.AppendUvarint(dst, uint64(len(r.Directed)))
	for _, a := range r.Directed {
		dst = appendString(dst, a)
	}
	dst = binary.AppendUvarint(dst, r.Earlier)
	dst = appendString(dst, r.Sid)
	dst = binary.AppendUvarint(dst, uint64(r.Linger))
	return appendString(dst, string(r.Carried))
}

// AppendCarried encodes the head of a KindCarried record, which the transport's note follows.
func AppendCarried(dst []byte, session uint64) []byte {
	return binary.LittleEndian.AppendUint64(dst, session)
}

// DecodeCarried reads a KindCarried record. The note does not refer to b.
func DecodeCarried(b []byte) (session uint64, note []byte, err error) {
	if len(b) < 8 {
		return 0, nil, errShort
	}
	return binary.LittleEndian.Uint64(b), append([]byte(nil), b[8:]...), nil
}

// DecodeSession reads what Append wrote.
func DecodeSession(b []byte) (*Session, error) {
	if len(b) < 8 {
		return nil, errShort
	}
	r := &Session{Ord: binary.LittleEndian.Uint64(b)}
	d := decoder{b: b[8:]}
	addr := d.string()
	r.Token = d.string()
	r.Managed = d.byte() == 1
	r.Priority = int8(d.byte())
	r.Flags = d.byte()
	r.Base = d.uvarint()
	r.Max = time.Duration(d.uvarint())
	r.Detached = fromMilli(d.varint())
	r.CreatedAt = fromMilli(d.varint())
	r.Since = d.id()
	r.Taken = d.id()
	if p := d.string(); p != "" {
		r.Presence = []byte(p)
	}
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		r.Directed = append(r.Directed, d.string())
	}
	if len(d.b) > 0 { // not in a record of an older gateway
		r.Earlier = d.uvarint()
		r.Sid = d.string()
		r.Linger = time.Duration(d.uvarint())
		if c := d.string(); c != "" {
			r.Carried = []byte(c)
		}
	}
	if d.err != nil {
		return nil, d.err
	}
	var err error
	if r.Addr, err = stanza.ParseAddr(addr); err != nil {
		return nil, fmt.Errorf("journal: session address: %w", err)
	}
	return r, nil
}

func milli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// decoder reads fields in turn and keeps the first error.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.err, d.b = errShort, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.err, d.b = errShort, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.err = errShort
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) id() (id stanza.ID) {
	if len(d.b) < len(id) {
		d.err, d.b = errShort, nil
		return id
	}
	d.b = d.b[copy(id[:], d.b):]
	return id
}

func (d *decoder) string() string {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.err, d.b = errShort, nil
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}
