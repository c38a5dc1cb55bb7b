package session

import (
	"context"
	"sync"
	"time"
)

// settler collects the sessions that wait for something: for the journal to be safe, so that <a h/> may say more; or
// for their client to be asked what it has.
type settler struct {
	wake chan struct{} // somebody waits
	due  chan struct{} // somebody is to be asked

	mu      sync.Mutex
	waiting []*Session // handled more than is settled
	toAsk   []*Session // sent more than was asked about
}

func (t *settler) wait(s *Session) {
	t.mu.Lock()
	t.waiting = append(t.waiting, s)
	first := len(t.waiting) == 1
	t.mu.Unlock()
	if first {
		signal(t.wake)
	}
}

func (t *settler) ask(s *Session) {
	t.mu.Lock()
	t.toAsk = append(t.toAsk, s)
	first := len(t.toAsk) == 1
	t.mu.Unlock()
	if first {
		signal(t.due)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (t *settler) takeWaiting() (list []*Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list, t.waiting = t.waiting, nil
	return list
}

func (t *settler) takeToAsk() (list []*Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list, t.toAsk = t.toAsk, nil
	return list
}

const (
	// A client is asked for an acknowledgement this long after the last stanza it was not asked about.
	askDelay = 50 * time.Millisecond
	// A client without XEP-0198 is asked for a sign of life this often while something is unproved, or as soon
	// as so many stanzas are.
	probeEvery   = time.Second
	probeStanzas = 256
)

// settleLoop makes the journal safe for those who wait for it. It sleeps while nobody does.
func (sv *Service) settleLoop() {
	for {
		select {
		case <-sv.ctx.Done():
			return
		case <-sv.settle.wake:
		}
		if !sv.sleep(sv.cfg.SettleWindow) {
			return
		}
		sv.settled(sv.settle.takeWaiting())
	}
}

// askLoop asks clients what they have. It sleeps while there is nobody to be asked.
func (sv *Service) askLoop() {
	var toAsk []*Session
	for {
		if len(toAsk) == 0 {
			select {
			case <-sv.ctx.Done():
				return
			case <-sv.settle.due:
			}
		}
		if !sv.sleep(askDelay) {
			return
		}
		toAsk = sv.ask(append(toAsk, sv.settle.takeToAsk()...), time.Now())
	}
}

func (sv *Service) sleep(d time.Duration) bool { return sleepFor(sv.ctx, d) }

// sleepFor waits, and reports false when ctx ends.
func sleepFor(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// settled makes the journal safe and tells the clients that asked for it.
func (sv *Service) settled(waiting []*Session) {
	if len(waiting) == 0 {
		return
	}
	counts := make([]uint32, len(waiting))
	for i, s := range waiting {
		s.mu.Lock()
		counts[i] = s.handled
		s.settling = false // what is handled from now on waits for the next round
		s.mu.Unlock()
	}
	start := time.Now()
	if err := sv.journal.Settle(sv.ctx); err != nil {
		if sv.ctx.Err() != nil {
			return // the end: the journal is closed in order, and clients hear when they come back
		}
		sv.log.Error("journal not safe, acknowledgements wait", "error", err)
		for _, s := range waiting {
			s.awaitSettle()
		}
		sv.sleep(time.Second)
		return
	}
	sv.metrics.settleTime.Observe(time.Since(start).Seconds())
	for i, s := range waiting {
		s.mu.Lock()
		if int32(counts[i]-s.settled) > 0 { // a resumption may have been quicker
			s.settled = counts[i]
		}
		if s.owed && s.stream != nil {
			s.stream.control(ackFrame(s.settled))
		}
		if s.settled == s.handled {
			s.owed = false
		}
		s.mu.Unlock()
	}
}

// awaitSettle puts the session on the list again.
func (s *Session) awaitSettle() {
	s.mu.Lock()
	first := !s.settling
	s.settling = true
	s.mu.Unlock()
	if first {
		s.sv.settle.wait(s)
	}
}

// ask requests acknowledgements, and signs of life where there are none, and returns who is to be asked later.
func (sv *Service) ask(list []*Session, now time.Time) (later []*Session) {
	for _, s := range list {
		s.mu.Lock()
		st := s.stream
		if st == nil || s.ended {
			s.asking = false
			s.mu.Unlock()
			continue
		}
		if s.managed {
			due := s.asked < s.out.sent
			s.asked, s.asking = s.out.sent, false
			s.mu.Unlock()
			if due {
				st.control(requestFrame)
			}
			continue
		}
		unproved := s.out.sent > s.out.acked
		due := unproved && !s.probing && (now.Sub(s.probed) >= probeEvery || s.out.n >= probeStanzas)
		if due {
			s.probing, s.probed = true, now
		}
		s.asking = unproved
		s.mu.Unlock()
		if due {
			st.transport.Probe()
		}
		if unproved {
			later = append(later, s)
		}
	}
	return later
}
