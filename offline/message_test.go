package offline_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/offline"
	"holdfast/stanza"
)

// TestDelay: XEP-0160 §2 and XEP-0203 §2.
func TestDelay(t *testing.T) {
	const head = "<message xmlns='jabber:client' from='romeo@example.net/orchard' to='juliet@example.com' type='chat'><body>hi</body>"
	for _, tt := range []struct {
		name, children string
		delays         []string // from
	}{
		{"none", "", []string{"example.com"}},
		{"another's", "<delay xmlns='urn:xmpp:delay' from='room.example.net' stamp='2002-09-10T23:08:25Z'/>", []string{"room.example.net", "example.com"}},
		{"own already", "<delay xmlns='urn:xmpp:delay' from='example.com' stamp='2002-09-10T23:08:25Z'/>", []string{"example.com"}},
		{"not a delay", "<delay xmlns='urn:example:other' from='example.com' stamp='2002-09-10T23:08:25Z'/>", []string{"example.com"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := open(t, lifted(), newMemory())
			st := parse(t, head+tt.children+"</message>")
			if err := m.Force(t.Context(), julietAddr(), st); err != nil {
				t.Fatal(err)
			}
			page, _, err := m.Page(t.Context(), julietAddr(), stanza.ID{}, 0, 0)
			if err != nil || len(page) != 1 {
				t.Fatalf("%v, %v", page, err)
			}
			out, err := page[0].Stanza(julietAddr())
			if err != nil {
				t.Fatal(err)
			}
			var again stanza.Element
			if err := again.Scan(out.Raw(), stanza.Limits{}); err != nil {
				t.Fatalf("%s: %v", out.Raw(), err)
			}
			var delays []string
			for i := range again.NumChildren() {
				if c := again.Child(i); string(c.Space()) == stanza.NSDelay {
					delays = append(delays, c.Attr("from"))
				}
			}
			if fmt.Sprint(delays) != fmt.Sprint(tt.delays) {
				t.Errorf("delays from %v, want %v: %s", delays, tt.delays, out.Raw())
			}
			if tt.name != "own already" {
				stamp := st.ID.Time().UTC().Format("2006-01-02T15:04:05")
				if !strings.Contains(string(out.Raw()), "stamp='"+stamp) {
					t.Errorf("stamp is not %s: %s", stamp, out.Raw())
				}
			}
			if out.ID != st.ID || out.From != st.From || out.To != st.To || string(out.TypeRaw()) != "chat" {
				t.Errorf("head changed: %v %v %v %s", out.ID, out.From, out.To, out.Raw())
			}
			if !out.Payloads().Has(stanza.Body | stanza.Delay) {
				t.Errorf("payloads %b", out.Payloads())
			}
		})
	}
	if _, err := (offline.Message{Raw: []byte("<message>")}).Stanza(julietAddr()); err == nil {
		t.Error("damaged bytes became a stanza")
	}
}

// idFor is an id made at t.
func idFor(t time.Time, n byte) stanza.ID {
	ms := uint64(t.UnixMilli())
	return stanza.ID{byte(ms >> 40), byte(ms >> 32), byte(ms >> 24), byte(ms >> 16), byte(ms >> 8), byte(ms), 0x70, 0, 0x80, 15: n}
}

// TestLifetime: OFFLINE_LIFETIME counts from the id's time and runs by itself.
func TestLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := offline.DefaultConfig()
		cfg.Lifetime = 10 * time.Hour
		s := newMemory()
		m, err := offline.New(t.Context(), cfg, s, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		first := time.Now()
		for n := range byte(3) {
			mustPut(t, m, julietAddr(), from(t, romeo, idFor(first, n), "old"))
		}
		mustPut(t, m, nurseAddr(), from(t, romeo, idFor(first, 9), "old"))
		time.Sleep(5 * time.Hour)
		young := idFor(time.Now(), 1)
		mustPut(t, m, julietAddr(), from(t, romeo, young, "young"))
		time.Sleep(4*time.Hour + 50*time.Minute)
		holds(t, m, julietAddr(), idFor(first, 0), idFor(first, 1), idFor(first, 2), young)
		time.Sleep(10*time.Minute + cfg.Lifetime/20)
		synctest.Wait()
		holds(t, m, julietAddr(), young)
		holds(t, m, nurseAddr())
		if err := m.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left, _ := s.Stored(t.Context()); left != 1 {
			t.Errorf("%d messages left in the store", left)
		}
	})
}

// TestExpire works in batches, and lets everything live without a lifetime.
func TestExpire(t *testing.T) {
	s := openSQLite(t, t.TempDir())
	m := open(t, lifted(), s)
	old := time.Now().Add(-time.Hour)
	for n := range 1300 {
		st := from(t, romeo, idFor(old.Add(time.Duration(n)*time.Millisecond), 0), "old")
		if err := m.Force(t.Context(), julietAddr(), st); err != nil {
			t.Fatal(err)
		}
	}
	kept := stanza.NewID()
	mustPut(t, m, julietAddr(), from(t, romeo, kept, "new"))
	checkpoint(t, m)
	if n, err := m.Expire(t.Context()); n != 0 || err != nil {
		t.Errorf("without a lifetime: %d, %v", n, err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg := lifted()
	cfg.Lifetime = 24 * time.Hour
	m = open(t, cfg, s)
	if n, err := m.Expire(t.Context()); n != 0 || err != nil {
		t.Errorf("too early: %d, %v", n, err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg.Lifetime = time.Minute
	m = open(t, cfg, s)
	if _, err := m.Expire(t.Context()); err != nil { // perhaps done already by the goroutine
		t.Errorf("Expire: %v", err)
	}
	holds(t, m, julietAddr(), kept)
	checkpoint(t, m)
	wantStored(t, s, 1)
}
