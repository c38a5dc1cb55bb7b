package resume

import (
	"context"
	"errors"
	"maps"
	"os"
	"testing"
	"time"

	"pgregory.net/rapid"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// story is a random life of a gateway: what it did, and what it must find again after each kill.
type story struct {
	*rapid.T
	w    writes
	live *sessions
	over map[string]uint32 // token -> h

	// The mailbox and the packet cache: what is true, and what their tables had at the last checkpoint that
	// reached them.
	mailbox, cache map[stanza.ID]bool
	tables         tables
}

type tables struct{ mailbox, cache map[stanza.ID]bool }

func newStory(t *rapid.T) *story {
	s := &story{T: t, live: newSessions(), over: map[string]uint32{}, mailbox: map[stanza.ID]bool{}, cache: map[stanza.ID]bool{}}
	s.tables = tables{map[stanza.ID]bool{}, map[stanza.ID]bool{}}
	return s
}

var errTable = errors.New("disk full in this test")

// history is the story of a gateway on one machine.
type history struct {
	*story
	p      *process
	images []string
}

func (h *story) pick(name string) *peer {
	ords := h.live.ords()
	if len(ords) == 0 {
		h.Skip("nobody is there")
	}
	return h.live.byOrd[rapid.SampledFrom(ords).Draw(h.T, name)]
}

func (h *story) sender() *peer {
	if s := h.pick("sender"); s.state.Managed {
		return s
	}
	return nil
}

func (h *story) Bind(t *rapid.T) {
	h.T = t
	if len(h.live.byOrd) >= 5 {
		t.Skip("enough")
	}
	bind(h, h.w, h.live, rapid.Bool().Draw(t, "managed"))
}

func (h *story) Enable(t *rapid.T) {
	h.T = t
	s := h.pick("who")
	if s.state.Managed {
		t.Skip("is on")
	}
	enable(h, h.w, s)
}

func (h *story) Deliver(t *rapid.T) {
	h.T = t
	from, one, two := h.sender(), h.pick("recipient"), h.pick("second recipient")
	st := chat(rapid.StringMatching("[a-z]{0,300}").Draw(t, "body"))
	flags := journal.Flags(0)
	if rapid.Bool().Draw(t, "awaits") {
		flags |= journal.Awaits
		h.cache[st.ID] = true
	}
	to := []*peer{one}
	if two != one {
		to, flags = append(to, two), flags|journal.Copied
	}
	deliver(h, h.w, from, st, flags, to...)
}

func (h *story) Handle(t *rapid.T) {
	h.T = t
	s := h.sender()
	if s == nil {
		t.Skip("does not count")
	}
	// Counts in long strides come to the wrap sooner (XEP-0198 §4).
	s.handled += rapid.SampledFrom([]uint32{1, 1, 1, 1 << 30}).Draw(t, "stanzas")
	s.dirty = true
	must(h, h.w.out().Count(journal.KindHandled, s.state.Ord, uint64(s.handled)))
}

func (h *story) Ack(t *rapid.T) {
	h.T = t
	s := h.pick("who")
	if len(s.queue) == 0 {
		t.Skip("nothing sent")
	}
	ack(h, h.w, s, rapid.IntRange(1, len(s.queue)).Draw(t, "stanzas"))
}

func (h *story) Note(t *rapid.T) {
	h.T = t
	s := h.pick("who")
	s.state.Priority = rapid.Int8().Draw(t, "priority")
	s.state.Detached = time.Time{}
	if rapid.Bool().Draw(t, "detached") {
		s.state.Detached = time.UnixMilli(rapid.Int64Range(1, 4e12).Draw(t, "since"))
	}
	s.dirty = true
	must(h, h.w.out().Session(s.state))
}

func (h *story) End(t *rapid.T) {
	h.T = t
	s := h.pick("who")
	for _, q := range s.queue {
		must(h, h.w.out().Stanza(&journal.Stanza{Stanza: q.Stanza, Flags: journal.Stored}))
		h.mailbox[q.Stanza.ID] = true
	}
	finish(h, h.w, h.live, s)
	if s.state.Token != "" {
		h.over[s.state.Token] = s.handled
	}
}

func (h *story) Store(t *rapid.T) {
	h.T = t
	st := chat("later")
	rec := &journal.Stanza{Stanza: st, Flags: journal.Stored}
	if s := h.sender(); s != nil {
		s.handled++
		s.dirty = true
		rec.Origin, rec.N = s.state.Ord, s.handled
	}
	must(h, h.w.out().Stanza(rec))
	h.mailbox[st.ID] = true
}

func (h *story) Unstore(t *rapid.T) {
	h.T = t
	id := some(t, h.mailbox)
	must(h, h.w.out().IDs(journal.KindUnstored, bob, []stanza.ID{id}))
	delete(h.mailbox, id)
}

func (h *story) Prove(t *rapid.T) {
	h.T = t
	id := some(t, h.cache)
	must(h, h.w.out().IDs(journal.KindProved, stanza.Addr{}, []stanza.ID{id}))
	delete(h.cache, id)
}

func some(t *rapid.T, set map[stanza.ID]bool) stanza.ID {
	var ids []stanza.ID
	for id := range set {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		t.Skip("empty")
	}
	least := ids[0]
	for _, id := range ids {
		if id.Compare(least) < 0 {
			least = id
		}
	}
	return least // the order of a map is not drawn by rapid
}

// Checkpoint makes one, which may fail or be cut short by a kill at each point where that makes a difference.
func (h *history) Checkpoint(t *rapid.T) {
	h.T = t
	const (
		whole = iota
		databaseFails
		mailboxFails
		cacheFails
		killedBeforeWrite
		killedAfterWrite
		killedBetweenStores
		killedBeforeFree
	)
	how := rapid.IntRange(whole, killedBeforeFree).Draw(t, "how")
	var killed string
	var had tables
	kill := func(at int) {
		if how == at {
			killed, had = image(h, h.p.dir), h.tables
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h.live.hook = func() {
		kill(killedBeforeWrite)
		if how == databaseFails {
			cancel()
		}
	}
	err := h.p.store.Checkpoint(ctx, h.live, flusher(func(context.Context) error {
		kill(killedAfterWrite)
		if how == mailboxFails {
			return errTable
		}
		h.tables.mailbox = maps.Clone(h.mailbox)
		kill(killedBetweenStores)
		return nil
	}), flusher(func(context.Context) error {
		if how == cacheFails {
			return errTable
		}
		h.tables.cache = maps.Clone(h.cache)
		kill(killedBeforeFree)
		return nil
	}))
	h.live.hook = nil
	if fails := how == databaseFails || how == mailboxFails || how == cacheFails; (err != nil) != fails {
		t.Fatalf("checkpoint %d: %v", how, err)
	}
	if healthy := h.p.store.Healthy() == nil; healthy != (err == nil) {
		t.Fatalf("healthy: %v after a checkpoint that said %v", healthy, err)
	}
	if killed != "" {
		h.tables = had
		h.images = append(h.images, killed)
		h.goOn(killed)
	}
}

// Kill ends the process at a random moment.
func (h *history) Kill(t *rapid.T) {
	h.T = t
	dir := image(h, h.p.dir)
	h.images = append(h.images, dir)
	h.goOn(dir)
}

// Stop ends the process properly, with or without a last checkpoint.
func (h *history) Stop(t *rapid.T) {
	h.T = t
	h.p.stop(h)
	h.begin(h.p.dir)
	h.live.restart()
}

// goOn opens what a kill left, twice, since a process may be killed right after it began.
func (h *history) goOn(dir string) {
	h.p.stop(h)
	h.begin(dir)
	again := image(h, dir)
	h.images = append(h.images, again)
	h.p.stop(h)
	h.begin(again)
	h.live.restart()
}

func (h *history) begin(dir string) {
	h.p = start(h, dir, testConfig())
	h.w = h.p
	h.check(h.p.found)
}

func (h *story) check(found *Recovered) {
	h.Helper()
	if err := same(found, h.live); err != nil {
		h.Fatalf("%v", err)
	}
	for token, handled := range h.over {
		if got, ok := h.w.out().Recall(token, bob); !ok || got != handled {
			h.Fatalf("ended session %s: %d %v, want %d", token, got, ok, handled)
		}
	}
	// The tables may be what they were at the last checkpoint, or newer.
	h.checkEffects(found, "old", h.tables.mailbox, h.tables.cache)
	h.checkEffects(found, "new", h.mailbox, h.cache)
}

func (h *story) checkEffects(found *Recovered, what string, mailbox, cache map[stanza.ID]bool) {
	h.Helper()
	mailbox, cache = maps.Clone(mailbox), maps.Clone(cache)
	for _, e := range found.Effects {
		switch e.Kind {
		case journal.KindStanza:
			if e.Stanza.Flags&journal.Stored != 0 {
				mailbox[e.Stanza.Stanza.ID] = true
			}
			if e.Stanza.Flags&journal.Awaits != 0 {
				cache[e.Stanza.Stanza.ID] = true
			}
		case journal.KindUnstored:
			for _, id := range e.IDs {
				delete(mailbox, id)
			}
			if e.User != bob {
				h.Fatalf("messages of %s removed", e.User)
			}
		case journal.KindProved:
			for _, id := range e.IDs {
				delete(cache, id)
			}
		default:
			h.Fatalf("effect of kind %d", e.Kind)
		}
	}
	if !maps.Equal(mailbox, h.mailbox) {
		h.Fatalf("%s mailbox holds %d messages, want %d", what, len(mailbox), len(h.mailbox))
	}
	if !maps.Equal(cache, h.cache) {
		h.Fatalf("%s packet cache holds %d messages, want %d", what, len(cache), len(h.cache))
	}
}

// Check is for after each step: the store shows nothing of what it holds before the next start.
func (h *story) Check(*rapid.T) {}

// Whatever happened and whenever the process was killed, the next one finds every session as it was (the delivery
// contract of the gateway: acknowledged means safe), and what the journal repeats changes nothing.
func TestModel(t *testing.T) {
	base := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(base, "data")
		if err != nil {
			t.Fatal(err)
		}
		h := &history{story: newStory(t), images: []string{dir}}
		h.p = start(h, dir, testConfig())
		h.w = h.p
		defer func() {
			_ = errors.Join(h.p.store.Close(), h.p.db.Close())
			for _, dir := range h.images {
				_ = os.RemoveAll(dir)
			}
		}()
		t.Repeat(rapid.StateMachineActions(h))
		h.T = t
		final := image(h, h.p.dir)
		h.images = append(h.images, final)
		h.goOn(final)
	})
}
