package session

import (
	"context"
	"net/netip"
	"time"

	"holdfast/stanza"
)

// Transport is one connection (a WebSocket, a BOSH session) as a stream sees it. It carries whole elements and
// knows no rules. Its methods may be called from any goroutine, also with the stream's locks held: they never
// block and never call back into the stream before they return.
type Transport interface {
	// Header renders the answer to the peer's stream header: <open/> (RFC 7395 §3.4).
	Header(h Header) []byte
	// Wake says that Stream.Pull has frames. The transport makes sure that a writer runs; one that is already
	// running will see them.
	Wake()
	// Probe asks the peer for a sign of life behind all that was written so far (a WebSocket ping). When it is
	// answered the transport calls Stream.Proved with the mark of the last batch written before the probe.
	Probe()
	// Finish ends the transport: what Pull still holds is written first, within the transport's own bound, then
	// the closing that how asks for.
	Finish(how Finish)
}

// Finish is the way a transport ends.
type Finish uint8

const (
	// Closed ends the stream properly: <close/>, then the WebSocket closing handshake with 1000.
	Closed Finish = iota
	// Restarting leaves the stream open for a resumption: no <close/>, WebSocket status 1012 (service restart).
	Restarting
	// Broken drops the connection at once without writing anything more.
	Broken
)

// Header is what the gateway says in its stream header (RFC 6120 §4.7).
type Header struct {
	ID   string
	From string
	To   string // the peer, when it said who it is
	Lang string
}

// Open is what the peer said in its stream header.
type Open struct {
	To, From, Version, Lang string
}

// Peer is what a transport knows of the other side.
type Peer struct {
	Addr   netip.Addr // the client's address, forwarded headers of trusted proxies considered
	Secure bool       // TLS up to the client, loopback, or a trusted proxy that says so: PLAIN may be offered
	Kind   string     // "websocket" or "bosh", for logs and metrics
}

// Batch is what one Pull hands to a transport: complete elements in order. The frames are immutable.
type Batch struct {
	Frames [][]byte
	// Mark stands for everything pulled so far; the transport gives it back in Proved.
	Mark uint64
	// bytes counts what is in Frames, so that one batch stays bounded.
	bytes int
}

// Reset empties b for the next Pull and lets go of the frames.
func (b *Batch) Reset() {
	clear(b.Frames)
	b.Frames, b.bytes, b.Mark = b.Frames[:0], 0, 0
}

// Stream is the negotiation on one transport and, once bound or resumed, the session's hold on it. The transport
// calls:
//
//   - Open, Handle, Fail and PeerClosed from its one reading goroutine;
//   - Pull and Proved from its one writing goroutine (or any, one at a time);
//   - Lost exactly once, when the transport is gone and no Handle is running any more.
type Stream interface {
	// Open answers a stream header; the answer comes out of Pull.
	Open(o Open)
	// Handle takes one complete element. It refers to e only until it returns.
	Handle(e *stanza.Element)
	// Fail ends the stream with a stream error, for what the transport itself found wrong.
	Fail(err stanza.StreamError)
	// PeerClosed says that the peer closed the stream properly (<close/>); the stream calls Transport.Finish.
	PeerClosed()
	// Pull adds the next frames to write to b (which is empty) and reports whether there were any.
	Pull(b *Batch) bool
	// Proved says that the peer's end of the transport got everything up to mark.
	Proved(mark uint64)
	// Authenticated reports whether SASL has succeeded, so that the transport can lift its deadlines.
	Authenticated() bool
	// Lost says that the transport is gone. err is nil after a proper closing on both sides.
	Lost(err error)
}

// CarriedStream is a Stream whose transport outlives its process.
type CarriedStream interface {
	Stream
	Carrier
}

// Carrier is what a transport needs that is more than one connection (BOSH), so that it outlives its process: what it
// notes is stored with the session. Its methods may be called from any goroutine, and with locks of the transport held
// that Transport's methods do not take.
type Carrier interface {
	// Keep notes, once a session is bound, what another process needs to go on with the transport, which the client knows
	// as sid and comes back to within linger. It is in the journal, in the order of the calls, when Keep returns.
	Keep(sid string, state []byte, linger time.Duration)
	// Settle returns when the first so many stanzas of the client, by Handled, and what was kept before can't be lost any
	// more (contract 1). Nothing may be locked.
	Settle(ctx context.Context, handled uint64) error
	// Handled is how many stanzas of the client the session has taken up since it was bound.
	Handled() uint64
	// Again appends the frames of the places (from, to] of Batch.Mark that the peer has not proved to have.
	Again(frames [][]byte, from, to uint64) [][]byte
}
