package session

import (
	"context"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// purgeBatch is how many messages an operator's purge removes at once, while nothing else happens to the user.
const purgeBatch = 500

// PurgeMailbox takes the messages of a user up to the id to out of the mailbox, as the operator asked, and reports how
// many they were, also beside an error. It may be repeated. ErrElsewhere says that another node is the user's home. What
// is on its way to a client already may still arrive there.
func (sv *Service) PurgeMailbox(ctx context.Context, user stanza.Addr, to stanza.ID) (removed int, err error) {
	for {
		if err := sv.journal.Room(ctx); err != nil {
			return removed, err
		}
		n, err := sv.purgeSome(user, to)
		removed += n
		if n == 0 || err != nil {
			return removed, err
		}
	}
}

func (sv *Service) purgeSome(user stanza.Addr, to stanza.ID) (removed int, err error) {
	sv.enter()
	defer sv.leave()
	sv.router.Locked(user, func(Table) {
		if !sv.here(user) {
			err = ErrElsewhere
			return
		}
		var ids []stanza.ID
		if ids, err = sv.mailbox.Upto(user, to, purgeBatch); err != nil || len(ids) == 0 {
			return
		}
		// In the journal first: a record without an effect is one of a purge that is repeated.
		if err = sv.journal.IDs(journal.KindUnstored, user, ids); err != nil {
			return
		}
		if err = sv.mailbox.Discard(user, ids...); err == nil {
			removed = len(ids)
		}
	})
	return removed, err
}
