package session

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/stanza"
)

// A user who is connected elsewhere keeps that home, and a further connection here is served through: what comes in
// goes to the home as it is, and what the home's session sends is written here. Nothing of it is journaled, since it is
// like the network between a client and its server: when a message of it is lost the connection ends, and the client
// resumes. The home's side is relay, this side proxy.

const (
	// proxyWindow is how many bytes the home may have on their way to a client.
	proxyWindow = 256 << 10
	// relayQueue is how many elements of a client may wait at the home.
	relayQueue = 256
	proxyID    = 24 // length of the name of a served connection
)

var (
	errProxyLost = errors.New("session: connection to the user's home lost")
	errRelayFull = errors.New("session: too much waits at the user's home")
)

// proxy is the near end: it stands between a transport here and a session elsewhere.
type proxy struct {
	// static
	sv   *Service
	st   *stream
	node string
	id   string

	told atomic.Uint64 // stanzas of the client

	mu     sync.Mutex
	frames [][]byte
	marks  []mark // with each frame
	bytes  int
	asked  uint64 // by settle
	asking map[uint64]chan struct{}
	ended  bool
	gone   chan struct{} // closed when the connection is lost; static
	broken bool          // something was not sent, so nothing more is: the home must not get what came behind it
}

// What is said of a connection when it begins.
const (
	attachSecure = 1 << iota
	attachCarried
)

// How a connection ended, as far as the near end knows.
const (
	lostForGood  = iota
	lostProperly // the client closed it
	lostHere     // its transport may go on at another node
)

// mark is the home's Batch.Mark behind a frame, which is right behind the last frame of a batch.
type mark struct {
	place uint64
	last  bool
}

// serveThrough makes st a connection of a session at another node.
func (st *stream) serveThrough(node string) bool {
	p := &proxy{sv: st.sv, st: st, node: node, id: secret()[:proxyID], gone: make(chan struct{})}
	st.sv.mu.Lock()
	st.sv.proxies[p.id] = p
	st.sv.mu.Unlock()
	st.through.Store(p)
	flags := byte(0)
	if st.peer.Secure {
		flags |= attachSecure
	}
	if st.carried {
		flags |= attachCarried
	}
	attach := append([]byte{flags}, st.peer.Addr.String()...)
	attach = append(append(attach, ' '), st.peer.Kind...)
	st.sv.metrics.proxied.Inc()
	st.log.Info("connection served through", "home", node)
	return p.tell(opAttach, attach)
}

// tell sends something of the connection to the home; when that cannot be done the connection ends.
func (p *proxy) tell(op uint8, payload []byte) bool {
	p.mu.Lock()
	broken := p.broken
	p.mu.Unlock()
	if broken {
		return false
	}
	b := append(append(make([]byte, 0, proxyID+len(payload)), p.id...), payload...)
	if !p.sv.cluster.Tell(p.node, Message{Op: op, User: p.st.user.String(), Payload: b}) {
		p.mu.Lock()
		p.broken = true
		p.mu.Unlock()
		p.st.transport.Finish(Broken)
		return false
	}
	return true
}

// tellSoon sends what the other end must hear of while its node lives, also when too much waits on the way now.
func (sv *Service) tellSoon(node string, m Message) {
	if sv.cluster.Tell(node, m) {
		return
	}
	sv.loops.Go(func() {
		for wait := retryFirst; sv.sleep(wait); wait = min(2*wait, retryLast) {
			sv.mu.Lock()
			_, dead := sv.deaths[node]
			sv.mu.Unlock()
			if dead || sv.cluster.Tell(node, m) {
				return
			}
		}
	})
}

// pull takes what the home sent.
func (p *proxy) pull(b *Batch) bool {
	p.mu.Lock()
	n, size := 0, 0
	// The home's batches are not cut: what is marked is all that is in them.
	for n < len(p.frames) && (n == 0 || !p.marks[n-1].last || n < maxBatchFrames && size < maxBatchBytes) {
		b.Frames = append(b.Frames, p.frames[n])
		size += len(p.frames[n])
		b.Mark = p.marks[n].place
		n++
	}
	b.bytes += size
	p.frames, p.marks = p.frames[n:], p.marks[n:]
	if len(p.frames) == 0 {
		p.frames, p.marks = nil, nil
	}
	p.bytes -= size
	p.mu.Unlock()
	if size > 0 {
		p.tell(opProved, binary.LittleEndian.AppendUint64([]byte{'c'}, uint64(size)))
	}
	return n > 0
}

// take queues frames of the home for the transport.
func (p *proxy) take(b []byte) {
	p.mu.Lock()
	for len(b) >= 12 {
		place, size := binary.LittleEndian.Uint64(b), int(binary.LittleEndian.Uint32(b[8:]))
		if b = b[12:]; size > len(b) {
			break
		}
		p.frames, p.marks = append(p.frames, b[:size:size]), append(p.marks, mark{place: place})
		p.bytes += size
		b = b[size:]
	}
	if n := len(p.marks); n > 0 {
		p.marks[n-1].last = true
	}
	over := p.bytes > 2*proxyWindow+maxBatchBytes
	p.mu.Unlock()
	if over {
		p.st.transport.Finish(Broken) // the home does not keep to its window
		return
	}
	p.st.transport.Wake()
}

// keep has the home keep what the transport notes. It has handled all that was told before.
func (p *proxy) keep(sid string, state []byte, linger time.Duration) {
	b := binary.LittleEndian.AppendUint64(nil, p.told.Load())
	b = binary.LittleEndian.AppendUint64(b, uint64(linger))
	b = binary.AppendUvarint(b, uint64(len(sid)))
	p.tell(opKeep, append(append(b, sid...), state...))
}

// settle returns when the home says that what went there before is settled.
func (p *proxy) settle(ctx context.Context) error {
	answered := make(chan struct{})
	p.mu.Lock()
	p.asked++
	n := p.asked
	if p.asking == nil {
		p.asking = make(map[uint64]chan struct{})
	}
	p.asking[n] = answered
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.asking, n)
		p.mu.Unlock()
	}()
	if !p.tell(opSettle, binary.LittleEndian.AppendUint64(nil, n)) {
		return errProxyLost
	}
	select {
	case <-answered:
		return nil
	case <-p.gone:
		return errProxyLost
	case <-ctx.Done():
		return ctx.Err()
	case <-p.sv.ctx.Done():
		return p.sv.ctx.Err()
	}
}

// settled takes the home's answer.
func (p *proxy) settled(n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ch := p.asking[n]; ch != nil {
		delete(p.asking, n)
		close(ch)
	}
}

// end lets go of the connection.
func (p *proxy) end(properly bool) {
	p.mu.Lock()
	ended, broken := p.ended, p.broken
	p.ended = p.ended || !properly
	p.mu.Unlock()
	if ended {
		return
	}
	how := byte(lostForGood)
	switch {
	case properly:
		how = lostProperly
	case broken, p.sv.draining.Load():
		how = lostHere
	}
	if !properly {
		close(p.gone)
		p.sv.mu.Lock()
		delete(p.sv.proxies, p.id)
		p.sv.mu.Unlock()
	}
	b := append([]byte(p.id), how)
	p.sv.tellSoon(p.node, Message{Op: opLost, User: p.st.user.String(), Payload: b})
}

// Gone is told of nodes that are no members any more: connections through them are lost.
func (sv *Service) Gone(node string) {
	sv.mu.Lock()
	var near []*proxy
	var far []*relay
	for _, p := range sv.proxies {
		if p.node == node {
			near = append(near, p)
		}
	}
	for _, r := range sv.relays {
		if r.node == node {
			far = append(far, r)
		}
	}
	sv.mu.Unlock()
	sv.forgetLater(node)
	for _, p := range near {
		p.st.finish(Restarting)
	}
	for _, r := range far {
		r.sv.loops.Go(func() { r.leave(errProxyLost) })
	}
}

// bringFor sees to it, before a client binds or resumes, that its user is here, or that it is served through where the
// user is. It reports false when the connection has ended. done must be called afterwards.
func (st *stream) bringFor(e *stanza.Element) (ok bool, done func()) {
	sv := st.sv
	token := ""
	if e.Is(stanza.NSSM, "resume") {
		token = e.Attr("previd")
	} else if e.Kind() != stanza.IQ {
		return true, func() {} // an error to come
	}
	sv.wants.begin(st.user)
	done = func() {
		sv.wants.end(st.user)
		if st.session.Load() == nil {
			sv.unpinIfEmpty(st.user)
		}
	}
	ctx, cancel := context.WithCancel(sv.intake)
	defer cancel()
	stays, err := sv.bring(ctx, st.user, token)
	switch {
	case err != nil:
		st.log.Warn("user not brought here", "error", err)
		st.transport.Finish(Broken) // the client tries again, perhaps elsewhere
		return false, done
	case stays != "":
		return st.serveThrough(stays), done
	}
	return true, done
}
