package ws

import (
	"bytes"
	"context"
	"runtime/debug"

	"github.com/coder/websocket"

	"holdfast/session"
	"holdfast/stanza"
)

var (
	closeElement   = []byte(`<close xmlns='` + stanza.NSFraming + `'/>`)
	streamErrorTag = []byte("<stream:error")
)

// write is the writing goroutine. It ends when there is nothing left to write.
func (t *transport) write() {
	t.wmu.Lock()
	defer t.wmu.Unlock()
	defer func() {
		if p := recover(); p != nil {
			t.srv.log.Error("panic in a websocket writer", "panic", p, "stack", string(debug.Stack()))
			t.state.Store(writerDead)
			t.end(endPanic)
		}
	}()
	b := batches.Get().(*session.Batch)
	for t.state.CompareAndSwap(writerPending, writerRunning) {
		if err := t.writeAll(b); err != nil {
			b.Reset()
			t.state.Store(writerDead)
			t.end(endLost) // unless a better reason made the write fail
			break
		}
		if t.state.CompareAndSwap(writerRunning, writerIdle) {
			break
		}
	}
	batches.Put(b)
}

// writeAll writes what there is, batch by batch.
func (t *transport) writeAll(b *session.Batch) error {
	for {
		how := t.finish.Load() // before Pull: what was queued before Finish is written before the end
		t.takePong()
		if t.conn.hold() {
			return t.flush()
		}
		more := !t.closing && t.stream.Pull(b)
		frames := len(b.Frames)
		if frames > 0 {
			if err := t.appendFrames(b); err != nil {
				return err
			}
			t.srv.met.batches.Observe(float64(frames))
		}
		if p := t.pong.Swap(nil); p != nil {
			t.conn.appendControl(opPong, *p)
		}
		if more {
			t.mark = b.Mark
		}
		t.ping()
		closed := false
		if how != 0 && !more {
			closed = t.appendEnd(session.Finish(how - 1))
		}
		if err := t.flush(); err != nil {
			return err
		}
		if closed {
			t.closeSent.Store(true)
		}
		b.Reset()
		if !more {
			return nil
		}
	}
}

// flush writes to the socket, under the watch's eye.
func (t *transport) flush() error {
	t.writeSince.Store(t.srv.watch.now())
	n, err := t.conn.flush()
	t.writeSince.Store(0)
	if n > 0 {
		t.srv.met.bytesOut.Add(uint64(n))
	}
	return err
}

// appendFrames adds a batch to what the next flush writes.
func (t *transport) appendFrames(b *session.Batch) error {
	t.srv.met.framesOut.Add(uint64(len(b.Frames)))
	if bytes.HasPrefix(b.Frames[len(b.Frames)-1], streamErrorTag) {
		t.errored = true
	}
	if !t.squash {
		t.conn.appendBatch(b)
		return nil
	}
	for _, f := range b.Frames {
		if err := t.ws.Write(context.Background(), websocket.MessageText, f); err != nil {
			return err
		}
	}
	return nil
}

// appendEnd adds what ends the connection and reports whether our closing frame is in it. A stream that ends
// properly waits for the peer's <close/> before the WebSocket is closed (RFC 7395 §3.6), but not for ever and not
// after a stream error.
func (t *transport) appendEnd(how session.Finish) bool {
	code := t.code.Load()
	switch how {
	case session.Broken:
		return false
	case session.Restarting:
		if code == 0 {
			code = uint32(websocket.StatusServiceRestart)
		}
	default:
		if code == 0 {
			code = uint32(websocket.StatusNormalClosure)
		}
		if !t.closing {
			t.closing = true
			t.conn.appendControl(opText, closeElement)
			t.srv.met.framesOut.Add(1)
		}
		if !t.errored && t.code.Load() == 0 && !t.peerClosed.Load() && !t.closeNow.Load() {
			return false
		}
	}
	t.conn.appendClose(uint16(code))
	return true
}

// ping sends a ping behind all that is written, when one is due and none is in flight.
func (t *transport) ping() {
	if !t.pingWanted.Load() || t.pingID.Load() != 0 {
		return
	}
	t.pingWanted.Store(false)
	t.pingSeq++
	t.pinged = t.mark
	t.pingID.Store(t.pingSeq)
	t.conn.appendPing(t.pingSeq)
	t.srv.met.pingsSent.Add(1)
}

// takePong tells the stream what the answered ping proves.
func (t *transport) takePong() {
	id := t.pingID.Load()
	if id == 0 || t.pongID.Load() != id {
		return
	}
	t.pingID.Store(0)
	t.prove(t.pinged)
}

func (t *transport) prove(mark uint64) {
	if mark != t.proved {
		t.proved = mark
		t.stream.Proved(mark)
	}
}

// gotPing notes what to answer. Called by coder within the reader; false keeps it from answering itself.
func (t *transport) gotPing(_ context.Context, payload []byte) bool {
	p := bytes.Clone(payload)
	if p == nil {
		p = []byte{}
	}
	t.pong.Store(&p)
	t.Wake()
	return false
}

// gotPong notes that the ping in flight was answered. Called by coder within the reader.
func (t *transport) gotPong(_ context.Context, payload []byte) {
	if id := pingID(payload); id != 0 && id == t.pingID.Load() {
		t.srv.met.pingsAnswered.Add(1)
		t.pongID.Store(id)
		t.Wake()
	}
}
