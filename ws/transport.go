package ws

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"holdfast/session"
	"holdfast/stanza"
)

// What the writer is doing. Wake moves idle and running to pending; the writer moves pending to running before it
// looks, and running to idle only when nobody woke it since; so what was queued before a Wake is always looked for
// after it.
const (
	writerIdle uint32 = iota
	writerRunning
	writerPending
	writerDead // for good
)

// transport is one connection. It implements [session.Transport].
type transport struct {
	srv    *Server         // static
	stream session.Stream  // static
	ws     *websocket.Conn // static; the reader's, and the writer's for compressed messages
	addr   netip.Addr      // static: what the gate counts it under
	born   int64           // static, in the watch's time
	squash bool            // static: permessage-deflate was negotiated
	conn   cork

	// Owned by the reader.
	opened  bool // <open/> has been seen
	discard bool // what arrives is no longer handed on

	// Owned by the writer, or who holds wmu.
	wmu     sync.Mutex // held by the writer while it runs
	mark    uint64     // of the last batch that was written
	proved  uint64     // of the last that is known to have arrived
	pinged  uint64     // what the ping in flight stands for
	pingSeq uint64
	errored bool   // a stream error was written: the peer is not waited for (RFC 6120 §4.9.1.1)
	closing bool   // <close/> was written, or is not going to be
	run     func() // t.write, bound once; static

	state      atomic.Uint32
	finish     atomic.Uint32 // how + 1; 0 while it lives
	finishAt   atomic.Int64  // when the end may not take longer; 0 for no bound
	code       atomic.Uint32 // the status of our closing frame, where it is not the usual
	closeNow   atomic.Bool   // do not wait for the peer's <close/> any more
	peerClosed atomic.Bool   // the peer's <close/> has been seen
	closeSent  atomic.Bool   // our closing frame is on the wire
	authed     atomic.Bool
	greeted    atomic.Bool   // opened, for the watch
	expired    atomic.Bool   // a deadline passed: the reader is to say so
	ended      atomic.Uint32 // the ending, once one is known

	lastHeard  atomic.Int64
	writeSince atomic.Int64           // when the write under way began, 0 for none
	pingWanted atomic.Bool            // a ping is due, or was asked for with Probe
	pingID     atomic.Uint64          // the ping in flight, 0 for none
	pongID     atomic.Uint64          // the last pong that answers one of ours
	pong       atomic.Pointer[[]byte] // what the peer's last ping wants back (RFC 6455 §5.5.3 allows to answer only that)

	slot       uint32     // of the watch; static
	prev, next *transport // guarded by the slot
}

var _ session.Transport = (*transport)(nil)

// Header renders <open/> (RFC 7395 §3.4).
func (t *transport) Header(h session.Header) []byte {
	b := make([]byte, 0, 192+len(h.From)+len(h.To))
	b = append(b, `<open xmlns='`+stanza.NSFraming+`' version='1.0'`...)
	for _, a := range [...]struct{ name, value string }{{" id='", h.ID}, {" from='", h.From}, {" to='", h.To}, {" xml:lang='", h.Lang}} {
		if a.value != "" {
			b = append(b, a.name...)
			b = stanza.AppendEscaped(b, a.value)
			b = append(b, '\'')
		}
	}
	return append(b, "/>"...)
}

// Wake is [session.Transport]'s.
func (t *transport) Wake() {
	for {
		switch t.state.Load() {
		case writerIdle:
			if t.state.CompareAndSwap(writerIdle, writerPending) {
				go t.run()
				return
			}
		case writerRunning:
			if t.state.CompareAndSwap(writerRunning, writerPending) {
				return
			}
		default:
			return
		}
	}
}

// Probe is [session.Transport]'s. A probe that is asked for while a ping is in flight waits for its pong.
func (t *transport) Probe() {
	t.pingWanted.Store(true)
	t.Wake()
}

// Finish is [session.Transport]'s. The first call decides, but Broken cuts short what the others began.
func (t *transport) Finish(how session.Finish) {
	if how == session.Broken {
		t.finish.CompareAndSwap(0, uint32(how)+1)
		t.end(endBroken)
		return
	}
	if !t.finish.CompareAndSwap(0, uint32(how)+1) {
		return
	}
	if bound := t.srv.cfg.CloseTimeout; bound > 0 {
		t.finishAt.Store(t.srv.watch.now() + int64(bound))
	}
	t.Wake()
}

// end drops the connection for a reason of ours. Only the first reason counts.
func (t *transport) end(e ending) {
	t.ended.CompareAndSwap(uint32(endUnknown), uint32(e))
	t.conn.drop()
}

// heard notes a sign of life.
func (t *transport) heard(n int) {
	t.lastHeard.Store(t.srv.watch.now())
	t.srv.met.bytesIn.Add(uint64(n))
}

// sayAuthenticated asks the stream and, once it says so, lifts what binds a stranger.
func (t *transport) sayAuthenticated() bool {
	if t.authed.Load() {
		return true
	}
	if !t.stream.Authenticated() {
		return false
	}
	if t.authed.CompareAndSwap(false, true) {
		t.srv.gate.Authenticated(t.addr)
	}
	return true
}

// ending is why a connection ended.
type ending uint8

const (
	endUnknown      ending = iota
	endClosed              // both sides closed properly, at our word or the peer's
	endRestarting          // the same, for a restart
	endPeer                // the peer closed the WebSocket on its own
	endLost                // the network did
	endProtocol            // the peer broke RFC 6455
	endRejected            // the stream was failed, and the peer did not close
	endBroken              // Finish(Broken)
	endPing                // no sign of life
	endWrite               // the peer did not read
	endCloseTimeout        // closing took too long
	endServer              // the server was closed
	endPanic               // a fault of ours
)

// What Lost is told.
var (
	ErrPeerClosed   = errors.New("ws: the peer closed the connection without closing the stream")
	ErrLost         = errors.New("ws: connection lost")
	ErrProtocol     = errors.New("ws: the peer broke the WebSocket protocol")
	ErrRejected     = errors.New("ws: the peer was rejected")
	ErrBroken       = errors.New("ws: dropped")
	ErrPingTimeout  = errors.New("ws: no sign of life")
	ErrWriteTimeout = errors.New("ws: the peer does not read")
	ErrCloseTimeout = errors.New("ws: closing took too long")
	ErrServerClosed = errors.New("ws: server closed")
	errPanic        = errors.New("ws: internal error")
)

var endings = [...]struct {
	label string
	err   error
}{
	endUnknown:      {"unknown", ErrLost},
	endClosed:       {"closed", nil},
	endRestarting:   {"restarting", nil},
	endPeer:         {"peer_closed", ErrPeerClosed},
	endLost:         {"lost", ErrLost},
	endProtocol:     {"protocol_error", ErrProtocol},
	endRejected:     {"rejected", ErrRejected},
	endBroken:       {"broken", ErrBroken},
	endPing:         {"ping_timeout", ErrPingTimeout},
	endWrite:        {"write_timeout", ErrWriteTimeout},
	endCloseTimeout: {"close_timeout", ErrCloseTimeout},
	endServer:       {"server_closed", ErrServerClosed},
	endPanic:        {"internal_error", errPanic},
}

// check is the watch's look at one connection. It only sets flags, wakes and drops.
func (t *transport) check(now int64) {
	cfg := &t.srv.cfg
	if at := t.finishAt.Load(); at != 0 {
		switch {
		case now >= at:
			t.end(endCloseTimeout)
		case now >= at-int64(cfg.CloseTimeout)/2 && !t.closeNow.Swap(true):
			t.Wake()
		}
		return
	}
	if since := t.writeSince.Load(); since != 0 && past(now, since, cfg.WriteTimeout) {
		t.end(endWrite)
		return
	}
	if t.finish.Load() == 0 && !t.sayAuthenticated() {
		if !t.greeted.Load() && past(now, t.born, cfg.HandshakeTimeout) || past(now, t.born, cfg.AuthTimeout) {
			t.expire()
		}
	}
	if cfg.PingInterval <= 0 {
		return
	}
	silence := now - t.lastHeard.Load()
	if silence < int64(cfg.PingInterval) {
		return
	}
	if cfg.PingTimeout > 0 && silence >= int64(cfg.PingInterval+cfg.PingTimeout) {
		t.end(endPing)
		return
	}
	if t.pingID.Load() == 0 && !t.pingWanted.Swap(true) {
		t.Wake()
	}
}

// expire interrupts the reader, which alone may tell the stream.
func (t *transport) expire() {
	if t.expired.CompareAndSwap(false, true) {
		_ = t.conn.SetReadDeadline(time.Unix(1, 0)) // a connection that is gone needs no interruption
	}
}

func past(now, since int64, limit time.Duration) bool {
	return limit > 0 && now-since >= int64(limit)
}
