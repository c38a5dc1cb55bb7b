package session

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
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

	mu     sync.Mutex
	frames [][]byte
	marks  []uint64 // with each frame
	bytes  int
	ended  bool
}

// serveThrough makes st a connection of a session at another node.
func (st *stream) serveThrough(node string) bool {
	p := &proxy{sv: st.sv, st: st, node: node, id: secret()[:proxyID]}
	st.sv.mu.Lock()
	st.sv.proxies[p.id] = p
	st.sv.mu.Unlock()
	st.through.Store(p)
	secure := byte(0)
	if st.peer.Secure {
		secure = 1
	}
	attach := append([]byte{secure}, st.peer.Addr.String()...)
	attach = append(append(attach, ' '), st.peer.Kind...)
	st.sv.metrics.proxied.Inc()
	st.log.Info("connection served through", "home", node)
	return p.tell(opAttach, attach)
}

// tell sends something of the connection to the home; when that cannot be done the connection ends.
func (p *proxy) tell(op uint8, payload []byte) bool {
	b := append(append(make([]byte, 0, proxyID+len(payload)), p.id...), payload...)
	if !p.sv.cluster.Tell(p.node, Message{Op: op, User: p.st.user.String(), Payload: b}) {
		p.st.transport.Finish(Broken)
		return false
	}
	return true
}

// pull takes what the home sent.
func (p *proxy) pull(b *Batch) bool {
	p.mu.Lock()
	n, size := 0, 0
	for n < len(p.frames) && n < maxBatchFrames && size < maxBatchBytes {
		b.Frames = append(b.Frames, p.frames[n])
		size += len(p.frames[n])
		b.Mark = p.marks[n]
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
		mark, size := binary.LittleEndian.Uint64(b), int(binary.LittleEndian.Uint32(b[8:]))
		if b = b[12:]; size > len(b) {
			break
		}
		p.frames, p.marks = append(p.frames, b[:size:size]), append(p.marks, mark)
		p.bytes += size
		b = b[size:]
	}
	over := p.bytes > 2*proxyWindow+maxBatchBytes
	p.mu.Unlock()
	if over {
		p.st.transport.Finish(Broken) // the home does not keep to its window
		return
	}
	p.st.transport.Wake()
}

// end lets go of the connection.
func (p *proxy) end(properly bool) {
	p.mu.Lock()
	ended := p.ended
	p.ended = p.ended || !properly
	p.mu.Unlock()
	if ended {
		return
	}
	how := byte(0)
	if properly {
		how = 1
	} else {
		p.sv.mu.Lock()
		delete(p.sv.proxies, p.id)
		p.sv.mu.Unlock()
	}
	b := append([]byte(p.id), how)
	p.sv.cluster.Tell(p.node, Message{Op: opLost, User: p.st.user.String(), Payload: b})
}

// relay is the far end: a Transport whose connection is at another node.
type relay struct {
	// static
	sv   *Service
	node string
	id   string
	user stanza.Addr
	st   *stream
	in   chan relayed
	over chan struct{} // closed by lose

	mu      sync.Mutex
	pulling bool // a goroutine pulls
	again   bool // and is to look once more
	flight  int  // bytes that the other node has not written yet
	full    bool // waits for flight to shrink
}

// relayed is one thing that came over the connection; a nil raw is its end.
type relayed struct {
	raw      []byte
	properly bool
}

// proxied takes what nodes tell each other of served connections.
func (sv *Service) proxied(node string, user stanza.Addr, m Message) {
	if len(m.Payload) < proxyID {
		return
	}
	id, b := string(m.Payload[:proxyID]), append([]byte(nil), m.Payload[proxyID:]...)
	switch m.Op {
	case opFrames, opFinish:
		sv.mu.Lock()
		p := sv.proxies[id]
		sv.mu.Unlock()
		switch {
		case p == nil:
		case m.Op == opFrames && len(b) == 0:
			p.st.transport.Probe()
		case m.Op == opFrames:
			p.take(b)
		case len(b) == 1:
			p.st.finish(Finish(b[0]))
		}
		return
	case opAttach:
		sv.attach(node, id, user, b)
		return
	}
	sv.mu.Lock()
	r := sv.relays[node+id]
	sv.mu.Unlock()
	if r == nil {
		if m.Op == opElement {
			// Not known here (any more): its client comes back and finds the home.
			sv.cluster.Tell(node, Message{Op: opFinish, User: m.User, Payload: append([]byte(id), byte(Broken))})
		}
		return
	}
	switch m.Op {
	case opElement:
		r.push(relayed{raw: b})
	case opLost:
		r.push(relayed{properly: len(b) == 1 && b[0] == 1})
	case opProved:
		if len(b) != 9 {
			return
		}
		n := binary.LittleEndian.Uint64(b[1:])
		if b[0] == 'c' {
			r.credit(int(n))
			return
		}
		sv.loops.Go(func() { r.st.Proved(n) })
	}
}

// attach begins to serve a connection at another node.
func (sv *Service) attach(node, id string, user stanza.Addr, b []byte) {
	if len(b) < 2 || sv.draining.Load() {
		sv.cluster.Tell(node, Message{Op: opFinish, User: user.String(), Payload: append([]byte(id), byte(Broken))})
		return
	}
	host, kind, _ := cutSpace(string(b[1:]))
	from, _ := netip.ParseAddr(host)
	r := &relay{sv: sv, node: node, id: id, user: user, in: make(chan relayed, relayQueue), over: make(chan struct{})}
	r.st = &stream{
		sv: sv, transport: r, peer: Peer{Addr: from, Secure: b[0] == 1, Kind: kind},
		log: sv.log.With("user", user.String()), state: reopened, user: user, domain: user.Server(), born: time.Now(),
	}
	r.st.authed.Store(true)
	sv.mu.Lock()
	sv.relays[node+id] = r
	sv.mu.Unlock()
	sv.loops.Go(r.run)
}

func cutSpace(s string) (before, after string, found bool) {
	for i := range len(s) {
		if s[i] == ' ' {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// push queues what came; a client that sends more than is taken loses its connection.
func (r *relay) push(x relayed) {
	select {
	case r.in <- x:
	default:
		r.Finish(Broken)
		r.sv.loops.Go(func() { r.lose(errRelayFull) })
	}
}

// run handles what comes over the connection, until its end.
func (r *relay) run() {
	var e stanza.Element
	for {
		select {
		case <-r.sv.ctx.Done():
			return
		case <-r.over:
			return
		case x := <-r.in:
			if x.raw == nil {
				if x.properly {
					r.st.PeerClosed()
					continue
				}
				r.lose(errProxyLost)
				return
			}
			if err := e.Scan(x.raw, stanza.Limits{}); err != nil {
				r.Finish(Broken)
				continue
			}
			r.st.Handle(&e)
		}
	}
}

// lose is the end of the connection.
func (r *relay) lose(err error) {
	r.sv.mu.Lock()
	known := r.sv.relays[r.node+r.id] == r
	delete(r.sv.relays, r.node+r.id)
	r.sv.mu.Unlock()
	if known {
		r.st.Lost(err)
		close(r.over)
	}
}

// Header is not asked for: the other node has greeted the client.
func (r *relay) Header(Header) []byte { return nil }

// Wake sends what the stream has, in a goroutine that lives while there is something and the window is open.
func (r *relay) Wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pulling {
		r.again = true
		return
	}
	if r.full {
		return
	}
	r.pulling = true
	r.sv.loops.Go(r.pull)
}

func (r *relay) pull() {
	var b Batch
	for {
		b.Reset()
		got := r.st.Pull(&b)
		if got {
			payload := []byte(r.id)
			for _, f := range b.Frames {
				payload = binary.LittleEndian.AppendUint64(payload, b.Mark)
				payload = binary.LittleEndian.AppendUint32(payload, uint32(len(f)))
				payload = append(payload, f...)
			}
			if !r.sv.cluster.Tell(r.node, Message{Op: opFrames, User: r.user.String(), Payload: payload}) {
				r.sv.loops.Go(func() { r.lose(errProxyLost) })
				return
			}
		}
		r.mu.Lock()
		r.flight += b.bytes
		r.full = r.flight >= proxyWindow
		if r.full || !got && !r.again {
			r.pulling = false
			r.mu.Unlock()
			return
		}
		r.again = false
		r.mu.Unlock()
	}
}

// credit notes that the other node wrote n bytes.
func (r *relay) credit(n int) {
	r.mu.Lock()
	r.flight -= n
	open := r.full && r.flight < proxyWindow
	if open {
		r.full = false
	}
	r.mu.Unlock()
	if open {
		r.Wake()
	}
}

// Probe implements Transport.
func (r *relay) Probe() {
	r.sv.cluster.Tell(r.node, Message{Op: opFrames, User: r.user.String(), Payload: []byte(r.id)})
}

// Finish implements Transport. What the stream still has to say goes first.
func (r *relay) Finish(how Finish) {
	r.sv.loops.Go(func() {
		if how != Broken {
			r.flush()
		}
		r.sv.cluster.Tell(r.node, Message{Op: opFinish, User: r.user.String(), Payload: append([]byte(r.id), byte(how))})
	})
}

// flush sends what there is beyond the window: it is little, and the last.
func (r *relay) flush() {
	r.mu.Lock()
	r.full = false
	r.mu.Unlock()
	r.Wake()
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
		r.sv.loops.Go(func() { r.lose(errProxyLost) })
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
