package muc

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/stanza"
)

func newHallWithout(t *testing.T) *Service {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Enabled = false
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg, []stanza.Addr{stanza.MustParseAddr("localhost")}, nil, Rights{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (h *hall) save() {
	h.t.Helper()
	if _, err := h.room.Save(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	if h.room.Dirty() {
		h.t.Error("still to be saved")
	}
}

func TestSaveTemporary(t *testing.T) {
	h := newHall(t)
	if h.room.Dirty() || !h.room.Idle() {
		t.Error("a room that does not exist is to be saved")
	}
	h.joinAll("alice/a")
	h.save()
	if k := h.store.rooms[coven]; !k.Public || k.Persistent || k.Creator.String() != "alice@localhost" || k.State != nil {
		t.Errorf("%+v", k)
	}
	h.do("alice/a", "", "<message type='groupchat'><body>hello</body></message>")
	if h.room.Dirty() {
		t.Error("a message of a temporary room is to be saved")
	}
	h.configure("roomname=Coven")
	h.save()
	if k := h.store.rooms[coven]; k.Name != "Coven" {
		t.Errorf("%+v", k)
	}
	h.configure("publicroom=0")
	h.save()
	if len(h.store.rooms) > 0 {
		t.Error("a hidden room is found")
	}
	h.configure("publicroom=1")
	h.save()
	h.do("alice/a", "alice", "<presence type='unavailable'/>")
	h.save()
	if len(h.store.rooms) > 0 {
		t.Error("a room that ended is found")
	}
}

// What a node that died left of a temporary room is taken away.
func TestSaveLeftOver(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a")
	h.save()
	h.open(nil)
	if !h.room.Dirty() || !h.room.Idle() || h.room.exists() {
		t.Error("the room is still there")
	}
	h.save()
	if len(h.store.rooms) > 0 {
		t.Error("the room is still found")
	}
}

func TestSavePersistent(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	h.configure("persistentroom=1", "roomname=Coven")
	h.admin("alice/a", "<item nick='bob' affiliation='member'/>")
	h.do("alice/a", "", "<message type='groupchat'><subject>fire</subject></message>")
	h.do("bob/b", "", "<message type='groupchat'><body>hello</body></message>")
	id := h.room.occupantID(stanza.MustParseAddr("bob@localhost"))
	h.save()
	if k := h.store.rooms[coven]; !k.Persistent || strings.Contains(string(k.State), "bob@localhost/b") {
		t.Errorf("%s", k.State)
	}
	h.open(nil)
	if h.room.Dirty() || !h.room.Idle() {
		t.Error("it is not as it was saved")
	}
	h.expect("bob/b", "bob", enter,
		"bob/b < bob: presence member/participant jid=bob/b 110",
		"bob/b < bob: message groupchat body=hello delayed",
		"bob/b < alice: message groupchat subject=fire delayed")
	if got := h.room.occupantID(stanza.MustParseAddr("bob@localhost")); string(got) != string(id) {
		t.Error("the occupant id is another one")
	}
	for _, step := range []string{"<message type='groupchat'><body>again</body></message>"} {
		h.do("bob/b", "", step)
		if !h.room.Dirty() {
			t.Errorf("%s is not saved", step)
		}
	}
	h.do("alice/a", "", "<iq type='set' id='d'><query xmlns='http://jabber.org/protocol/muc#owner'><destroy/></query></iq>")
	h.save()
	if len(h.store.rooms) > 0 {
		t.Error("the room is still kept")
	}
}

func TestSaveTooMany(t *testing.T) {
	h := newHall(t, func(c *Config) { c.RoomsPerUser = 2 })
	for i := range 2 {
		room := stanza.MustParseAddr(fmt.Sprintf("r%d@conference.localhost", i))
		h.store.rooms[room] = Kept{Room: room, Persistent: true, Creator: stanza.MustParseAddr("alice@localhost")}
	}
	h.joinAll("alice/a")
	h.configure("persistentroom=1")
	h.save()
	if k := h.store.rooms[coven]; k.Persistent || !k.Public || h.room.options.Persistent {
		t.Errorf("%+v", k)
	}
	// Nobody is in it any more.
	h.configure("persistentroom=1")
	h.do("alice/a", "alice", "<presence type='unavailable'/>")
	h.save()
	if _, ok := h.store.rooms[coven]; ok || h.room.exists() {
		t.Error("the room is still there")
	}
	// After a crash the room is among those that are counted.
	delete(h.store.rooms, stanza.MustParseAddr("r0@conference.localhost"))
	h.joinAll("alice/a")
	h.configure("persistentroom=1")
	state := h.room.State()
	h.save()
	h.open(state)
	h.save()
	if !h.store.rooms[coven].Persistent {
		t.Error("the room is kept no more")
	}
}

func TestStoreAway(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a")
	h.configure("persistentroom=1")
	h.store.err = errors.New("away")
	if _, err := h.room.Save(t.Context()); !errors.Is(err, h.store.err) || !h.room.Dirty() {
		t.Error(err)
	}
	if _, err := h.sv.Open(t.Context(), coven, nil); !errors.Is(err, h.store.err) {
		t.Error(err)
	}
	h.store.err = nil
	h.save()
}

func TestOpenDamaged(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a")
	h.do("alice/a", "", "<message type='groupchat'><body>hello</body></message>")
	state := string(h.room.State())
	for _, damaged := range []string{"", "{", strings.Replace(state, `"version":1`, `"version":2`, 1), strings.ReplaceAll(state, "<message", "<"), strings.ReplaceAll(state, "<presence", "<")} {
		if _, err := h.sv.Open(t.Context(), coven, []byte(damaged)); err == nil {
			t.Errorf("%s is a state", damaged)
		}
	}
}

// New settings hold for rooms that are opened without a state.
func TestLimitsInState(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a")
	state := h.room.State()
	other := newHall(t, func(c *Config) { c.Occupants = 7 })
	other.open(state)
	if other.room.limits.Occupants != 200 {
		t.Error("the limits are others than those of the state")
	}
	other.open(nil)
	if other.room.limits.Occupants != 7 {
		t.Error("the limits are not those of the settings")
	}
}

// People talk, and the database is not written for each of their messages.
func TestSaveMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t)
		h.joinAll("alice/a")
		h.configure("persistentroom=1")
		h.save()
		say := func(text string) {
			h.do("alice/a", "", "<message type='groupchat'><body>"+text+"</body></message>")
		}
		saved := func(text string) bool {
			if _, err := h.room.Save(t.Context()); err != nil {
				t.Fatal(err)
			}
			return strings.Contains(string(h.store.rooms[coven].State), text)
		}
		say("spoken first")
		if saved("spoken first") {
			t.Error("saved at once")
		}
		time.Sleep(saveEvery)
		if !saved("spoken first") {
			t.Error("not saved for a minute")
		}
		say("spoken second")
		h.open(h.room.State())
		h.do("alice/a", "alice", "<presence type='unavailable'/>")
		if !saved("spoken second") {
			t.Error("not saved when nobody is there")
		}
	})
}
