package cluster

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

var (
	errKilled = errors.New("the process was killed")
	errFenced = errors.New("the journal was taken away")
)

// record is one record of a memJournal, as its node would find it again.
type record struct {
	kind   string // forward, count, deliver, user, link, gone, inherit, bury
	fwd    *journal.Forward
	jkind  journal.Kind
	origin uint64 // whose inbound stanza or message it came of
	n      uint32
	ord    uint64 // count, user, link
	count  uint64
	name   string // of a link, or who sent
	user   stanza.Addr
	num    uint32 // deliver: which of the sender's
	state  *person
	dead   string // inherit, bury
}

// memJournal is a Journal that outlives its node's kill up to what was settled.
type memJournal struct {
	mu      sync.Mutex
	recs    []record
	safe    int
	gone    error // why nothing is taken any more
	fail    error // what Settle returns
	delay   time.Duration
	hold    chan struct{} // Settle waits for it
	settles int
	fenced  chan struct{} // closed with errFenced
}

func newJournal() *memJournal { return &memJournal{fenced: make(chan struct{})} }

func (j *memJournal) Fenced() <-chan struct{} { return j.fenced }

func (j *memJournal) add(r record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.gone != nil {
		return j.gone
	}
	j.recs = append(j.recs, r)
	return nil
}

func (j *memJournal) Append(kind journal.Kind, head, tail []byte) error {
	if kind != journal.KindForward {
		return errors.New("unexpected kind")
	}
	f, err := journal.DecodeForward(append(append([]byte(nil), head...), tail...))
	if err != nil {
		return err
	}
	return j.add(record{kind: "forward", fwd: f, origin: f.Origin, n: f.N})
}

func (j *memJournal) Count(kind journal.Kind, session, count uint64) error {
	return j.add(record{kind: "count", jkind: kind, ord: session, count: count})
}

func (j *memJournal) Settle(ctx context.Context) error {
	j.mu.Lock()
	upTo, delay, hold := len(j.recs), j.delay, j.hold
	j.settles++
	j.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.gone != nil:
		return j.gone
	case j.fail != nil:
		return j.fail
	}
	j.safe = max(j.safe, upTo)
	return nil
}

// end lets nothing in any more. keep chooses how many of the records that were not settled are found all the same.
func (j *memJournal) end(why error, keep func(n int) int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.gone == nil {
		j.gone = why
		if errors.Is(why, errFenced) {
			close(j.fenced)
		}
		j.safe += keep(len(j.recs) - j.safe)
		j.recs = j.recs[:j.safe:j.safe]
	}
}

func (j *memJournal) set(f func(j *memJournal)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f(j)
}

// forwards are the messages to other nodes, in order.
func (j *memJournal) forwards() (all []*journal.Forward) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range j.recs {
		if r.fwd != nil && r.fwd.To != "" {
			all = append(all, r.fwd)
		}
	}
	return all
}

// person is what a node has of one user: how far the user's client was heard, and how far each sender has got with it.
type person struct {
	Session bool              // there is a session, so that the home moves and is pinned
	In      uint32            // stanzas of the user's client that were handled
	Last    map[string]uint32 // by sender: the newest that was delivered
	Sent    map[string]bool   // nodes that have something of this sender

	ord      uint64
	attached bool // its client is connected here
}

func (p *person) clone() *person {
	c := *p
	c.Last, c.Sent, c.attached = maps.Clone(p.Last), maps.Clone(p.Sent), false
	return &c
}

func newPerson() *person {
	return &person{Last: make(map[string]uint32), Sent: make(map[string]bool)}
}

// estateOf is what the records of a journal amount to, as package resume has it.
type estateOf struct {
	users  map[stanza.Addr]*person
	links  map[string]uint32 // by the link's name: how far it was carried out
	unsent []*journal.Forward
	taken  []string // dead nodes whose users are among these
}

func (j *memJournal) replay() *estateOf {
	j.mu.Lock()
	defer j.mu.Unlock()
	e := &estateOf{users: make(map[stanza.Addr]*person), links: make(map[string]uint32)}
	byOrd := make(map[uint64]stanza.Addr)
	links := make(map[uint64]string)
	sent := make(map[uint64]uint32)
	var forwards []*journal.Forward
	reached := func(ord uint64, n uint32) {
		if int32(n-sent[ord]) > 0 {
			sent[ord] = n
		}
		if name, ok := links[ord]; ok && int32(n-e.links[name]) > 0 {
			e.links[name] = n
		}
		if p := e.users[byOrd[ord]]; p != nil && p.ord == ord && n > p.In {
			p.In = n
		}
	}
	for _, r := range j.recs[:j.safe] {
		switch r.kind {
		case "forward":
			if r.fwd.Leaves {
				delete(e.users, r.fwd.User)
			}
			if r.fwd.To != "" {
				forwards = append(forwards, r.fwd)
				if p := e.users[byOrd[r.fwd.Origin]]; p != nil {
					p.Sent[r.fwd.To] = true
				}
			}
		case "count":
			reached(r.ord, uint32(r.count))
		case "deliver":
			if p := e.users[r.user]; p != nil {
				p.Last[r.name] = max(p.Last[r.name], r.num)
			}
		case "user":
			p := r.state.clone()
			p.ord = r.ord
			e.users[r.user], byOrd[r.ord] = p, r.user
		case "link":
			links[r.ord] = r.name
			if _, ok := e.links[r.name]; !ok || int32(uint32(r.count)-e.links[r.name]) > 0 {
				e.links[r.name] = uint32(r.count)
			}
		case "inherit":
			e.taken = append(e.taken, r.dead)
		case "bury":
			e.taken = slices.DeleteFunc(e.taken, func(of string) bool { return of == r.dead })
		}
		if r.origin != 0 {
			reached(r.origin, r.n)
		}
	}
	for _, f := range forwards {
		if int32(f.Seq-sent[f.Link]) > 0 {
			e.unsent = append(e.unsent, f)
		}
	}
	return e
}
