package cluster

import (
	"encoding/binary"
	"errors"
)

// The package's own messages.
const (
	opSync    uint8 = iota + 1 // answer when everything before is done
	opSynced                   // the answer
	opBuried                   // to oneself: a dead node's mailbox has been worked off
	opCall                     // who knows a name is to answer
	opTaken                    // I do, and I will
	opUnknown                  // I don't
	opAnswer                   // the answer
)

// FirstOp is the first Message.Op that a Receiver may use.
const FirstOp = 16

// Message goes from one node to another.
type Message struct {
	Op      uint8  // what it is about
	Seq     uint32 // its place in the link, 0 for one that is neither journaled nor repeated
	User    string // the bare address of the user that it is about
	Payload []byte
}

// append encodes m behind dst.
func (m *Message) append(dst []byte) []byte {
	var buf [16]byte
	head := append(buf[:0], m.Op)
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
	m.Op, b = b[0], b[1:]
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
