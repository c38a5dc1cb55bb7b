package session

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// places lists what a checkpoint has of a session's outbox, nil when it does not have the session.
func (c *Checkpoint) places(t *testing.T, ord uint64) (all []uint64) {
	t.Helper()
	for _, r := range c.Changed {
		if r.State.Ord != ord {
			continue
		}
		all = []uint64{}
		for _, q := range r.Queue {
			if len(q.Targets) != 1 || q.Targets[0].Session != ord {
				t.Errorf("targets %v", q.Targets)
			}
			all = append(all, q.Targets[0].Pos)
		}
	}
	return all
}

func TestCheckpointThatFails(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		romeo, c := w.bound("romeo/orchard"), w.managed("juliet/balcony").available()
		ord := c.session().ord
		chat := func(text string) { t.Helper(); romeo.chat("juliet", text); c.want("message romeo/orchard " + text) }
		look := func(want ...uint64) *Checkpoint {
			t.Helper()
			cp := w.sv.Checkpoint(func() {
				if w.sv.barrier.TryRLock() {
					t.Error("something may be half done at the boundary")
				}
			})
			if got := cp.places(t, ord); !slices.Equal(got, want) || (got == nil) != (want == nil) {
				t.Errorf("the queue has %v, want %v", got, want)
			}
			return cp
		}
		chat("1")
		chat("2")
		look(1, 2, 3).Abort() // 1 is juliet's own presence
		look(1, 2, 3).Abort()
		c.ack(1)
		first := look(2, 3)
		chat("3") // while the store writes
		first.Commit()
		look(4).Abort()
		look(4).Commit()
		look().Commit()
		c.ack(4)
		look([]uint64{}...).Abort()
		if cp := w.sv.Checkpoint(func() {}); len(cp.Changed) != 1 || cp.Changed[0].Acked != 4 || cp.Changed[0].State.Ord != ord {
			t.Errorf("changed %+v", cp.Changed)
		} else {
			cp.Commit()
		}

		// One that ends while the store writes is taken out by the next.
		chat("4")
		cp := w.sv.Checkpoint(func() {})
		if len(cp.Gone) > 0 {
			t.Errorf("gone %v", cp.Gone)
		}
		c.ack(5)
		c.close()
		cp.Commit()
		for _, done := range []func(*Checkpoint){(*Checkpoint).Abort, (*Checkpoint).Abort, (*Checkpoint).Commit} {
			cp = w.sv.Checkpoint(func() {})
			if !slices.Equal(cp.Gone, []uint64{ord}) || len(cp.Changed) > 0 {
				t.Errorf("gone %v, changed %+v", cp.Gone, cp.Changed)
			}
			done(cp)
		}
		// Nor is one heard of that no checkpoint ever had.
		w.managed("nurse/door").close()
		if cp = w.sv.Checkpoint(func() {}); len(cp.Gone) > 0 || len(cp.Changed) > 0 {
			t.Errorf("gone %v, changed %+v", cp.Gone, cp.Changed)
		}
		cp.Commit()
	})
}

func (m *fakeMailbox) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func TestMailboxThatFails(t *testing.T) {
	// What could not be read is tried again, and nothing newer comes before it.
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		for _, n := range numbers(1, 3) {
			romeo.chat("juliet", n)
		}
		w.box.fail(errors.New("the mailbox is down"))
		c := w.managed("juliet/balcony")
		c.send("<presence xmlns='jabber:client'/>")
		c.want("presence juliet/balcony")
		time.Sleep(drainRetry + time.Millisecond)
		c.want()
		w.box.fail(nil)
		romeo.chat("juliet", "4")
		c.want()
		// Now the journal is down.
		w.journal.fail(errJournal, nil)
		time.Sleep(drainRetry)
		c.want()
		w.journal.fail(nil, nil)
		romeo.chat("juliet", "5")
		c.want()
		time.Sleep(drainRetry)
		if got := c.bodiesOf(); !slices.Equal(got, numbers(1, 5)) {
			t.Errorf("got %q", got)
		}
		c.ack(6)
		if left := w.box.bodies(addr("juliet")); len(left) > 0 {
			t.Errorf("mailbox %q", left)
		}
		romeo.chat("juliet", "6")
		c.want("message romeo/orchard 6")
	})
	// The retry of a session that went away meanwhile is nobody's.
	inTime(t, func(t *testing.T, w *world) {
		w.bound("romeo/orchard").chat("juliet", "1")
		w.box.fail(errors.New("the mailbox is down"))
		c := w.bound("juliet/balcony").available()
		c.close()
		w.box.fail(nil)
		time.Sleep(drainRetry + time.Second)
		if left := w.box.bodies(addr("juliet")); !slices.Equal(left, numbers(1, 1)) {
			t.Errorf("mailbox %q", left)
		}
		c = w.bound("juliet/balcony")
		c.send("<presence xmlns='jabber:client'/>")
		if got := c.bodiesOf(); !slices.Equal(got, numbers(1, 1)) {
			t.Errorf("got %q", got)
		}
	})
}

func TestWithdraw(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		romeo.chat("juliet", "1")
		romeo.chat("juliet", "2")
		id := w.box.boxes[addr("juliet")][0].ID
		w.sv.Withdraw(addr("juliet"), id)
		w.sv.Withdraw(addr("juliet"), id) // nothing is there any more
		w.sv.Withdraw(addr("juliet"), stanza.NewID())
		if left := w.box.bodies(addr("juliet")); !slices.Equal(left, numbers(2, 2)) {
			t.Errorf("mailbox %q", left)
		}
		if last := w.journal.records[len(w.journal.records)-1]; last.kind != journal.KindUnstored {
			t.Errorf("the last record is of kind %v", last.kind)
		}
		// A journal that is down leaves a copy at worst, which a restart would bring back; the mailbox obeys.
		w.journal.fail(errJournal, nil)
		w.sv.Withdraw(addr("juliet"), w.box.boxes[addr("juliet")][0].ID)
		if left := w.box.bodies(addr("juliet")); len(left) > 0 {
			t.Errorf("mailbox %q", left)
		}
		w.journal.fail(nil, nil)
	})
}

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatalf("the default: %v", err)
	}
	for name, edit := range map[string]func(*Config){
		"": func(c *Config) { // 0 lifts a limit, or switches off
			*c = Config{PageMessages: 1}
		},
		"RESUME_TIMEOUT":    func(c *Config) { c.ResumeTimeout = -1 },
		"RESUME_TIMEOUT: ":  func(c *Config) { c.ResumeTimeout = 8 * 24 * time.Hour },
		"SETTLE_WINDOW":     func(c *Config) { c.SettleWindow = -1 },
		"SETTLE_WINDOW: ":   func(c *Config) { c.SettleWindow = 11 * time.Second },
		"OFFLINE_PAGE":      func(c *Config) { c.PageMessages = 0 },
		"SM_REQUEST_EVERY":  func(c *Config) { c.RequestEvery = -1 },
		"OUTBOX_STANZAS":    func(c *Config) { c.OutboxStanzas = -1 },
		"OUTBOX_BYTES":      func(c *Config) { c.OutboxBytes = -1 },
		"SESSIONS_PER_USER": func(c *Config) { c.SessionsPerUser = -1 },
		"DIRECTED_PRESENCE": func(c *Config) { c.DirectedLimit = -1 },
		"AUTH_TRIES":        func(c *Config) { c.AuthTries = -1 },
	} {
		c := DefaultConfig()
		edit(&c)
		err := c.Validate()
		if name == "" && err != nil || name != "" && (err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(name, ": "))) {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

func TestGauges(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		reg := prometheus.NewPedanticRegistry()
		w.sv.Register(reg)
		check := func(attached, detached, stanzas, size string) {
			t.Helper()
			want := `# HELP holdfast_session_outbox_bytes Bytes of stanzas that wait for an acknowledgement.
# TYPE holdfast_session_outbox_bytes gauge
holdfast_session_outbox_bytes ` + size + `
# HELP holdfast_session_outbox_stanzas Stanzas that wait for an acknowledgement.
# TYPE holdfast_session_outbox_stanzas gauge
holdfast_session_outbox_stanzas ` + stanzas + `
# HELP holdfast_session_sessions Sessions by state: attached to a transport, or detached and waiting.
# TYPE holdfast_session_sessions gauge
holdfast_session_sessions{state="attached"} ` + attached + `
holdfast_session_sessions{state="detached"} ` + detached + "\n"
			if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
				t.Error(err)
			}
		}
		check("0", "0", "0", "0")
		c := w.managed("juliet/balcony")
		c.ack(0)
		check("1", "0", "0", "0")
		other := w.managed("juliet/chamber")
		other.cut()
		check("1", "1", "0", "0")
		ping := "<iq xmlns='jabber:client' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>"
		c.send(ping)
		size := len(c.frames()[0].Raw())
		check("1", "1", "1", strconv.Itoa(size))
		c.send(ping)
		c.frames()
		check("1", "1", "2", strconv.Itoa(2*size))
		c.ack(2)
		check("1", "1", "0", "0")
		c.close()
		check("0", "1", "0", "0")
		time.Sleep(w.cfg.ResumeTimeout + time.Second)
		check("0", "0", "0", "0")
	})
}
