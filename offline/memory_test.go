package offline_test

import (
	"cmp"
	"context"
	"database/sql"
	"maps"
	"slices"
	"sync"

	"holdfast/offline"
	"holdfast/stanza"
)

// memory is a Backend for tests of what is above it, in virtual time too. It holds the contract of a real one.
type memory struct {
	mu     sync.Mutex
	boxes  map[string]map[stanza.ID]offline.Row
	limits map[string]offline.OwnLimit
	// fail, when set, is asked after each batch is applied; an error rolls it back.
	fail func(batch []offline.Change) error
	// scans counts calls of Totals and Scan.
	scans int
	// puts counts the messages of all OpPut ever applied.
	puts int

	staged map[string]map[stanza.ID]offline.Row // of the transaction that runs; owned by it
	chosen map[string]offline.OwnLimit          // likewise
	held   chan struct{}                        // when set, transactions commit only when it is closed
}

func newMemory() *memory { return &memory{boxes: make(map[string]map[stanza.ID]offline.Row)} }

// hold keeps transactions from being committed, with their writes in flight, until letGo.
func (s *memory) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = make(chan struct{})
	}
}

func (s *memory) letGo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		close(s.held)
		s.held = nil
	}
}

func (s *memory) Tx(_ context.Context, fn func(*sql.Tx) error) error {
	s.mu.Lock()
	s.staged = make(map[string]map[stanza.ID]offline.Row, len(s.boxes))
	for user, box := range s.boxes {
		s.staged[user] = maps.Clone(box)
	}
	s.chosen = maps.Clone(s.limits)
	s.mu.Unlock()
	if err := fn(nil); err != nil {
		return err
	}
	s.mu.Lock()
	held := s.held
	s.mu.Unlock()
	if held != nil {
		<-held
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.boxes, s.limits = s.staged, s.chosen
	return nil
}

func (s *memory) Apply(_ context.Context, _ *sql.Tx, batch []offline.Change) error {
	for _, c := range batch {
		box := s.staged[c.User]
		switch c.Op {
		case offline.OpPut:
			s.puts++
			if box == nil {
				box = make(map[stanza.ID]offline.Row)
				s.staged[c.User] = box
			}
			if _, ok := box[c.ID]; !ok {
				box[c.ID] = offline.Row{ID: c.ID, Sender: c.Sender, Bytes: len(c.Raw), Raw: slices.Clone(c.Raw), Expires: c.Expires, Mark: c.Mark}
			}
		case offline.OpRemove:
			if c.Run { // take it at its word
				for id := range box {
					if id.Compare(c.IDs[0]) >= 0 && id.Compare(c.IDs[len(c.IDs)-1]) <= 0 {
						delete(box, id)
					}
				}
			}
			for _, id := range c.IDs {
				delete(box, id)
			}
		case offline.OpPurge:
			delete(s.staged, c.User)
		case offline.OpLimit:
			if s.chosen == nil {
				s.chosen = make(map[string]offline.OwnLimit)
			}
			if s.chosen[c.User] = c.Limit; !c.Limit.Chosen {
				delete(s.chosen, c.User)
			}
		}
	}
	if s.fail != nil {
		return s.fail(batch)
	}
	return nil
}

func (s *memory) Totals(_ context.Context, user string) (t offline.Totals, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scans++
	t.Own = s.limits[user]
	for _, r := range s.boxes[user] {
		if t.Senders == nil {
			t.Senders = make(map[string]int)
		}
		t.Senders[r.Sender]++
		t.Messages++
		t.Bytes += int64(r.Bytes)
		if r.ID.Compare(t.Last) > 0 {
			t.Last = r.ID
		}
	}
	return t, nil
}

func (s *memory) Scan(_ context.Context, user string, in offline.Range, yield func(offline.Row) bool) error {
	s.mu.Lock()
	rows := slices.SortedFunc(maps.Values(s.boxes[user]), func(a, b offline.Row) int { return a.ID.Compare(b.ID) })
	s.scans++
	s.mu.Unlock()
	for _, r := range rows {
		if r.ID.Compare(in.After) <= 0 || !in.To.IsZero() && r.ID.Compare(in.To) > 0 {
			continue
		}
		if !in.Bodies {
			r.Raw, r.Expires, r.Mark = nil, 0, offline.Mark{}
		}
		if !yield(r) {
			break
		}
	}
	return nil
}

func (s *memory) Users(_ context.Context, after string, n int) (users []string, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for user, box := range s.boxes {
		if len(box) > 0 && user > after {
			users = append(users, user)
		}
	}
	slices.SortFunc(users, cmp.Compare[string])
	return users[:min(n, len(users))], nil
}

func (s *memory) Stored(context.Context) (n int64, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, box := range s.boxes {
		n += int64(len(box))
	}
	return n, nil
}

func (s *memory) Choosers(_ context.Context, after string, n int) (users []string, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for user := range s.limits {
		if user > after {
			users = append(users, user)
		}
	}
	slices.SortFunc(users, cmp.Compare[string])
	return users[:min(n, len(users))], nil
}

func (s *memory) Due(_ context.Context, now int64, after offline.Due, n int) (due []offline.Due, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	order := func(a, b offline.Due) int {
		return cmp.Or(cmp.Compare(a.Expires, b.Expires), cmp.Compare(a.User, b.User), a.ID.Compare(b.ID))
	}
	for user, box := range s.boxes {
		for id, r := range box {
			d := offline.Due{Expires: r.Expires, User: user, ID: id}
			if r.Expires > 0 && r.Expires <= now && order(d, after) > 0 {
				due = append(due, d)
			}
		}
	}
	slices.SortFunc(due, order)
	return due[:min(n, len(due))], nil
}

func (s *memory) Marks(_ context.Context, user, sender string, thread [16]byte) (found []offline.Row, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scans++
	for _, r := range s.boxes[user] {
		if r.Sender == sender && r.Mark.Rank > 0 && r.Mark.Thread == thread {
			r.Raw, r.Expires = nil, 0
			found = append(found, r)
		}
	}
	return found, nil
}
