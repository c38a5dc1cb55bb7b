package offline

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"holdfast/stanza"
)

// Purges keeps what operators ask for beside running gateways: to empty a mailbox. Only the user's home can do that
// without breaking into what is under way there, so a request waits in the store until the gateway that is the home
// carries it out. A request is about messages up to an id; so it may be carried out late, or twice, and takes nothing
// that came after it.
type Purges interface {
	// AskPurge asks for the messages of user up to the id to, and returns the request's number.
	AskPurge(ctx context.Context, user string, to stanza.ID) (seq int64, err error)
	// PendingPurges returns up to n requests that are not done, with numbers greater than after, oldest first.
	PendingPurges(ctx context.Context, after int64, n int) ([]Purge, error)
	// Purged notes that so many more messages were removed for a request, and whether that was all.
	Purged(ctx context.Context, seq int64, removed int, done bool) error
	// PurgeOutcome is what became of a request, or ErrNoPurge.
	PurgeOutcome(ctx context.Context, seq int64) (removed int, done bool, err error)
	// PrunePurges forgets requests that are done and older than before.
	PrunePurges(ctx context.Context, before time.Time) error
}

// Purge is one request.
type Purge struct {
	Seq  int64
	User string    // bare JID
	To   stanza.ID // the last message
}

// ErrNoPurge says that there is no such request.
var ErrNoPurge = errors.New("offline: no such request to purge")

// PurgeBound is the id up to which a request is about what is stored for user now: all that was taken until now by this
// machine's clock, and whatever the store has of gateways whose clocks are ahead.
func PurgeBound(ctx context.Context, store Backend, user string) (stanza.ID, error) {
	t, err := store.Totals(ctx, user)
	if err != nil {
		return stanza.ID{}, err
	}
	if now := before(idAt(time.Now().Add(time.Millisecond))); now.Compare(t.Last) > 0 {
		return now, nil
	}
	return t.Last, nil
}

const (
	purgesEvery = time.Second // how often requests are looked for
	purgesPage  = 100
	purgesKept  = time.Hour // how long the outcome can be asked for
	purgesPrune = 10 * time.Minute
)

// RunPurges carries out the requests for the users that are Config.Mine, until ctx ends: within a second or two. purge
// removes the messages of a user up to an id, and says how many they were, also beside an error.
func (m *Mailbox) RunPurges(ctx context.Context, requests Purges, purge func(context.Context, stanza.Addr, stanza.ID) (int, error)) {
	tick := time.NewTicker(purgesEvery)
	defer tick.Stop()
	prune := time.NewTicker(purgesPrune)
	defer prune.Stop()
	failing := false
	for {
		err := m.carryOutPurges(ctx, requests, purge)
		if err != nil && ctx.Err() == nil && !failing {
			m.log.Warn("a mailbox was not purged and will be again", slog.Any("error", err))
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-prune.C:
			if err := requests.PrunePurges(ctx, time.Now().Add(-purgesKept)); err != nil && ctx.Err() == nil {
				m.log.Warn("requests to purge mailboxes were not pruned", slog.Any("error", err))
			}
		}
	}
}

// carryOutPurges goes through all requests once. One that fails does not keep the others waiting.
func (m *Mailbox) carryOutPurges(ctx context.Context, requests Purges, purge func(context.Context, stanza.Addr, stanza.ID) (int, error)) error {
	var errs []error
	for after := int64(0); ; {
		page, err := requests.PendingPurges(ctx, after, purgesPage)
		if err != nil {
			return err
		}
		for _, p := range page {
			after = p.Seq
			if err := m.carryOutPurge(ctx, requests, p, purge); err != nil {
				errs = append(errs, err)
			}
		}
		if len(page) < purgesPage {
			return errors.Join(errs...)
		}
	}
}

func (m *Mailbox) carryOutPurge(
	ctx context.Context, requests Purges, p Purge, purge func(context.Context, stanza.Addr, stanza.ID) (int, error),
) error {
	user, err := stanza.ParseAddr(p.User)
	if err != nil { // nobody can have it
		return errors.Join(err, requests.Purged(ctx, p.Seq, 0, true))
	}
	if !m.mine(ctx, user) {
		return nil
	}
	n, err := purge(ctx, user, p.To)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, requests.Purged(ctx, p.Seq, n, false))
		}
		return err
	}
	// What was asked for is done when the store shows it. An error may be about somebody else's write.
	_ = m.writes.Flush(ctx)
	left := false
	err = m.store.Scan(ctx, p.User, Range{To: p.To}, func(Row) bool {
		left = true
		return false
	})
	if err == nil && (n > 0 || !left) {
		err = requests.Purged(ctx, p.Seq, n, !left)
	}
	return err
}

// Upto returns the ids of up to most messages of user that are not greater than to, in no particular order; none when
// there are no more.
func (m *Mailbox) Upto(ctx context.Context, user stanza.Addr, to stanza.ID, most int) (ids []stanza.ID, err error) {
	err = m.with(ctx, user, func(b *box) error {
		for _, w := range b.puts {
			if len(ids) >= most || w.change.ID.Compare(to) > 0 {
				break
			}
			ids = append(ids, w.change.ID)
		}
		if b.inStore() == 0 {
			return nil
		}
		return m.store.Scan(ctx, b.name, Range{To: to}, func(r Row) bool {
			if len(ids) >= most {
				return false
			}
			if _, put := b.find(r.ID); !put && b.removing[r.ID] == 0 {
				ids = append(ids, r.ID)
			}
			return true
		})
	})
	return ids, err
}
