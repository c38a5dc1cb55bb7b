package resume

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// Session is what was stored of one session.
type Session struct {
	State   *journal.Session
	Handled uint32
	Acked   uint64
	Queue   []*journal.Stanza // places Acked+1 and on
	// begun: the place before the first one that we know of is settled by what comes next, since the session
	// was made by a record whose predecessors are gone.
	begun bool
}

// Recovered is what an earlier process left.
type Recovered struct {
	Sessions []*Session
	// Links are what other nodes of a cluster sent, as far as it was carried out.
	Links []*Session
	// Effects are what the journal knows of the other stores, in the order in which it happened.
	Effects []Effect
	// Unsent are messages for other nodes that may not have reached them, in the order of each link.
	Unsent []*journal.Forward
}

// Effect is one change that may or may not have reached its store.
type Effect struct {
	Kind    journal.Kind // KindStanza, KindUnstored, KindProved, KindTaken or, for a user who left, KindForward
	Stanza  *journal.Stanza
	User    stanza.Addr
	IDs     []stanza.ID
	Awaited []journal.Await
}

// recovery builds a Recovered out of a checkpoint and then the journal.
type recovery struct {
	sessions map[uint64]*Session
	effects  []Effect
	ended    []endedSession
	forwards []*journal.Forward
	sent     map[uint64]uint32 // by link: what has reached the other node
	log      *slog.Logger
	skipped  int
}

func newRecovery(log *slog.Logger) *recovery {
	return &recovery{sessions: make(map[uint64]*Session), sent: make(map[uint64]uint32), log: log}
}

// replay takes one record of the journal. A record that can't be read is counted and left out: one bad record must not
// keep a gateway from starting.
func (r *recovery) replay(kind uint8, payload []byte) error {
	if err := r.record(journal.Kind(kind), payload); err != nil {
		r.skipped++
		r.log.Error("journal record not readable", "kind", kind, "error", err)
	}
	return nil
}

func (r *recovery) record(kind journal.Kind, b []byte) error {
	switch kind {
	case journal.KindStanza:
		rec, err := journal.DecodeStanza(b)
		if err != nil {
			return err
		}
		r.stanza(rec)
	case journal.KindHandled, journal.KindAcked, journal.KindMoved, journal.KindEnded:
		ord, count, err := journal.DecodeCount(b)
		if err != nil {
			return err
		}
		r.count(kind, ord, count)
	case journal.KindSession:
		state, err := journal.DecodeSession(b)
		if err != nil {
			return err
		}
		s := r.sessions[state.Ord]
		if s == nil {
			s = &Session{begun: true}
			r.sessions[state.Ord] = s
		}
		if s.State != nil {
			if !s.State.Managed && state.Managed {
				s.Handled = 0 // XEP-0198 begins to count
			}
			state.Directed = s.State.Directed
			if state.Taken.Compare(s.State.Taken) < 0 {
				state.Taken = s.State.Taken
			}
		}
		s.State = state
	case journal.KindDirected:
		ord, to, add, err := journal.DecodeDirected(b)
		if err != nil {
			return err
		}
		if s := r.sessions[ord]; s != nil {
			s.directed(to, add)
		}
	case journal.KindCarried:
		ord, note, err := journal.DecodeCarried(b)
		if err != nil {
			return err
		}
		if s := r.sessions[ord]; s != nil {
			s.State.Carried = note
		}
	case journal.KindUnstored, journal.KindProved:
		user, ids, err := journal.DecodeIDs(b)
		if err != nil {
			return err
		}
		r.effects = append(r.effects, Effect{Kind: kind, User: user, IDs: ids})
	case journal.KindForward:
		rec, err := journal.DecodeForward(b)
		if err != nil {
			return err
		}
		r.forward(rec)
	case journal.KindTaken:
		rec, err := journal.DecodeTaken(b)
		if err != nil {
			return err
		}
		r.taken(rec)
	default:
		return fmt.Errorf("resume: unknown record kind %d", kind)
	}
	return nil
}

func (r *recovery) forward(rec *journal.Forward) {
	if s := r.sessions[rec.Origin]; s != nil {
		s.handled(rec.N)
	}
	if rec.Leaves {
		r.left(rec.User)
	}
	if rec.To != "" {
		r.forwards = append(r.forwards, rec)
	}
	if rec.Origin != 0 {
		// What another link had for a dead node went this way.
		r.reached(rec.Origin, rec.N)
	}
}

// reached notes how far a link's messages have come.
func (r *recovery) reached(link uint64, seq uint32) {
	if last, known := r.sent[link]; !known || int32(seq-last) > 0 {
		r.sent[link] = seq
	}
}

// left forgets a user who has another home: all that was to be done here was done before, and what comes of it since is
// there.
func (r *recovery) left(user stanza.Addr) {
	maps.DeleteFunc(r.sessions, func(_ uint64, s *Session) bool {
		return s.State.Flags&journal.FlagLink == 0 && s.State.Addr.Bare() == user
	})
	r.effects = slices.DeleteFunc(r.effects, func(e Effect) bool {
		if e.Kind == journal.KindStanza {
			return e.Stanza.Stanza.To.Bare() == user
		}
		return e.User == user
	})
	r.effects = append(r.effects, Effect{Kind: journal.KindForward, User: user})
}

// taken is a user who came.
func (r *recovery) taken(rec *journal.Taken) {
	if s := r.sessions[rec.Origin]; s != nil {
		s.handled(rec.N)
	}
	r.reached(rec.Origin, rec.N)
	for i := range rec.User.Sessions {
		k := &rec.User.Sessions[i]
		r.sessions[k.State.Ord] = &Session{State: k.State, Handled: k.Handled, Acked: k.Acked, Queue: k.Queue}
	}
	r.effects = append(r.effects, Effect{Kind: journal.KindTaken, User: rec.User.Addr, Awaited: rec.User.Awaited})
}

func (r *recovery) stanza(rec *journal.Stanza) {
	r.reached(rec.Origin, rec.N)
	if s := r.sessions[rec.Origin]; s != nil {
		s.handled(rec.N)
	}
	for _, t := range rec.Targets {
		if s := r.sessions[t.Session]; s != nil {
			s.queue(t.Pos, rec)
			if rec.Flags&journal.FromMailbox != 0 && s.State.Taken.Compare(rec.Stanza.ID) < 0 {
				s.State.Taken = rec.Stanza.ID
			}
		}
	}
	if rec.Flags&(journal.Stored|journal.Awaits) != 0 {
		r.effects = append(r.effects, Effect{Kind: journal.KindStanza, Stanza: rec})
	}
}

func (r *recovery) count(kind journal.Kind, ord, count uint64) {
	if kind == journal.KindHandled {
		r.reached(ord, uint32(count))
	}
	s := r.sessions[ord]
	if s == nil {
		return
	}
	switch kind {
	case journal.KindHandled:
		s.handled(uint32(count))
	case journal.KindAcked:
		// What came out of the mailbox and needs no receipt is out of it now, if the process lived to say so
		// or not.
		for _, rec := range s.acked(count) {
			if rec.Flags&(journal.FromMailbox|journal.Awaits) == journal.FromMailbox {
				r.effects = append(r.effects, Effect{Kind: journal.KindUnstored, User: s.State.Addr.Bare(), IDs: []stanza.ID{rec.Stanza.ID}})
			}
		}
	case journal.KindMoved:
		s.acked(count)
	case journal.KindEnded:
		delete(r.sessions, ord)
		if s.State.Token != "" {
			r.ended = append(r.ended, endedSession{s.State.Token, s.State.Addr.Bare(), uint32(count), time.Now()})
		}
	}
}

// handled moves the inbound count forward; it wraps (XEP-0198 §4), and older records are no news.
func (s *Session) handled(n uint32) {
	if int32(n-s.Handled) > 0 {
		s.Handled = n
	}
}

func (s *Session) queue(place uint64, rec *journal.Stanza) {
	last := s.Acked
	if n := len(s.Queue); n > 0 {
		last = s.place(s.Queue[n-1])
	}
	if place <= last {
		return // no news
	}
	if s.begun && len(s.Queue) == 0 {
		// What came before was in segments that are gone, with the session itself: it has ended since, or
		// a checkpoint has it, and then it would not have begun here.
		s.Acked = place - 1
	}
	s.Queue = append(s.Queue, rec)
}

// place says where a record stands in this session's outbox.
func (s *Session) place(rec *journal.Stanza) uint64 {
	for _, t := range rec.Targets {
		if t.Session == s.State.Ord {
			return t.Pos
		}
	}
	return 0
}

func (s *Session) acked(place uint64) (done []*journal.Stanza) {
	n := 0
	for n < len(s.Queue) && s.place(s.Queue[n]) <= place {
		n++
	}
	done, s.Queue = s.Queue[:n], s.Queue[n:]
	s.Acked = max(s.Acked, place)
	return done
}

func (s *Session) directed(to string, add bool) {
	switch {
	case to == "":
		s.State.Directed = nil
	case add && !slices.Contains(s.State.Directed, to):
		s.State.Directed = append(s.State.Directed, to)
	case !add:
		s.State.Directed = slices.DeleteFunc(s.State.Directed, func(a string) bool { return a == to })
	}
}

// close closes the gaps that unreadable records left in the queue, and reports whether there were any. The client's
// count means nothing then, so the session can't be resumed; what is left of the queue goes to offline storage.
func (s *Session) close() (gaps bool) {
	for i, rec := range s.Queue {
		place := s.Acked + uint64(i) + 1
		if s.place(rec) == place {
			continue
		}
		moved := *rec
		moved.Targets = []journal.Target{{Session: s.State.Ord, Pos: place}}
		s.Queue[i], gaps = &moved, true
	}
	if gaps {
		s.State.Unresumable()
	}
	return gaps
}

func (r *recovery) result() *Recovered {
	out := &Recovered{Effects: r.effects}
	for _, ord := range slices.Sorted(maps.Keys(r.sessions)) {
		s := r.sessions[ord]
		if s.State == nil {
			continue
		}
		if s.State.Flags&journal.FlagLink != 0 {
			out.Links = append(out.Links, s)
			continue
		}
		if s.close() {
			r.log.Error("stanzas missing in a stored outbox, its session can't be resumed", "user", s.State.Addr.Bare().String(), "left", len(s.Queue))
		}
		out.Sessions = append(out.Sessions, s)
	}
	for _, f := range r.forwards {
		if last, known := r.sent[f.Link]; !known || int32(f.Seq-last) > 0 {
			out.Unsent = append(out.Unsent, f)
		}
	}
	return out
}

// load takes what a checkpoint store has. It comes before the journal.
func (r *recovery) load(ctx context.Context, from interface {
	load(ctx context.Context, yield func(*Session)) error
},
) error {
	return from.load(ctx, func(s *Session) { r.sessions[s.State.Ord] = s })
}
