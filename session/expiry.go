package session

import (
	"time"

	"holdfast/amp"
	"holdfast/stanza"
)

// Messages in the mailbox whose time is over (XEP-0023, XEP-0079 §4.3.2). The mailbox gives them to nobody any more, and
// hands them over here to be taken out: the rules of XEP-0079 may want somebody to be told. A message that a session has
// was given to it in time, and is left to it.

// Expired takes messages of a user out of the mailbox, after their senders were told, and returns those that are out. It
// is ErrElsewhere where this is not the user's home. A process that is killed between the two tells a sender again.
func (sv *Service) Expired(user stanza.Addr, due []*stanza.Stanza) (gone []stanza.ID, err error) {
	sv.enter()
	defer sv.leave()
	var waiting []*stanza.Stanza
	sv.router.Locked(user, func(t Table) {
		if !sv.here(user) {
			err = ErrElsewhere
			return
		}
		for _, st := range due {
			if !sv.heldElsewhere(t, nil, st.ID) {
				waiting = append(waiting, st)
			}
		}
	})
	// With nothing locked: it goes to other users.
	now := time.Now()
	for _, st := range waiting {
		if rules := sv.rulesOf(st); rules != nil {
			if notify, decides, decided := rules.Overdue(now); decided {
				if err := sv.ruled(nil, st, notify, decides); err != nil {
					return nil, err
				}
			}
		}
		gone = append(gone, st.ID)
	}
	if len(gone) == 0 {
		return nil, err
	}
	err = ErrElsewhere
	sv.router.Locked(user, func(Table) {
		if sv.here(user) {
			err = nil
			sv.takeOut(user, gone, sv.mailbox.Discard)
		}
	})
	if err != nil {
		return nil, err // the new home tells the senders too
	}
	return gone, nil
}

// overdue are the messages of the mailbox that were given to a client late, and whose senders wanted to know that.
type overdue struct {
	st    *stanza.Stanza
	rules []amp.Rule
}

// lateRules returns what the sender of a message of the mailbox asked to be told when it is delivered late.
func (sv *Service) lateRules(st *stanza.Stanza) []amp.Rule {
	rules := sv.rulesOf(st)
	if rules == nil {
		return nil
	}
	notify, _, _ := rules.Overdue(time.Now())
	return notify
}

// tellLate tells the senders, with nothing locked.
func (sv *Service) tellLate(late []overdue) {
	if len(late) == 0 {
		return
	}
	sv.loops.Go(func() {
		sv.enter()
		defer sv.leave()
		for _, m := range late {
			if err := sv.notified(nil, m.st, m.rules); err != nil {
				sv.log.Error("sender not told of a late delivery", "error", err)
			}
		}
	})
}
