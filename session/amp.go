package session

import (
	"time"

	"holdfast/amp"
	"holdfast/stanza"
)

// Advanced Message Processing (XEP-0079) is carried out where a message is routed, at its recipient's home and under the
// recipient's lock: what a rule is held against is what is about to happen.

// routeHere has Router decide who gets a message, whose rules are looked at first.
func (sv *Service) routeHere(from *Session, st *stanza.Stanza) error {
	if sv.cfg.AMP && st.Payloads()&stanza.AMP != 0 {
		var done bool
		var err error
		if st, done, err = sv.checkRules(from, st); done || err != nil {
			return err
		}
	}
	return sv.router.Message(from, st)
}

// checkRules refuses a message whose rules can't be followed, and puts the addresses into the others' (§5.1).
func (sv *Service) checkRules(from *Session, st *stanza.Stanza) (checked *stanza.Stanza, done bool, err error) {
	rules, refusal, specific := amp.Of(st)
	if rules != nil && refusal == nil {
		if telling := rules.Reports(); len(telling) > 0 && !sv.cfg.AMPStrangers {
			ok, err := sv.maySee(st.From.Bare(), st.To.Bare())
			if err != nil {
				return st, false, err
			}
			if !ok {
				refusal, specific = amp.Refuse(telling)
			}
		}
	}
	if refusal != nil {
		sv.metrics.bounced.WithLabelValues(string(refusal.Condition)).Inc()
		return st, true, sv.tellSender(from, amp.Refusal(st, *refusal, specific))
	}
	if rules == nil {
		return st, false, nil
	}
	if child, ok := st.Find(amp.NS, "amp"); ok {
		if marked, err := stanza.Parse(amp.Marked(st.Raw(), child, st.From, st.To), st.ID); err == nil {
			st = marked
		}
	}
	return st, false, nil
}

// rulesOf is what a message that was checked asks for, nil when that is nothing.
func (sv *Service) rulesOf(st *stanza.Stanza) *amp.Ruleset {
	if !sv.cfg.AMP || st.Payloads()&stanza.AMP == 0 {
		return nil
	}
	rules, _, _ := amp.Of(st)
	return rules
}

// ruled carries out the rule that decides, after those that only tell.
func (sv *Service) ruled(from *Session, st *stanza.Stanza, notify []amp.Rule, decides amp.Rule) error {
	if err := sv.notified(from, st, notify); err != nil {
		return err
	}
	sv.metrics.rules.WithLabelValues(decides.Condition, string(decides.Action)).Inc()
	return sv.tellSender(from, amp.Report(st, decides))
}

func (sv *Service) notified(from *Session, st *stanza.Stanza, notify []amp.Rule) error {
	for _, r := range notify {
		sv.metrics.rules.WithLabelValues(r.Condition, string(r.Action)).Inc()
		if err := sv.tellSender(from, amp.Report(st, r)); err != nil {
			return err
		}
	}
	return nil
}

// deliverByRules is Deliver for a message with rules. A message that waits for clients that are away counts as stored.
func (sv *Service) deliverByRules(rules *amp.Ruleset, from *Session, st *stanza.Stanza, targets []*Session) (int, error) {
	o := amp.Outcome{Delivery: amp.Stored, Bare: st.To.IsBare(), At: time.Now()}
	for _, s := range targets {
		s.mu.Lock()
		if s.stream != nil && !s.ended && !s.spilling {
			o.Delivery = amp.Direct
		}
		if s.addr == st.To {
			o.Intended = true
		} else {
			o.Others = true
		}
		s.mu.Unlock()
	}
	notify, decides, decided := rules.Decide(o)
	if decided {
		return 1, sv.ruled(from, st, notify, decides)
	}
	n, err := sv.deliver(from, st, targets, sv.awaits(st))
	if err == nil && n > 0 {
		err = sv.notified(from, st, notify)
	}
	return n, err
}

// storeByRules is Store for one.
func (sv *Service) storeByRules(rules *amp.Ruleset, from *Session, user stanza.Addr, st *stanza.Stanza) (Verdict, bool, error) {
	o := amp.Outcome{Delivery: amp.Stored, Bare: st.To.IsBare(), At: time.Now()}
	if !sv.mailbox.Storable(st) {
		o.Delivery = amp.None
	}
	notify, decides, decided := rules.Decide(o)
	if decided {
		return Verdict{}, true, sv.ruled(from, st, notify, decides)
	}
	v, err := sv.store(from, user, st, false)
	if err != nil {
		return v, false, err
	}
	switch v.Fate {
	case Kept:
		err = sv.notified(from, st, notify)
	case Dropped:
		if o.Delivery == amp.None {
			err = sv.notified(from, st, notify)
		}
	case Refused: // Unroutable has the last word
		return v, false, nil
	}
	return v, true, err
}

// unroutableByRules reports whether a rule decides about a message that nobody gets.
func (sv *Service) unroutableByRules(rules *amp.Ruleset, from *Session, st *stanza.Stanza) (decided bool, err error) {
	notify, decides, decided := rules.Decide(amp.Outcome{Delivery: amp.None, Bare: st.To.IsBare(), At: time.Now()})
	if decided {
		return true, sv.ruled(from, st, notify, decides)
	}
	return false, sv.notified(from, st, notify)
}

// ampInfo is what the disco node of AMP says (§3.1).
var ampInfo = []byte("<query xmlns='" + nsDiscoInfo + "' node='" + amp.NS + "'>" +
	string(info("category='server' type='im' name='Holdfast'", amp.Features)[len("<query xmlns='"+nsDiscoInfo+"'>"):]))
