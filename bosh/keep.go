package bosh

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"holdfast/session"
)

// What another process needs to go on with a session is noted before each response, and is safe before the response is
// written. It is as of the response: what was handled since is told by the stream's own count.
//
// The stanzas of responses that may have to be repeated are in the stream's outbox and are not noted, only their places.
// What has no place, such as the answers to XEP-0198's requests, is.

const stateVersion = 1

// Flags of a noted session.
const (
	keptSecure = 1 << iota
	keptLegacy
	keptAcks
	keptKeys
)

// keep notes the session. The caller holds mu, so that notes are in order.
func (t *transport) keep() {
	if !t.authed.Load() {
		return // nothing is bound, and nobody goes on with it
	}
	o := outbufs.Get().(*outbuf)
	defer outbufs.Put(o)
	b := t.appendStatic(o.b[:0])
	if t.keys.used() {
		b = append(b, t.keys.want[:]...)
	}
	for _, n := range [...]uint64{t.next, t.answered, t.proven, t.base, t.mark, uint64(t.pausing / time.Second)} {
		b = binary.AppendUvarint(b, n)
	}
	for rid := t.proven + 1; rid < t.next; rid++ {
		s := t.at(rid)
		if s == nil {
			b = append(b, 0)
			continue
		}
		b = t.appendSlot(b, s)
	}
	o.b = b
	t.stream.Keep(t.sid, b, t.linger())
}

// linger is how long a session waits that has lost its requests with its process.
func (t *transport) linger() time.Duration {
	d := t.inactivity
	if t.pausing > 0 {
		d = t.pausing
	}
	if d == 0 {
		d = 24 * time.Hour // no limit; but who restarts a service does not bring back yesterday's pages
	}
	return d
}

func (t *transport) appendStatic(b []byte) []byte {
	flags := byte(0)
	for i, f := range [...]bool{t.peer.Secure, t.legacy, t.acks, t.keys.used()} {
		if f {
			flags |= 1 << i
		}
	}
	b = append(b, stateVersion, flags, byte(t.hold))
	b = binary.AppendUvarint(b, t.requests)
	b = binary.AppendUvarint(b, uint64(t.wait/time.Second))
	b = binary.AppendUvarint(b, uint64(t.inactivity/time.Second))
	addr, _ := t.peer.Addr.MarshalBinary() // it does not fail
	b = appendBytes(b, addr)
	b = appendBytes(b, []byte(t.content))
	return appendBytes(b, []byte(t.lang))
}

// appendSlot notes one request that is handled: its state, key and response.
func (t *transport) appendSlot(b []byte, s *slot) []byte {
	b = append(b, byte(s.state))
	if t.keys.used() {
		b = append(b, s.key[:]...)
	}
	if s.state != answered {
		return b
	}
	r := &s.resp
	b = binary.AppendUvarint(b, r.from)
	b = binary.AppendUvarint(b, r.mark-r.from)
	b = appendBytes(b, r.attrs)
	b = binary.AppendUvarint(b, uint64(len(r.frames)))
	if uint64(len(r.frames)) == r.mark-r.from {
		return b
	}
	// Of what looks like a stanza only the last ones have places: the first may be the answer to a request to bind.
	extra := -int(r.mark - r.from)
	for _, f := range r.frames {
		if looksCounted(f) {
			extra++
		}
	}
	for _, f := range r.frames {
		if looksCounted(f) {
			if extra--; extra < 0 {
				b = binary.AppendUvarint(b, 0)
				continue
			}
		}
		b = appendBytes(b, f)
	}
	return b
}

func looksCounted(f []byte) bool {
	for _, name := range [...]string{"<message", "<presence", "<iq"} {
		if len(f) > len(name) && string(f[:len(name)]) == name {
			return true
		}
	}
	return false
}

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

var errState = errors.New("bosh: a noted session is not readable")

// reader reads a noted session.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	v := r.take(1)
	if r.bad {
		return 0
	}
	return v[0]
}

func (r *reader) num() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes() []byte { return r.take(r.num()) }

// revive makes a session of what was noted. Its responses have no stanzas yet, see refill.
func (s *Server) revive(sid string, state []byte) (*transport, error) {
	r := &reader{b: state}
	if r.byte() != stateVersion {
		return nil, errState
	}
	flags := r.byte()
	t := &transport{
		srv: s, sid: sid, born: s.watch.time(),
		legacy: flags&keptLegacy != 0, acks: flags&keptAcks != 0,
		hold: int(r.byte()), requests: r.num(),
		wait: time.Duration(r.num()) * time.Second, inactivity: time.Duration(r.num()) * time.Second,
	}
	var addr netip.Addr
	if r.bad || t.requests == 0 || t.requests > mostHeld+1 || addr.UnmarshalBinary(r.bytes()) != nil {
		return nil, errState
	}
	t.peer = session.Peer{Addr: addr, Secure: flags&keptSecure != 0, Kind: "bosh"}
	t.content = string(r.bytes())
	t.lang = string(r.bytes())
	if flags&keptKeys != 0 {
		copy(t.keys.want[:], r.take(uint64(len(key{}))))
	}
	t.next, t.answered, t.proven, t.base, t.mark = r.num(), r.num(), r.num(), r.num(), r.num()
	t.pausing = time.Duration(r.num()) * time.Second
	t.dropped = t.proven
	t.makeSlots()
	if r.bad || t.proven > t.answered || t.answered >= t.next || t.next-t.proven > uint64(len(t.slots)) {
		return nil, errState
	}
	t.newest = t.next - 1
	t.touched = t.born
	t.authed.Store(true)
	for rid := t.proven + 1; rid < t.next; rid++ {
		if err := t.readSlot(r, rid); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *transport) readSlot(r *reader, rid uint64) error {
	state := slotState(r.byte())
	if r.bad || state != free && state != open && state != answered {
		return errState
	}
	if state == free {
		return nil
	}
	s := &t.slots[rid&uint64(len(t.slots)-1)]
	*s = slot{rid: rid, state: state, hurry: t.polls(), handled: t.base}
	if t.keys.used() {
		copy(s.key[:], r.take(uint64(len(key{}))))
	}
	if state == open {
		return nil
	}
	p := &s.resp
	p.from = r.num()
	places := r.num()
	p.mark = p.from + places
	p.at = t.born
	p.attrs = append([]byte(nil), r.bytes()...)
	n := r.num()
	if r.bad || n > 1<<16 || places > n {
		return errState
	}
	p.frames = make([][]byte, n)
	if n == places {
		return nil
	}
	for i := range p.frames {
		if v := r.bytes(); len(v) > 0 {
			p.frames[i] = append([]byte(nil), v...)
		}
	}
	if r.bad {
		return errState
	}
	return nil
}

// refill puts the stanzas back into the responses. What is proved is in no outbox any more, and is not asked for again.
func (t *transport) refill() {
	for rid := t.proven + 1; rid <= t.answered; rid++ {
		s := t.at(rid)
		if s == nil {
			continue
		}
		if s.resp.mark > s.resp.from {
			t.marked = rid
		}
		again := t.stream.Again(nil, s.resp.from, s.resp.mark)
		if uint64(len(again)) != s.resp.mark-s.resp.from {
			s.state, s.resp.frames = free, nil
			continue
		}
		for i, f := range s.resp.frames {
			if f == nil && len(again) > 0 {
				s.resp.frames[i], again = again[0], again[1:]
			}
		}
		if len(again) > 0 {
			s.state, s.resp.frames = free, nil
		}
	}
}

// goOn looks for a session that an earlier process had.
func (s *Server) goOn(sid string) *transport {
	if s.streams.Continue == nil || !s.begin(sid) {
		return s.find(sid)
	}
	defer s.began(sid)
	if t := s.find(sid); t != nil {
		return t
	}
	if !s.door.Join() {
		return nil
	}
	var t *transport
	stream, handled, ok := s.streams.Continue(sid, func(state []byte) (session.Transport, session.Peer, uint64, error) {
		var err error
		if t, err = s.revive(sid, state); err != nil {
			return nil, session.Peer{}, 0, err
		}
		t.mu.Lock() // nobody looks before the stream is here
		return t, t.peer, t.mark, nil
	})
	if t == nil {
		s.door.Leave()
		return nil
	}
	defer t.mu.Unlock()
	if !ok {
		s.door.Leave()
		t.over = true
		return nil
	}
	t.stream = stream
	if handled > t.base {
		t.skip = handled - t.base
	}
	t.refill()
	s.gate.Return()
	s.met.continued.Add(1)
	s.add(t)
	t.schedule()
	t.tooLate()
	s.log.Debug("bosh session goes on", "address", t.peer.Addr)
	return t
}
