package session

import (
	"encoding/binary"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/stanza"
)

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

	broken atomic.Bool // Finish said so: what was being handled then may not be, and nothing behind it is

	// owned by who reads the mailbox
	deaf bool // something did not fit into in, so nothing that came behind it is taken

	mu      sync.Mutex
	pulling bool    // a goroutine pulls
	again   bool    // and is to look once more
	flight  int     // bytes that the other node has not written yet
	full    bool    // waits for flight to shrink
	last    *Finish // how it is to end, once all is sent
}

// relayed is one thing that came over the connection: an element, a question, a note, or else its end.
type relayed struct {
	raw    []byte
	settle []byte // whether what came before is settled: which question
	keep   []byte // what the transport notes
	lost   byte   // how it ended
}

// proxied takes what nodes tell each other of served connections.
func (sv *Service) proxied(node string, user stanza.Addr, m Message) {
	if len(m.Payload) < proxyID {
		return
	}
	id, b := string(m.Payload[:proxyID]), append([]byte(nil), m.Payload[proxyID:]...)
	switch m.Op {
	case opFrames, opFinish, opSettled:
		sv.mu.Lock()
		p := sv.proxies[id]
		sv.mu.Unlock()
		switch {
		case p == nil:
		case m.Op == opSettled:
			if len(b) == 8 {
				p.settled(binary.LittleEndian.Uint64(b))
			}
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
	case opSettle:
		if len(b) > 0 {
			r.push(relayed{settle: b})
		}
	case opLost:
		if len(b) == 1 {
			r.push(relayed{lost: b[0]})
		}
	case opKeep:
		if len(b) > 0 {
			r.push(relayed{keep: b})
		}
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
		sv: sv, transport: r, peer: Peer{Addr: from, Secure: b[0]&attachSecure != 0, Kind: kind}, carried: b[0]&attachCarried != 0,
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
	if r.deaf {
		return
	}
	select {
	case r.in <- x:
	default:
		r.deaf = true
		r.Finish(Broken)
		r.sv.loops.Go(func() { r.leave(errRelayFull) })
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
			switch {
			case x.settle != nil:
				r.sv.loops.Go(func() { r.settle(x.settle) })
			case x.keep != nil:
				r.keep(x.keep)
			case x.raw != nil:
				if err := e.Scan(x.raw, stanza.Limits{}); err != nil {
					r.Finish(Broken)
				} else {
					r.st.Handle(&e)
				}
				if r.broken.Load() {
					r.leave(errProxyLost)
					return
				}
			case x.lost == lostProperly:
				r.st.PeerClosed()
			case x.lost == lostHere:
				r.leave(errProxyLost)
				return
			default:
				r.lose(errProxyLost)
				return
			}
		}
	}
}

// keep notes with the session what the transport needs to go on elsewhere. It counts the stanzas that it brought, all of
// which are handled.
func (r *relay) keep(b []byte) {
	if len(b) < 16 {
		return
	}
	told, linger := binary.LittleEndian.Uint64(b), time.Duration(binary.LittleEndian.Uint64(b[8:]))
	size, n := binary.Uvarint(b[16:])
	rest := b[16+max(n, 0):]
	s := r.st.session.Load()
	if n <= 0 || size > uint64(len(rest)) || s == nil {
		return
	}
	r.sv.enter()
	defer r.sv.leave()
	s.mu.Lock()
	r.st.before = s.totalLocked() - told
	s.mu.Unlock()
	r.st.note(string(rest[:size]), rest[size:], linger)
}

// leave is the end of the connection, but not of its transport, which may go on anywhere.
func (r *relay) leave(err error) {
	r.st.leaves.Store(true)
	r.lose(err)
}

// settle answers when what was handled by now is settled.
func (r *relay) settle(question []byte) {
	if err := r.st.Settle(r.sv.ctx, math.MaxUint64); err != nil {
		return // the process ends
	}
	r.sv.cluster.Tell(r.node, Message{Op: opSettled, User: r.user.String(), Payload: append([]byte(r.id), question...)})
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
				// For good: pulling stays as it is, so that nothing follows what was not sent.
				r.Finish(Broken)
				r.sv.loops.Go(func() { r.leave(errProxyLost) })
				return
			}
		}
		r.mu.Lock()
		r.flight += b.bytes
		// What there is to say at the end goes beyond the window: it is little.
		r.full = r.flight >= proxyWindow && r.last == nil
		if r.full || !got && !r.again {
			last := r.last
			r.pulling, r.last = false, nil
			r.mu.Unlock()
			if last != nil {
				r.tellEnd(*last)
			}
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
	if how == Broken {
		r.broken.Store(true)
		r.sv.loops.Go(func() { r.tellEnd(how) })
		return
	}
	r.mu.Lock()
	r.full, r.last = false, &how
	r.mu.Unlock()
	r.Wake()
}

func (r *relay) tellEnd(how Finish) {
	r.sv.tellSoon(r.node, Message{Op: opFinish, User: r.user.String(), Payload: append([]byte(r.id), byte(how))})
}
