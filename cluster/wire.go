package cluster

import (
	"encoding/binary"
	"errors"
)

// The package's own messages.
const (
	opSync     uint8 = iota + 1 // answer when everything before is done
	opAnswered                  // to opSync, opStraight and opTrace
	opBuried                    // by the heir, or to oneself: a dead node's mailbox has been worked off
	opCall                      // who knows a name is to answer
	opTaken                     // I do, and I will
	opUnknown                   // I don't
	opAnswer                    // the answer
	opStraight                  // answer when what you send to a user comes straight here
	opTrace                     // goes the way that messages for a user go, and is answered at the home
)

// FirstOp is the first Message.Op that a Receiver may use; they end before termBit.
const FirstOp = 16

// termBit stands beside the op of a message that has a term.
const termBit = 1 << 7

// A term is the time during which one node is the home of a user without a break. Its number is higher than those of
// all earlier terms of the user. Message.Term is the term of the home that a message was sent to, or one of these.
const (
	// TermUnknown is for what a sender's node sends: it goes by every earlier home that has something of its senders yet.
	TermUnknown uint64 = 0
	// TermPassed is the least for what came from another node.
	TermPassed uint64 = 1
	// TermHome is for what goes straight to the home, over whomever.
	TermHome uint64 = 1<<64 - 1
)

// Message goes from one node to another.
type Message struct {
	Op      uint8  // what it is about
	Seq     uint32 // its place in the link, 0 for one that is neither journaled nor repeated
	Term    uint64 // of the home that it was sent to; see TermUnknown
	User    string // the bare address of the user that it is about
	Payload []byte
}

// append encodes m behind dst.
func (m *Message) append(dst []byte) []byte {
	var buf [32]byte
	op := m.Op
	if m.Term != 0 {
		op |= termBit
	}
	head := append(buf[:0], op)
	if m.Term != 0 {
		head = binary.AppendUvarint(head, m.Term)
	}
	head = binary.AppendUvarint(head, uint64(m.Seq))
	head = binary.AppendUvarint(head, uint64(len(m.User)))
	dst = binary.AppendUvarint(dst, uint64(len(head)+len(m.User)+len(m.Payload)))
	dst = append(dst, head...)
	dst = append(dst, m.User...)
	return append(dst, m.Payload...)
}

var errWire = errors.New("cluster: message cut short")

// cut reads the first of the messages in b. It refers to b.
func cut(b []byte) (m Message, rest []byte, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) || n == 0 {
		return m, nil, errWire
	}
	b, rest = b[size:size+int(n)], b[size+int(n):]
	op := b[0]
	m.Op, b = op&^termBit, b[1:]
	if op&termBit != 0 {
		term, size := binary.Uvarint(b)
		if size <= 0 {
			return m, nil, errWire
		}
		m.Term, b = term, b[size:]
	}
	seq, size := binary.Uvarint(b)
	if size <= 0 {
		return m, nil, errWire
	}
	b = b[size:]
	m.Seq = uint32(seq)
	n, size = binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return m, nil, errWire
	}
	m.User, m.Payload = string(b[size:size+int(n)]), b[size+int(n):]
	return m, rest, nil
}
