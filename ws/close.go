package ws

import (
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"holdfast/session"
)

// lastWords bounds the write of what is left when the reader is gone already: at most a closing frame.
const lastWords = time.Second

// closeDown ends the connection after the last read. err is what reading ended with.
func (t *transport) closeDown(err error) {
	e := t.ending(err)
	// The writer goes first, so that nothing pulls, proves or writes behind our back. One that waits for a peer that
	// does not read is given a last moment.
	_ = t.conn.Conn.SetWriteDeadline(time.Now().Add(lastWords)) // a broken connection fails on its own
	t.joinWriter()
	werr := t.flush()   // coder's closing frame, when it found something wrong or answered the peer's
	_ = t.ws.CloseNow() // gives back what coder borrowed; the connection itself is closed below
	if websocket.CloseStatus(err) != -1 && t.closeSent.Load() && !t.conn.closedByPeer() {
		t.prove(t.mark) // the peer answered a frame that was behind everything
	}
	t.stream.Lost(endings[e].err)
	if werr == nil && (e == endProtocol || e == endRejected) {
		t.linger()
	}
	_ = t.conn.Conn.Close() // whoever wanted to know has been told
	t.conn.release()
	t.srv.remove(t)
	t.srv.met.ended.WithLabelValues(endings[e].label).Inc()
	t.srv.log.Debug("websocket ended", "reason", endings[e].label)
}

// joinWriter lets the writer finish what is pending, waits for it and keeps it from coming back.
func (t *transport) joinWriter() {
	if t.finish.Load() != 0 {
		t.closeNow.Store(true) // nobody would see the peer's <close/> any more
		t.Wake()
		t.write() // here, when the goroutine that Wake started has not begun yet
	}
	t.state.Store(writerDead)
	t.wmu.Lock()
	t.wmu.Unlock() //nolint:staticcheck // an empty section: it waits for the writer to leave its own
}

// ending tells why the connection ended.
func (t *transport) ending(err error) ending {
	if e := ending(t.ended.Load()); e != endUnknown {
		return e
	}
	if websocket.CloseStatus(err) != -1 {
		switch how := t.finish.Load(); {
		case t.conn.closedByPeer() && (how == 0 || !t.peerClosed.Load()):
			return endPeer
		case how == uint32(session.Restarting)+1:
			return endRestarting
		default:
			return endClosed
		}
	}
	var ne net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.As(err, &ne), errors.As(err, new(syscall.Errno)):
		return endLost
	case t.discard:
		return endRejected
	default:
		return endProtocol
	}
}

// linger lets the peer read our closing frame: closing a socket with unread input would destroy what was just
// written (RFC 1122 §4.2.2.13). It reads and drops until the peer closes too, or for as long as closing may take.
func (t *transport) linger() {
	bound := t.srv.cfg.CloseTimeout
	if bound <= 0 {
		bound = lastWords
	}
	if hc, ok := t.conn.Conn.(interface{ CloseWrite() error }); ok {
		if hc.CloseWrite() != nil {
			return
		}
	}
	if t.conn.SetReadDeadline(time.Now().Add(bound)) != nil {
		return
	}
	b := blocks.Get().(*block)
	defer blocks.Put(b)
	for {
		if _, err := t.conn.Conn.Read(b[:]); err != nil {
			return
		}
	}
}
