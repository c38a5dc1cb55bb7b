package session

import (
	"cmp"
	"maps"
	"slices"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// disk is what a kill of the process leaves: the journal since the last checkpoint, and what checkpoints wrote. Its
// recovery is that of package resume and cmd/gateway in a few lines; resume's own tests have the real one.
type disk struct {
	sessions map[uint64]*Restored
	boxes    map[stanza.Addr][]*stanza.Stanza
	gone     []uint64 // sessions whose end is only in the journal
}

func newDisk() *disk {
	return &disk{sessions: make(map[uint64]*Restored), boxes: make(map[stanza.Addr][]*stanza.Stanza)}
}

// checkpoint writes what changed and lets the journal forget.
func (w *world) checkpoint(d *disk) {
	c := w.sv.Checkpoint(func() {})
	d.write(c)
	c.Commit()
	d.boxes = make(map[stanza.Addr][]*stanza.Stanza)
	for user, box := range w.box.boxes {
		d.boxes[user] = slices.Clone(box)
	}
}

// write takes what a checkpoint has of sessions.
func (d *disk) write(c *Checkpoint) {
	for _, ch := range c.Changed {
		s := d.sessions[ch.State.Ord]
		if s == nil {
			s = new(Restored)
			d.sessions[ch.State.Ord] = s
		}
		trim(s, ch.Acked)
		s.State, s.Handled = ch.State, ch.Handled
		for _, q := range ch.Queue {
			enqueue(s, q.Targets[0].Pos, q)
		}
	}
	for _, ord := range append(c.Gone, d.gone...) {
		delete(d.sessions, ord)
	}
	d.gone = nil
}

// copied is what is there of sessions, for the next process to change.
func (d *disk) copied() map[uint64]*Restored {
	sessions := make(map[uint64]*Restored)
	if d == nil {
		return sessions
	}
	for ord, s := range d.sessions {
		state := *s.State
		sessions[ord] = &Restored{State: &state, Handled: s.Handled, Acked: s.Acked, Queue: slices.Clone(s.Queue)}
	}
	return sessions
}

// kill ends the process and starts another one from what is on disk.
func (w *world) kill(d *disk) {
	w.sv.Close()
	sessions := d.copied()
	w.box.boxes = make(map[stanza.Addr][]*stanza.Stanza)
	for user, box := range d.boxes {
		w.box.boxes[user] = slices.Clone(box)
	}
	for _, r := range w.journal.records {
		w.replay(sessions, r)
	}
	var all []Restored
	for _, s := range slices.SortedFunc(maps.Values(sessions), func(a, b *Restored) int { return cmp.Compare(a.State.Ord, b.State.Ord) }) {
		all = append(all, *s)
	}
	for ord := range d.sessions {
		if sessions[ord] == nil {
			d.gone = append(d.gone, ord)
		}
	}
	w.start()
	if err := w.sv.Restore(all); err != nil {
		w.t.Fatalf("restore: %v", err)
	}
}

func (w *world) replay(sessions map[uint64]*Restored, r logged) {
	must := func(err error) {
		if err != nil {
			w.t.Fatalf("journal record of kind %d: %v", r.kind, err)
		}
	}
	handled := func(s *Restored, n uint32) {
		if s != nil && int32(n-s.Handled) > 0 {
			s.Handled = n
		}
	}
	switch r.kind {
	case journal.KindCarried:
		ord, note, err := journal.DecodeCarried(r.b)
		must(err)
		if s := sessions[ord]; s != nil {
			s.State.Carried = note
		}
	case journal.KindStanza:
		rec, err := journal.DecodeStanza(r.b)
		must(err)
		handled(sessions[rec.Origin], rec.N)
		for _, t := range rec.Targets {
			if s := sessions[t.Session]; s != nil {
				enqueue(s, t.Pos, rec)
				if rec.Flags&journal.FromMailbox != 0 && s.State.Taken.Compare(rec.Stanza.ID) < 0 {
					s.State.Taken = rec.Stanza.ID
				}
			}
		}
		if rec.Flags&journal.Stored != 0 {
			w.box.insertLocked(rec.Stanza.To.Bare(), rec.Stanza)
		}
	case journal.KindHandled, journal.KindAcked, journal.KindMoved, journal.KindEnded:
		ord, n, err := journal.DecodeCount(r.b)
		must(err)
		s := sessions[ord]
		switch {
		case s == nil:
		case r.kind == journal.KindHandled:
			handled(s, uint32(n))
		case r.kind == journal.KindAcked, r.kind == journal.KindMoved:
			trim(s, n)
		default:
			delete(sessions, ord)
		}
	case journal.KindSession:
		state, err := journal.DecodeSession(r.b)
		must(err)
		s := sessions[state.Ord]
		if s == nil {
			s = new(Restored)
			sessions[state.Ord] = s
		}
		if s.State != nil && !s.State.Managed && state.Managed {
			s.Handled = 0
		}
		if s.State != nil && state.Taken.Compare(s.State.Taken) < 0 {
			state.Taken = s.State.Taken
		}
		s.State = state
	case journal.KindUnstored:
		user, ids, err := journal.DecodeIDs(r.b)
		must(err)
		if len(ids) == 0 {
			must(w.box.Purge(user))
		}
		must(w.box.Remove(user, ids...))
	case journal.KindForward:
		rec, err := journal.DecodeForward(r.b)
		must(err)
		handled(sessions[rec.Origin], rec.N)
		if rec.Leaves {
			maps.DeleteFunc(sessions, func(_ uint64, s *Restored) bool {
				return s.State.Flags&journal.FlagLink == 0 && s.State.Addr.Bare() == rec.User
			})
		}
	case journal.KindTaken:
		rec, err := journal.DecodeTaken(r.b)
		must(err)
		handled(sessions[rec.Origin], rec.N)
		for _, k := range rec.User.Sessions {
			sessions[k.State.Ord] = &Restored{State: k.State, Handled: k.Handled, Acked: k.Acked, Queue: k.Queue}
		}
	case journal.KindProved, journal.KindDirected:
	}
}

func enqueue(s *Restored, place uint64, rec *journal.Stanza) {
	if place == s.Acked+uint64(len(s.Queue))+1 {
		s.Queue = append(s.Queue, rec)
	}
}

func trim(s *Restored, place uint64) {
	n := min(place-min(place, s.Acked), uint64(len(s.Queue)))
	s.Queue, s.Acked = s.Queue[n:], max(s.Acked, place)
}
