package offline_test

import (
	"runtime"
	"testing"

	"holdfast/internal/testkit/postgresproc"
	"holdfast/offline"
	"holdfast/stanza"
)

// TestLargeMailbox drains a mailbox in the memory of one page: each page is removed, on proof, before the next is asked
// for, and comes again as long as it is not. (With the race detector SQLite takes half a minute for 100,000; e2e has a
// gateway drain so many.)
func TestLargeMailbox(t *testing.T) {
	if testing.Short() {
		t.Skip("a large mailbox")
	}
	t.Run("sqlite", func(t *testing.T) { largeMailbox(t, openSQLite(t, t.TempDir())) })
	t.Run("postgres", func(t *testing.T) { largeMailbox(t, openPostgres(t, postgresproc.New(t))) })
}

func largeMailbox(t *testing.T, s offline.Backend) {
	const pageSize = 100
	messages := 100_000
	if raceEnabled {
		messages = 20_000
	}
	raw := benchMessage(t, stanza.NewID()).Raw()
	batch := make([]offline.Change, 0, 1000)
	for range messages / cap(batch) {
		batch = batch[:0]
		for range cap(batch) {
			batch = append(batch, offline.Change{Op: offline.OpPut, User: juliet, ID: stanza.NewID(), Sender: romeo, Raw: raw})
		}
		apply(t, s, batch...)
	}
	m := open(t, lifted(), s)
	if n, err := m.Count(t.Context(), julietAddr()); n != messages || err != nil {
		t.Fatalf("%d messages, %v", n, err)
	}
	heap := func() uint64 {
		runtime.GC()
		var ms runtime.MemStats
		runtime.ReadMemStats(&ms)
		return ms.HeapAlloc
	}
	before, most := heap(), uint64(0)
	drained := 0
	var last stanza.ID
	for more := true; more; {
		var page []offline.Message
		var err error
		tries := 1
		if drained%10_000 == 0 {
			tries = 3 // it comes again until it is removed
		}
		for range tries {
			if page, more, err = m.Page(t.Context(), julietAddr(), last, pageSize, 0); err != nil || len(page) == 0 {
				t.Fatalf("after %d messages: %d, %v", drained, len(page), err)
			}
			if page[0].ID.Compare(last) <= 0 {
				t.Fatal("out of order, or not removed")
			}
		}
		ids := make([]stanza.ID, 0, len(page))
		for _, msg := range page {
			if msg.ID.Compare(last) <= 0 || len(msg.Raw) != len(raw) {
				t.Fatalf("message %v of %d bytes behind %v", msg.ID, len(msg.Raw), last)
			}
			last = msg.ID
			ids = append(ids, msg.ID)
		}
		if drained%10_000 == 0 {
			most = max(most, heap()) // with a page in memory
		}
		if err := m.Remove(t.Context(), julietAddr(), ids...); err != nil {
			t.Fatal(err)
		}
		if drained += len(page); drained%1000 == 0 {
			checkpoint(t, m)
		}
	}
	if drained != messages {
		t.Errorf("%d messages drained", drained)
	}
	if most > before+4<<20 {
		t.Errorf("heap grew from %d to %d bytes", before, most)
	}
	checkpoint(t, m)
	holds(t, m, julietAddr())
	wantStored(t, s, 0)
}
