package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// link is a client's WebSocket connection (RFC 6455, RFC 7395): its frames are built and cut here.
type link struct {
	socket
	client   *client
	upgraded bool
	mask     uint32
	whole    []byte // the beginning of a fragmented message
	closed   error  // how the server closed
}

func newLink(c *client) *link {
	k := &link{client: c}
	k.fd, k.onData, k.onGone = -1, k.data, k.lost
	return k
}

var (
	framingOpen    = []byte("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='")
	framingOpenEnd = []byte("' version='1.0'/>")
	frameClose     = []byte("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>")
)

func (k *link) begin() error {
	c := k.client
	path := c.to.path
	if c.target.Relay {
		path += "?id=" + c.jid
	}
	k.upgraded, k.whole, k.closed = false, nil, nil
	handshake := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n", path, c.to.host, c.to.key)
	err := k.dial(c.loop, c.to, c.ordinal, handshake)
	k.mask = uint32(k.gen) * 0x9E3779B1
	return err
}

func (k *link) header() {
	k.text(append(append(bytes.Clone(framingOpen), k.client.target.Domain...), framingOpenEnd...))
}

// end ends the stream; the server closes the connection.
func (k *link) end() {
	if k.client.target.Relay {
		k.send(opClose, []byte{3, 232})
		return
	}
	k.text(frameClose)
}

func (k *link) lost(err error) { k.client.lost(errors.Join(err, k.closed)) }

// text sends one message in one frame with one write.
func (k *link) text(payload []byte) { k.send(opText, payload) }

func (k *link) send(op byte, payload []byte) {
	if !k.open() {
		return
	}
	k.mask = k.mask*1664525 + 1013904223
	k.loop.out = appendFrame(k.loop.out[:0], op, payload, k.mask)
	k.write(k.loop.out)
}

func (k *link) data(data []byte) []byte {
	if !k.upgraded {
		head, rest, whole := bytes.Cut(data, []byte("\r\n\r\n"))
		if !whole {
			return data
		}
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 101")) || !bytes.Contains(head, k.client.to.accept) {
			line, _, _ := bytes.Cut(head, []byte("\r\n"))
			k.gone(fmt.Errorf("bench: opening handshake refused: %q", line))
			return nil
		}
		k.upgraded = true
		data = rest
		k.client.opened()
	}
	for k.open() {
		f, size, err := cutFrame(data)
		if err != nil {
			k.gone(err)
			return nil
		}
		if size == 0 {
			break
		}
		data = data[size:]
		k.take(f)
	}
	return data
}

func (k *link) take(f frame) {
	switch f.op {
	case opText, opBinary:
		if f.fin {
			k.client.frame(f.payload)
			return
		}
		k.whole = append(k.whole[:0], f.payload...)
	case opContinuation:
		k.whole = append(k.whole, f.payload...)
		if len(k.whole) > maxFrame {
			k.gone(errBadFrame)
			return
		}
		if f.fin {
			k.client.frame(k.whole)
			k.whole = nil
		}
	case opPing:
		k.send(opPong, f.payload)
	case opClose:
		// The server drops the connection after the closing handshake (RFC 6455 §7.1.1); this side waits for it.
		k.send(opClose, f.payload[:min(2, len(f.payload))])
		k.closed = closeStatus(f.payload)
	case opPong:
	default:
		k.gone(errBadFrame)
	}
}

func closeStatus(payload []byte) error {
	if len(payload) < 2 {
		return errors.New("bench: the server closed without a status")
	}
	return fmt.Errorf("bench: the server closed with status %d %q", binary.BigEndian.Uint16(payload), payload[2:])
}
