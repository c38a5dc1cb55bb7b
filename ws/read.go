package ws

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/coder/websocket"

	"holdfast/internal/limitread"
	"holdfast/session"
	"holdfast/stanza"
)

// Stream errors for what is wrong below the elements (RFC 6120 §4.9.3).
var (
	errTooLarge      = stanza.StreamError{Condition: "policy-violation", Text: "message too large"}
	errBinary        = stanza.StreamError{Condition: "unsupported-encoding", Text: "text messages only"}
	errTimeout       = stanza.StreamError{Condition: "connection-timeout"}
	errNotOpened     = stanza.StreamError{Condition: "bad-format", Text: "expected <open/>"}
	errEarly         = stanza.StreamError{Condition: "not-authorized", Text: "expected <open/>"}
	errNamespace     = stanza.StreamError{Condition: "invalid-namespace"}
	errNotWellFormed = stanza.StreamError{Condition: "not-well-formed"}
)

// errStop ends reading where the frames cannot be followed any further.
var errStop = errors.New("ws: stopped reading")

// read is the reading goroutine.
func (t *transport) read() {
	defer t.srv.door.Leave()
	err := t.readMessages()
	t.closeDown(err)
}

// readMessages reads until the connection ends. A fault while handling one connection's input ends that connection.
func (t *transport) readMessages() (err error) {
	defer func() {
		if p := recover(); p != nil {
			t.srv.log.Error("panic in a websocket reader", "panic", p, "stack", string(debug.Stack()))
			t.end(endPanic)
			err = errPanic
		}
	}()
	for {
		err := t.conn.await()
		if err == nil {
			var typ websocket.MessageType
			var r io.Reader
			if typ, r, err = t.ws.Reader(context.Background()); err == nil {
				err = t.readMessage(typ, r)
			}
		}
		if err == nil {
			continue
		}
		if !t.expired.Load() || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		// The watch interrupted. What was half read is lost, but nothing more is going to be handed on.
		_ = t.conn.SetReadDeadline(time.Time{}) // the next read meets a broken connection too
		t.fail(errTimeout, 0)
	}
}

// limit is the cap on a message.
func (t *transport) limit() int {
	cfg := &t.srv.cfg
	if !t.authed.Load() && cfg.MaxMessageUnauthenticated > 0 && (cfg.MaxMessage == 0 || cfg.MaxMessageUnauthenticated < cfg.MaxMessage) {
		return cfg.MaxMessageUnauthenticated
	}
	return cfg.MaxMessage
}

// readMessage reads one message whole and hands it on.
func (t *transport) readMessage(typ websocket.MessageType, r io.Reader) error {
	in := inboxes.Get().(*inbox)
	defer putInbox(in)
	if t.discard || t.finish.Load() != 0 {
		return t.readDiscarded(in, r)
	}
	t.srv.met.framesIn.Add(1)
	if typ != websocket.MessageText { // RFC 7395 §3.2
		t.fail(errBinary, uint16(websocket.StatusUnsupportedData))
		return t.drain(in, r)
	}
	limit := t.limit()
	over, err := in.fill(r, limit)
	if err != nil {
		return err
	}
	if over {
		t.fail(errTooLarge, uint16(websocket.StatusMessageTooBig))
		return t.drain(in, r)
	}
	if err := in.elem.Scan(in.buf, t.srv.limits(limit)); err != nil {
		t.failScan(err)
		return nil
	}
	t.handle(&in.elem)
	return nil
}

// fill reads r to its end into in.buf; over says that it holds more than limit bytes, 0 for no limit.
func (in *inbox) fill(r io.Reader, limit int) (over bool, err error) {
	in.buf, over, err = limitread.Append(in.buf[:0], r, limit)
	return over, err
}

// readDiscarded reads a message that nobody wants any more: only <close/> still counts (RFC 7395 §3.6).
func (t *transport) readDiscarded(in *inbox, r io.Reader) error {
	over, err := in.fill(r, t.limit())
	if err != nil {
		return err
	}
	if over {
		return t.drain(in, r)
	}
	if !t.peerClosed.Load() && in.elem.Scan(in.buf, t.srv.limits(0)) == nil && in.elem.Is(stanza.NSFraming, "close") {
		t.peerClosed.Store(true)
		t.Wake()
	}
	return nil
}

// drain reads the rest of a message and drops it, so that the frames behind it can be followed: the peer's closing
// frame is among them.
func (t *transport) drain(in *inbox, r io.Reader) error {
	if t.squash {
		return errStop // to decompress what is dropped may be a thousand times the work of sending it
	}
	for {
		_, err := r.Read(in.buf[:cap(in.buf)])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// handle hands one element on.
func (t *transport) handle(e *stanza.Element) {
	framing := string(e.Space()) == stanza.NSFraming
	switch {
	case framing && string(e.Name()) == "open":
		t.opened = true
		t.greeted.Store(true)
		t.stream.Open(session.Open{To: e.Attr("to"), From: e.Attr("from"), Version: e.Attr("version"), Lang: e.Attr("xml:lang")})
	case !t.opened:
		t.failEarly(e)
	case framing && string(e.Name()) == "close":
		t.discard = true
		t.peerClosed.Store(true)
		t.stream.PeerClosed()
	default:
		t.stream.Handle(e)
		if !t.authed.Load() {
			t.sayAuthenticated()
		}
	}
}

// failEarly answers what came in <open/>'s place.
func (t *transport) failEarly(e *stanza.Element) {
	switch {
	case e.Kind() != stanza.Other:
		t.fail(errEarly, 0)
	case string(e.Name()) == "open":
		t.fail(errNamespace, 0)
	default:
		t.fail(errNotOpened, 0)
	}
}

func (t *transport) failScan(err error) {
	var syntax *stanza.SyntaxError
	if !errors.As(err, &syntax) || syntax.Stream.Condition == "" {
		t.fail(errNotWellFormed, 0)
		return
	}
	t.fail(syntax.Stream, 0)
}

// fail ends the stream for something that the peer did wrong. status is that of the closing frame, 0 for the usual.
func (t *transport) fail(err stanza.StreamError, status uint16) {
	if t.discard || t.finish.Load() != 0 {
		return
	}
	t.discard = true
	t.code.Store(uint32(status))
	t.stream.Fail(err)
	t.Finish(session.Closed) // at the latest now
}
