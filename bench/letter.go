package bench

import (
	"bytes"
	"fmt"
)

// A letter is a message of the load: one frame, made once, in which only the number and the time change. The body
// begins with a mark, the stream, the number and the time, in hexadecimal digits of fixed width, and is filled up.
type letter struct {
	frame []byte
	id    int // where the number stands in the id attribute, 0 for a relay's frame
	body  int // where it stands in the body
}

const (
	bodyMark     = "hf#"
	streamDigits = 6
	seqDigits    = 10
	timeDigits   = 16
	minBody      = len(bodyMark) + streamDigits + seqDigits + timeDigits
)

func bodyText(stream, size int) []byte {
	b := fmt.Appendf(nil, "%s%0*x%0*x%0*x", bodyMark, streamDigits, stream, seqDigits, 0, timeDigits, 0)
	return append(b, bytes.Repeat([]byte("x"), max(size-len(b), 0))...)
}

// xmppLetter is a chat message, with a receipt request (XEP-0184 §5.1) when asked.
func xmppLetter(to string, stream, size int, request bool) *letter {
	return typedLetter(to, "chat", stream, size, request)
}

// groupLetter is a message to all of a room (XEP-0045 §7.4).
func groupLetter(to string, stream, size int) *letter {
	return typedLetter(to, "groupchat", stream, size, false)
}

func typedLetter(to, typ string, stream, size int, request bool) *letter {
	m := &letter{}
	m.frame = fmt.Appendf(nil, "<message xmlns='jabber:client' to='%s' type='%s' id='m", to, typ)
	m.id = len(m.frame)
	m.frame = fmt.Appendf(m.frame, "%0*x'><body>", seqDigits, 0)
	m.body = len(m.frame) + len(bodyMark) + streamDigits
	m.frame = append(m.frame, bodyText(stream, size)...)
	m.frame = append(m.frame, "</body>"...)
	if request {
		m.frame = append(m.frame, "<request xmlns='urn:xmpp:receipts'/>"...)
	}
	m.frame = append(m.frame, "</message>"...)
	return m
}

// relayLetter is the same body behind the recipient's name.
func relayLetter(to string, stream, size int) *letter {
	m := &letter{frame: append([]byte(to), bodyText(stream, size)...)}
	m.body = len(to) + len(bodyMark) + streamDigits
	return m
}

// lineLetter is one for the long poll, as long as the request that carries an XMPP letter of that size.
func lineLetter(to string, stream, size int) *letter {
	like := len(xmppLetter("u00000@localhost/bench", stream, size, false).frame) + envelope
	return relayLetter(to, stream, like-len(to)-1) // and the end of the line
}

// fill writes number and time into the frame.
func (m *letter) fill(seq uint64, at int64) []byte {
	if m.id > 0 {
		putHex(m.frame[m.id:m.id+seqDigits], seq)
	}
	putHex(m.frame[m.body:m.body+seqDigits], seq)
	putHex(m.frame[m.body+seqDigits:m.body+seqDigits+timeDigits], uint64(at))
	return m.frame
}

// readLetter finds stream, number and time in a message.
func readLetter(frame []byte) (stream int, seq uint64, at int64, ok bool) {
	i := bytes.Index(frame, []byte(bodyMark))
	if i < 0 || len(frame)-i < minBody {
		return 0, 0, 0, false
	}
	b := frame[i+len(bodyMark):]
	s, ok1 := hex(b[:streamDigits])
	seq, ok2 := hex(b[streamDigits : streamDigits+seqDigits])
	t, ok3 := hex(b[streamDigits+seqDigits : streamDigits+seqDigits+timeDigits])
	return int(s), seq, int64(t), ok1 && ok2 && ok3
}

// A receipt is the answer to a letter that asked for one (XEP-0184 §5.2).
type receipt struct {
	frame   []byte
	id, own int
}

const receivedMark = "<received xmlns='urn:xmpp:receipts' id='m"

func newReceipt(to string) *receipt {
	r := &receipt{}
	r.frame = fmt.Appendf(nil, "<message xmlns='jabber:client' to='%s' type='chat' id='r", to)
	r.own = len(r.frame)
	r.frame = fmt.Appendf(r.frame, "%0*x'>%s", seqDigits, 0, receivedMark)
	r.id = len(r.frame)
	r.frame = fmt.Appendf(r.frame, "%0*x'/></message>", seqDigits, 0)
	return r
}

func (r *receipt) fill(seq uint64) []byte {
	putHex(r.frame[r.own:r.own+seqDigits], seq)
	putHex(r.frame[r.id:r.id+seqDigits], seq)
	return r.frame
}

// readReceipt finds the number of the letter that a receipt answers.
func readReceipt(frame []byte) (seq uint64, ok bool) {
	i := bytes.Index(frame, []byte("<received"))
	if i < 0 {
		return 0, false
	}
	id := attr(frame[i:], "id")
	if len(id) != 1+seqDigits || id[0] != 'm' {
		return 0, false
	}
	return hex(id[1:])
}

func putHex(b []byte, n uint64) {
	const digits = "0123456789abcdef"
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = digits[n&15]
		n >>= 4
	}
}

func hex(b []byte) (n uint64, ok bool) {
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | uint64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return n, true
}
