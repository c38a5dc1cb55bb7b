package session

import (
	"errors"
	"slices"
	"testing"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// An operator's purge in the middle of a drain: what went out stays out, what is behind it never comes, what comes after
// the request does, in order; and the journal knows each of them.
func TestPurgeWhileDraining(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		for _, n := range numbers(1, 10) {
			romeo.chat("juliet", n)
		}
		c := w.managed("juliet/balcony")
		c.send("<presence xmlns='jabber:client'/>")
		got := c.bodiesOf()
		to := stanza.NewID()
		romeo.chat("juliet", "11")
		before := w.journal.kinds()[journal.KindUnstored]
		n, err := w.sv.PurgeMailbox(t.Context(), addr("juliet"), to)
		if n != 10 || err != nil {
			t.Errorf("purged %d, %v, want 10", n, err)
		}
		if after := w.journal.kinds()[journal.KindUnstored]; after == before {
			t.Error("the journal does not know of it")
		}
		if left := w.box.bodies(addr("juliet")); !slices.Equal(left, []string{"11"}) {
			t.Errorf("mailbox %q", left)
		}
		for range 4 {
			c.ack(uint32(c.session().out.sent - c.session().base))
			got = append(got, c.bodiesOf()...)
		}
		if !slices.Equal(got, []string{"1", "2", "3", "4", "11"}) {
			t.Errorf("got %q", got)
		}
		if n, err := w.sv.PurgeMailbox(t.Context(), addr("juliet"), to); n != 0 || err != nil {
			t.Errorf("again: %d, %v", n, err)
		}
		romeo.chat("juliet", "live")
		c.want("message romeo/orchard live")
	}, pages)
}

// A session that ends without having acknowledged what came out of the mailbox does not put it back after a purge.
func TestPurgeIsNotUndone(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		for _, n := range numbers(1, 10) {
			romeo.chat("juliet", n)
		}
		c := w.managed("juliet/balcony")
		c.send("<presence xmlns='jabber:client'/>")
		c.bodiesOf()
		if n, err := w.sv.PurgeMailbox(t.Context(), addr("juliet"), stanza.NewID()); n != 10 || err != nil {
			t.Fatalf("purged %d, %v", n, err)
		}
		c.close()
		if left := w.box.bodies(addr("juliet")); len(left) != 0 {
			t.Errorf("mailbox %q", left)
		}
	}, pages)
}

// More than one batch, of a store that fails in between: what is left is for the next try, and is told.
func TestPurgeFails(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		const all = 2*purgeBatch + 7
		for _, n := range numbers(1, all) {
			romeo.chat("juliet", n)
		}
		w.journal.fail(errJournal, nil)
		if n, err := w.sv.PurgeMailbox(t.Context(), addr("juliet"), stanza.NewID()); n != 0 || !errors.Is(err, errJournal) {
			t.Errorf("purged %d, %v without a journal", n, err)
		}
		if left := len(w.box.bodies(addr("juliet"))); left != all {
			t.Errorf("%d left, which no journal knows", left)
		}
		w.journal.fail(nil, nil)
		if n, err := w.sv.PurgeMailbox(t.Context(), addr("juliet"), stanza.NewID()); n != all || err != nil {
			t.Errorf("purged %d, %v", n, err)
		}
	})
}

// Only the home purges.
func TestPurgeAtHome(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		juliet.send("<presence xmlns='jabber:client' type='unavailable'/>")
		juliet.frames()
		romeo.chat("juliet", "1")
		m.rest()
		if n, err := m.nodes[1].sv.PurgeMailbox(t.Context(), addr("juliet"), stanza.NewID()); n != 0 || !errors.Is(err, ErrElsewhere) {
			t.Errorf("elsewhere: %d, %v", n, err)
		}
		if n, err := m.nodes[0].sv.PurgeMailbox(t.Context(), addr("juliet"), stanza.NewID()); n != 1 || err != nil {
			t.Errorf("at home: %d, %v", n, err)
		}
		juliet.send("<presence xmlns='jabber:client'/>")
		if got := juliet.bodiesOf(); len(got) > 0 {
			t.Errorf("got %q", got)
		}
	})
}
