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
	// Effects are what the journal knows of the other stores, in the order in which it happened.
	Effects []Effect
}

// Effect is one change that may or may not have reached its store.
type Effect struct {
	Kind   journal.Kind // KindStanza, KindUnstored or KindProved
	Stanza *journal.Stanza
	User   stanza.Addr
	IDs    []stanza.ID
}

// recovery builds a Recovered out of the database and then the journal.
type recovery struct {
	sessions map[uint64]*Session
	effects  []Effect
	ended    []endedSession
	log      *slog.Logger
	skipped  int
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
	case journal.KindHandled, journal.KindAcked, journal.KindEnded:
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
		if s.State != nil && !s.State.Managed && state.Managed {
			s.Handled = 0 // XEP-0198 begins to count
		}
		s.State = state
	case journal.KindUnstored, journal.KindProved:
		user, ids, err := journal.DecodeIDs(b)
		if err != nil {
			return err
		}
		r.effects = append(r.effects, Effect{Kind: kind, User: user, IDs: ids})
	default:
		return fmt.Errorf("resume: unknown record kind %d", kind)
	}
	return nil
}

func (r *recovery) stanza(rec *journal.Stanza) {
	if s := r.sessions[rec.Origin]; s != nil {
		s.handled(rec.N)
	}
	for _, t := range rec.Targets {
		if s := r.sessions[t.Session]; s != nil {
			s.queue(t.Pos, rec)
		}
	}
	if rec.Flags&(journal.Stored|journal.Awaits) != 0 {
		r.effects = append(r.effects, Effect{Kind: journal.KindStanza, Stanza: rec})
	}
}

func (r *recovery) count(kind journal.Kind, ord, count uint64) {
	s := r.sessions[ord]
	if s == nil {
		return
	}
	switch kind {
	case journal.KindHandled:
		s.handled(uint32(count))
	case journal.KindAcked:
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
	if s.begun && len(s.Queue) == 0 && place > s.Acked+1 {
		// What came before was in segments that are gone, with the session itself: it has ended since, or
		// a checkpoint has it, and then it would not have begun here.
		s.Acked = place - 1
	}
	if place == s.Acked+uint64(len(s.Queue))+1 {
		s.Queue = append(s.Queue, rec)
	}
}

func (s *Session) acked(place uint64) {
	n := min(place-min(place, s.Acked), uint64(len(s.Queue)))
	s.Queue = s.Queue[n:]
	s.Acked = max(s.Acked, place)
}

func (r *recovery) result() *Recovered {
	out := &Recovered{Effects: r.effects}
	for _, ord := range slices.Sorted(maps.Keys(r.sessions)) {
		if s := r.sessions[ord]; s.State != nil {
			out.Sessions = append(out.Sessions, s)
		}
	}
	return out
}

// load reads the database.
func (r *recovery) load(ctx context.Context, db *checkpoints) error {
	return db.load(ctx, func(s *Session) { r.sessions[s.State.Ord] = s })
}
