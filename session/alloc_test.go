package session

import (
	"context"
	"testing"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// noJournal costs nothing, so that what is measured is the path itself.
type noJournal struct{}

func (noJournal) Room(context.Context) error                       { return nil }
func (noJournal) Stanza(*journal.Stanza) error                     { return nil }
func (noJournal) Count(journal.Kind, uint64, uint64) error         { return nil }
func (noJournal) Session(*journal.Session) error                   { return nil }
func (noJournal) IDs(journal.Kind, stanza.Addr, []stanza.ID) error { return nil }
func (noJournal) Directed(uint64, stanza.Addr, bool) error         { return nil }
func (noJournal) Append(journal.Kind, []byte, []byte) error        { return nil }
func (noJournal) Appended() uint64                                 { return 0 }
func (noJournal) Sendable() uint64                                 { return 0 }
func (noJournal) OnSendable(func())                                {}
func (noJournal) Settle(context.Context) error                     { return nil }

// chatPath returns one message from romeo to juliet, from the frame to juliet's transport and her acknowledgement.
func chatPath(t tester, managed bool) (once func(), stop func()) {
	w := newWorld(t, func(c *Config, p *Parts) {
		p.Journal = noJournal{}
		c.OutboxStanzas, c.OutboxBytes = 0, 0
	})
	login := w.bound
	if managed {
		login = w.managed
	}
	romeo, juliet := login("romeo/orchard"), login("juliet/balcony").available()
	raw := []byte(chat(addr("juliet").String(), "But soft, what light through yonder window breaks? It is the east, and Juliet is the sun."))
	s := juliet.session()
	var e stanza.Element
	var b Batch
	return func() {
		if err := e.Scan(raw, stanza.Limits{}); err != nil {
			t.Fatalf("%v", err)
		}
		romeo.stream.Handle(&e)
		for juliet.stream.Pull(&b) {
			b.Reset()
		}
		if err := s.ack(s.out.sent); err != nil {
			t.Fatalf("%v", err)
		}
	}, w.stop
}

func TestChatAllocations(t *testing.T) {
	for name, managed := range map[string]bool{"plain": false, "XEP-0198": true} {
		t.Run(name, func(t *testing.T) {
			once, stop := chatPath(t, managed)
			defer stop()
			for range 1000 {
				once()
			}
			if n := testing.AllocsPerRun(2000, once); n > 2 && !raceEnabled {
				t.Errorf("%v allocations a message, want at most 2", n)
			}
		})
	}
}

func BenchmarkChat(b *testing.B) {
	for name, managed := range map[string]bool{"plain": false, "sm": true} {
		b.Run(name, func(b *testing.B) {
			once, stop := chatPath(b, managed)
			defer stop()
			b.ReportAllocs()
			for b.Loop() {
				once()
			}
		})
	}
}
