package packetcache

import (
	"log/slog"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"holdfast/stanza"
)

// model is a gateway around a Cache: it opens messages, sends receipts, lets time pass, writes a journal and
// checkpoints, and is killed now and then. It knows of every message what must be true of it.
type model struct {
	cfg   Config
	now   int64
	base  time.Time
	store *spy
	peer  *peer
	c     *Cache

	journal []record // since the last Checkpoint
	msgs    []*fate
	byID    map[stanza.ID]*fate
}

// record is what the journal has of an Open, or of the closing of an entry.
type record struct {
	open   Entry
	closed stanza.ID
}

type fate struct {
	st     *stanza.Stanza
	opened int64
	proven bool
}

func (m *model) boot(t *rapid.T) {
	c, err := newAt(m.cfg, m.store, slog.New(slog.DiscardHandler), nil, m.peer,
		func() int64 { return m.now }, func() time.Time { return m.base.Add(time.Duration(m.now)) })
	if err != nil {
		t.Fatal(err)
	}
	m.c = c
	for _, r := range m.journal {
		if r.open.Stanza != nil {
			c.Restore(r.open)
		} else {
			c.Close(r.closed)
		}
	}
	c.spread()
}

func (m *model) proved(t *rapid.T, ids []stanza.ID, offline bool) {
	for _, id := range ids {
		f := m.byID[id]
		if f.proven {
			t.Fatalf("%v proven twice", id)
		}
		f.proven = true
		m.journal = append(m.journal, record{closed: id})
		if offline {
			delete(m.peer.mailbox, id)
		}
	}
}

func (m *model) pick(t *rapid.T) *fate {
	if len(m.msgs) == 0 {
		t.Skip("no messages")
	}
	// Mostly one of the last, which is more likely to be open.
	back := rapid.IntRange(0, min(len(m.msgs), 12)-1).Draw(t, "back")
	return m.msgs[len(m.msgs)-1-back]
}

func (m *model) check(t *rapid.T) {
	check(t, m.c)
	for _, f := range m.msgs {
		e, known := m.c.Get(f.st.ID)
		open := known && e.Stanza != nil
		mailed, bounced := m.peer.mailbox[f.st.ID], m.peer.bounced[f.st.ID] > 0
		switch {
		case f.proven && known:
			t.Fatalf("%s is proven and has an entry", e.MsgID)
		case f.proven && mailed:
			t.Fatalf("%v is proven and has a copy in the mailbox", f.st.ID)
		case !f.proven && !open && !mailed && !bounced:
			t.Fatalf("%s is lost", f.st.Attr("id"))
		case known && !open && !mailed:
			t.Fatalf("%s has a tombstone and no copy in the mailbox", e.MsgID)
		}
	}
	if m.cfg.LateEntries > 0 && m.c.Late() > m.cfg.LateEntries {
		t.Fatalf("%d late entries", m.c.Late())
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{cfg: DefaultConfig(), base: time.Now(), store: &spy{Memory: NewMemory()}, peer: newPeer(), byID: map[stanza.ID]*fate{}}
		m.cfg.Timeout = 30 * time.Second
		m.cfg.Actions = rapid.SampledFrom([][]Action{
			{Resend, Offline}, {Offline}, {Resend, Resend, Offline}, {Bounce}, {Resend, Bounce},
		}).Draw(t, "actions")
		m.cfg.Entries = rapid.SampledFrom([]int{0, 3, 10}).Draw(t, "entries")
		m.cfg.LateEntries = rapid.SampledFrom([]int{2, 100}).Draw(t, "late entries")
		m.cfg.RestartRate = rapid.SampledFrom([]int{0, 1}).Draw(t, "restart rate")
		m.peer.before = func(a Action, e Entry) {
			f := m.byID[e.ID]
			if f.proven {
				t.Fatalf("%v for %s, which is proven", a, e.MsgID)
			}
			if m.cfg.Entries == 0 && m.now < f.opened+int64(m.cfg.Timeout) {
				t.Fatalf("%v for %s before its deadline", a, e.MsgID)
			}
		}
		m.boot(t)
		t.Repeat(map[string]func(*rapid.T){
			"": m.check,
			"open": func(t *rapid.T) {
				st := message(alice, bob, "m"+strconv.Itoa(len(m.msgs)))
				f := &fate{st: st, opened: m.now}
				m.msgs = append(m.msgs, f)
				m.byID[st.ID] = f
				if !m.c.Open(st) {
					t.Fatal("not opened")
				}
				e, _ := m.c.Get(st.ID)
				m.journal = append(m.journal, record{open: e})
			},
			"open again": func(t *rapid.T) {
				if f := m.pick(t); !f.proven && m.peer.bounced[f.st.ID] == 0 && !m.peer.mailbox[f.st.ID] {
					m.c.Open(f.st)
				}
			},
			"receipt": func(t *rapid.T) {
				f := m.pick(t)
				from := rapid.SampledFrom([]stanza.Addr{bob1, bob2}).Draw(t, "from")
				ids, offline := m.c.Receipt(from, alice, f.st.Attr("id"))
				if len(ids) > 1 || len(ids) == 1 && ids[0] != f.st.ID {
					t.Fatalf("closed %v", ids)
				}
				m.proved(t, ids, offline)
			},
			"receipt for nothing": func(t *rapid.T) {
				if ids, _ := m.c.Receipt(carol, alice, m.pick(t).st.Attr("id")); len(ids) != 0 {
					t.Fatalf("closed %v", ids)
				}
			},
			"ack": func(t *rapid.T) {
				f := m.pick(t)
				if closed, offline := m.c.Proved(f.st.ID); closed {
					m.proved(t, []stanza.ID{f.st.ID}, offline)
				}
			},
			"time": func(t *rapid.T) {
				m.now += int64(rapid.IntRange(1, 40_000).Draw(t, "ms")) * int64(time.Millisecond)
				next := m.c.runDue(t.Context())
				if next <= m.now {
					t.Fatalf("something is still due: %d at %d", next, m.now)
				}
			},
			"fail": func(t *rapid.T) {
				a := rapid.SampledFrom([]Action{Resend, Offline, Bounce}).Draw(t, "action")
				m.peer.fail[a] = rapid.IntRange(1, 3).Draw(t, "times")
			},
			"online": func(t *rapid.T) { m.peer.online = !m.peer.online },
			"checkpoint": func(t *rapid.T) {
				m.store.fail = rapid.Bool().Draw(t, "fail")
				if err := m.c.Checkpoint(t.Context()); err == nil {
					m.journal = nil
				}
			},
			"kill": m.boot,
		})
	})
}

// However often an id is used: as long as one of those messages is open, receipts never close one that nobody received.
func TestModelIDUsedOften(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, err := New(DefaultConfig(), NewMemory(), slog.New(slog.DiscardHandler), nil, newPeer())
		if err != nil {
			t.Fatal(err)
		}
		received := map[stanza.ID]bool{}
		var open []*stanza.Stanza
		owed := map[stanza.Addr]int{} // receipts that a resource has still to send
		deliver := func(st *stanza.Stanza) {
			for _, r := range []stanza.Addr{bob1, bob2} {
				if rapid.Bool().Draw(t, "received by "+r.Resource()) {
					received[st.ID] = true
					owed[r]++
				}
			}
		}
		c.Open(message(alice, bob, "same")) // never received, so that the group never ends
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { check(t, c) },
			"open": func(t *rapid.T) {
				st := message(alice, bob, "same")
				c.Open(st)
				open = append(open, st)
				deliver(st)
			},
			"resend": func(t *rapid.T) {
				if len(open) == 0 {
					t.Skip()
				}
				st := rapid.SampledFrom(open).Draw(t, "which")
				c.mu.Lock()
				if e := c.byID[st.ID]; e != nil {
					e.sent()
					c.mu.Unlock()
					deliver(st)
					return
				}
				c.mu.Unlock()
			},
			"receipt": func(t *rapid.T) {
				r := rapid.SampledFrom([]stanza.Addr{bob1, bob2}).Draw(t, "from")
				if owed[r] == 0 {
					t.Skip()
				}
				owed[r]--
				ids, _ := c.Receipt(r, alice, "same")
				for _, id := range ids {
					if !received[id] {
						t.Fatal("closed a message that nobody received")
					}
				}
			},
		})
	})
}
