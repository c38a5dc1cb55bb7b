package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// XEP-0198: Stream Management, the half that speaks. Counters are kept as places that never wrap; only their low
// 32 bits travel (§4).

var requestFrame = []byte("<r xmlns='" + stanza.NSSM + "'/>")

func ackFrame(h uint32) []byte {
	b := append([]byte("<a xmlns='"+stanza.NSSM+"' h='"), strconv.FormatUint(uint64(h), 10)...)
	return append(b, "'/>"...)
}

// smFailed is <failed/> with a stanza error condition, and the count for a session that is over (§5).
func smFailed(condition string, h *uint32) []byte {
	b := []byte("<failed xmlns='" + stanza.NSSM + "'")
	if h != nil {
		b = append(b, " h='"...)
		b = strconv.AppendUint(b, uint64(*h), 10)
		b = append(b, '\'')
	}
	return append(b, "><"+condition+" xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"...)
}

// manage takes an element of XEP-0198 on a bound stream. The caller holds inMu.
func (st *stream) manage(s *Session, e *stanza.Element) error {
	switch string(e.Name()) {
	case "r":
		st.answerRequest(s)
		return nil
	case "a":
		return st.takeAck(s, e)
	case "enable":
		return st.enable(s, e)
	case "resume":
		// A resource is bound already (§5).
		st.control(smFailed("unexpected-request", nil))
		return nil
	}
	return stanza.UnsupportedStanzaType
}

// answerRequest says at once how much is settled; what settles later is said without another request.
func (st *stream) answerRequest(s *Session) {
	s.mu.Lock()
	managed, h := s.managed, s.settled
	s.owed = managed && s.settled != s.handled
	if managed {
		st.control(ackFrame(h)) // before anybody can say more
	}
	s.mu.Unlock()
	if !managed {
		st.control(smFailed("unexpected-request", nil))
	}
}

// takeAck trims the outbox. An acknowledgement of more than was sent is the client's error (§4).
func (st *stream) takeAck(s *Session, e *stanza.Element) error {
	h, err := strconv.ParseUint(e.Attr("h"), 10, 32)
	if err != nil {
		return stanza.BadFormat.WithText("h is not a count")
	}
	s.mu.Lock()
	if !s.managed {
		s.mu.Unlock()
		st.control(smFailed("unexpected-request", nil))
		return nil
	}
	place, ok := s.placeLocked(uint32(h))
	sent := s.hLocked(s.out.most)
	s.mu.Unlock()
	if !ok {
		return countError{uint32(h), sent}
	}
	return s.ack(place)
}

// placeLocked finds the outbox place that a client's count means: between what it acknowledged before and what was
// ever sent: a resumption sends it again, and what the connection before brought may be news to it. An older count is
// no news and means the place acknowledged before.
func (s *Session) placeLocked(h uint32) (place uint64, ok bool) {
	from := max(s.out.acked, s.base)
	ahead := h - s.hLocked(from) // modulo 2^32, as the count wraps
	if uint64(ahead) <= s.out.most-min(s.out.most, from) {
		return from + uint64(ahead), true
	}
	if ahead > 1<<31 && uint64(-ahead) <= from-s.base {
		return from, true
	}
	return 0, false
}

// countError is the error for an acknowledgement of what was never sent (§4, example 9).
type countError struct{ handled, sent uint32 }

func (e countError) Error() string {
	return fmt.Sprintf("acknowledgement of %d stanzas when %d were sent", e.handled, e.sent)
}

// Raw is the stream error with its application-specific condition.
func (e countError) Raw() []byte {
	child := fmt.Sprintf("<handled-count-too-high xmlns='%s' h='%d' send-count='%d'/></stream:error>", stanza.NSSM, e.handled, e.sent)
	return append(bytes.TrimSuffix(stanza.UndefinedCondition.WithText(e.Error()).Raw(), []byte("</stream:error>")), child...)
}

// enable switches XEP-0198 on (§3).
func (st *stream) enable(s *Session, e *stanza.Element) error {
	wants := e.Attr("resume")
	limit := st.sv.cfg.ResumeTimeout
	if asked, err := strconv.ParseUint(e.Attr("max"), 10, 31); err == nil {
		limit = min(limit, time.Duration(asked)*time.Second)
	}
	s.mu.Lock()
	if s.managed && st.carried && s.rebuilt && s.in == 0 && s.out.acked <= s.base {
		// An earlier process did it, and the client sends it again since it did not hear of it.
		frame, base := s.enabledLocked(), s.base
		s.mu.Unlock()
		st.promise(frame, base)
		return nil
	}
	if s.managed {
		s.mu.Unlock()
		st.control(smFailed("unexpected-request", nil))
		return nil
	}
	s.managed, s.base, s.asked = true, s.out.last(), s.out.last()
	s.earlier += uint64(s.handled)
	s.in, s.handled, s.settled = 0, 0, 0
	if (wants == "true" || wants == "1") && limit > 0 {
		s.token, s.max = secret(), limit
	}
	if err := s.noteLocked(); err != nil {
		s.managed, s.token = false, ""
		s.mu.Unlock()
		return err
	}
	token, base, frame := s.token, s.base, s.enabledLocked()
	s.mu.Unlock()
	if token != "" {
		st.sv.mu.Lock()
		st.sv.tokens[token] = s
		st.sv.mu.Unlock()
	}
	// The client counts from here, so what was sent before must go out before.
	st.promise(frame, base)
	return nil
}

// enabledLocked says that XEP-0198 is on (§3).
func (s *Session) enabledLocked() []byte {
	b := []byte("<enabled xmlns='" + stanza.NSSM + "'")
	if s.token != "" {
		b = append(b, " id='"+s.token+"' resume='true' max='"...)
		b = strconv.AppendInt(b, int64(s.max/time.Second), 10)
		b = append(b, '\'')
	}
	return append(b, "/>"...)
}

// lookUp looks for a user's session, and says whether the user is here when there is none. Users come and go with all
// their sessions under their lock, so one who is just coming, home first, is not taken for one without.
func (sv *Service) lookUp(token string, user stanza.Addr) (s *Session, here bool) {
	if s = sv.byToken(token); s == nil {
		sv.router.Locked(user, func(Table) { s, here = sv.byToken(token), sv.here(user) })
	}
	if s != nil && s.addr.Bare() != user {
		return nil, sv.here(user)
	}
	return s, here
}

// resume gives an earlier session to this stream (§5). The caller holds inMu of st, which has no session yet.
func (st *stream) resume(e *stanza.Element) error {
	token := e.Attr("previd")
	h, err := strconv.ParseUint(e.Attr("h"), 10, 32)
	if err != nil {
		return stanza.BadFormat.WithText("h is not a count")
	}
	sv := st.sv
	s, here := sv.lookUp(token, st.user)
	if s == nil {
		if !here {
			return ErrUnlocated // another node was quicker
		}
		if settled, ok := sv.over.Recall(token, st.user); ok {
			sv.metrics.resumes.WithLabelValues("ended").Inc()
			st.control(smFailed("item-not-found", &settled))
			return nil
		}
		sv.metrics.resumes.WithLabelValues("unknown").Inc()
		st.control(smFailed("item-not-found", nil))
		return nil
	}
	if cur := s.attached(); cur != nil && cur.born.After(st.born) {
		// The client gave this connection up and came back on that one, while this one waited.
		st.finish(Broken)
		return nil
	}
	old, err := st.seize(s)
	if err != nil {
		return err
	}
	if s.ended || s.spilling {
		settled, moved := s.handled, s.moved
		s.mu.Unlock()
		if moved {
			return ErrUnlocated // handed over a moment ago
		}
		sv.metrics.resumes.WithLabelValues("ended").Inc()
		st.control(smFailed("item-not-found", &settled))
		return nil
	}
	place, ok := s.placeLocked(uint32(h))
	if !ok && s.rebuilt && old == nil {
		// It has what the stores lost with the process before: repeating or skipping something is all that could be
		// done here, so it begins anew.
		settled, known := s.handled, s.hLocked(s.out.most)
		s.mu.Unlock()
		s.log.Error("client has more than is known of its session, which ends", "h", h, "known", known)
		sv.metrics.resumes.WithLabelValues("too-high").Inc()
		sv.end(s, nil)
		st.control(smFailed("item-not-found", &settled))
		return nil
	}
	if !ok {
		sent := s.hLocked(s.out.most)
		// The old stream is cut all the same: its reader was told to stop.
		s.stream = nil
		s.mu.Unlock()
		if old != nil {
			old.conflict("the session was asked for by another stream")
			sv.await(s)
		}
		sv.metrics.resumes.WithLabelValues("too-high").Inc()
		return countError{uint32(h), sent}
	}
	var age time.Duration
	if !s.detached.IsZero() {
		age = time.Since(s.detached)
	}
	if err := sv.journal.Count(journal.KindAcked, s.ord, place); err != nil {
		s.mu.Unlock()
		if old != nil {
			old.finish(Broken) // it is deaf already; its loss detaches the session
		}
		return err
	}
	done := s.ackLocked(place, nil)
	sid := s.dropLocked() // the client is not on that transport any more
	s.attachLocked(st, s.out.acked)
	settled := s.handled
	s.settled = settled // settleNow saw to it, and a later <a h/> may not say less
	err = s.noteLocked()
	st.session.Store(s)
	st.state, st.log = bound, s.log
	// The journal has every handled stanza, so a killed gateway answers with the same count.
	st.promise([]byte("<resumed xmlns='"+stanza.NSSM+"' previd='"+token+"' h='"+strconv.FormatUint(uint64(settled), 10)+"'/>"), 0)
	s.mu.Unlock()
	sv.forgetSid(sid)
	if old != nil {
		old.conflict("the session was resumed by another stream")
	}
	s.afterAck(done)
	if err != nil {
		return err
	}
	s.log.Info("session resumed", "address", st.peer.Addr, "transport", st.peer.Kind, "queued", s.queued(), "takeover", old != nil)
	sv.metrics.resumes.WithLabelValues("resumed").Inc()
	sv.metrics.resumeAge.Observe(age.Seconds())
	sv.resumeDrain(s)
	sv.drainMore(s)
	st.transport.Wake()
	return nil
}

// attachLocked gives the session to a stream, whose client has been sent the outbox up to sent.
func (s *Session) attachLocked(st *stream, sent uint64) {
	if s.expiry != nil {
		s.expiry.Stop()
		s.expiry = nil
	}
	s.detached, s.stream = time.Time{}, st
	s.out.sent, s.asked = sent, sent
	s.asking, s.probing, s.owed = false, false, false
}

func (s *Session) attached() *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream
}

// seize stops whatever stream a session has, makes what it handled safe, and returns that stream, nil if there is none,
// with the session's mu held. Whatever the old stream is handling is counted before the client hears the count.
func (st *stream) seize(s *Session) (old *stream, err error) {
	for {
		s.mu.Lock()
		old = s.stream
		s.mu.Unlock()
		if old != nil {
			old.inMu.Lock()
			old.over = true
			old.inMu.Unlock()
		}
		if err := s.settleNow(); err != nil {
			if old != nil && !retryable(err) {
				old.finish(Broken) // it is deaf already; its loss detaches the session
			}
			return nil, err
		}
		s.mu.Lock()
		switch {
		case s.stream == old:
			return old, nil
		case s.stream == nil:
			return nil, nil // lost meanwhile
		}
		s.mu.Unlock() // another stream was quicker: take over from that one
	}
}

// settleNow makes everything that was handled safe, so that <resumed h='…'/> may cover it.
func (s *Session) settleNow() error {
	s.mu.Lock()
	safe := s.settled == s.handled
	s.mu.Unlock()
	if safe {
		return nil
	}
	// Briefly, for checkpoints wait meanwhile, and everybody else for them: a journal that is away is waited for with
	// nothing held.
	ctx, cancel := context.WithTimeout(s.sv.ctx, briefly)
	defer cancel()
	err := s.sv.journal.Settle(ctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && s.sv.ctx.Err() == nil:
		return errors.Join(ErrBusy, err)
	}
	return fmt.Errorf("settle before resumption: %w", err)
}

func (s *Session) queued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.n
}

// askLocked adds <r/> to a batch when enough was sent since the last one, or has the client asked soon. It reports
// whether a client without XEP-0198 is to be probed at once.
func (s *Session) askLocked(b *Batch) (probe bool) {
	if !s.managed {
		if s.out.sent == s.out.acked {
			return false
		}
		if !s.asking {
			s.asking = true
			s.sv.settle.ask(s)
		}
		probe = !s.probing && (s.out.n >= probeStanzas || s.sv.cfg.OutboxBytes > 0 && s.out.bytes >= s.sv.cfg.OutboxBytes/8)
		if probe {
			s.probing, s.probed = true, time.Now()
		}
		return probe
	}
	unasked := s.out.sent - min(s.out.sent, max(s.asked, s.base))
	switch {
	case unasked == 0:
	case s.sv.cfg.RequestEvery > 0 && unasked >= uint64(s.sv.cfg.RequestEvery):
		b.Frames = append(b.Frames, requestFrame)
		s.asked = s.out.sent
	case !s.asking:
		s.asking = true
		s.sv.settle.ask(s)
	}
	return false
}
