package session

// The writing half of a stream.

// maxBatch bounds one Pull, so that a long outbox does not hold the lock or fill memory.
const (
	maxBatchFrames = 64
	maxBatchBytes  = 64 << 10
)

// Pull hands the transport what is to be written next.
func (st *stream) Pull(b *Batch) bool {
	if p := st.through.Load(); p != nil {
		if st.takeControls(b, ^uint64(0), ^uint64(0)); len(b.Frames) > 0 {
			return true
		}
		return p.pull(b)
	}
	limit := st.sv.journal.Sendable()
	s := st.session.Load()
	if s == nil {
		next := st.takeControls(b, ^uint64(0), limit)
		if len(b.Frames) == 0 && next.pos > limit {
			st.sv.park(st.transport, next.pos)
		}
		return len(b.Frames) > 0
	}
	s.mu.Lock()
	if s.stream != st {
		// Detached or taken over: only what the stream itself has to say.
		s.mu.Unlock()
		st.takeControls(b, ^uint64(0), ^uint64(0))
		return len(b.Frames) > 0
	}
	var held uint64 // position that the next thing to be sent waits for
	for held == 0 {
		next := st.takeControls(b, s.out.sent, limit)
		if next.pos > limit && next.after <= s.out.sent {
			held = next.pos
		}
		if s.out.sent == s.out.last() || len(b.Frames) >= maxBatchFrames || b.bytes >= maxBatchBytes {
			break
		}
		last := s.out.last()
		if next.frame != nil {
			last = min(last, next.after)
		}
		for s.out.sent < last && len(b.Frames) < maxBatchFrames && b.bytes < maxBatchBytes {
			e := s.out.at(s.out.sent + 1)
			if e.pos > limit {
				held = e.pos
				break
			}
			s.out.sent++
			s.out.most = max(s.out.most, s.out.sent)
			raw := s.frame(e)
			b.Frames = append(b.Frames, raw)
			b.bytes += len(raw)
		}
	}
	probe := s.askLocked(b)
	b.Mark = s.out.sent
	s.mu.Unlock()
	if held > 0 && len(b.Frames) == 0 {
		st.sv.park(st.transport, held)
	}
	if probe {
		st.transport.Probe()
	}
	return len(b.Frames) > 0
}

// takeControls moves controls that are due at the outbox place sent, up to the first that may not go out yet, and
// returns that one.
func (st *stream) takeControls(b *Batch, sent, limit uint64) (next control) {
	st.mu.Lock()
	defer st.mu.Unlock()
	i := 0
	for i < len(st.controls) && st.controls[i].after <= sent && st.controls[i].pos <= limit {
		b.Frames = append(b.Frames, st.controls[i].frame)
		b.bytes += len(st.controls[i].frame)
		i++
	}
	if i > 0 {
		n := copy(st.controls, st.controls[i:])
		clear(st.controls[n:])
		st.controls = st.controls[:n]
		if n == 0 && cap(st.controls) > 16 {
			st.controls = nil
		}
	}
	if len(st.controls) == 0 {
		return control{}
	}
	return st.controls[0]
}
