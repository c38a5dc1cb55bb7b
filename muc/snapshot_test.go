package muc

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
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

// A room that was opened from its State answers by the settings that it was opened with first.
func TestSettingsInState(t *testing.T) {
	states := func(h *hall) (all []string) {
		for _, state := range [][]byte{nil, h.room.State()} {
			if state != nil {
				h.open(state)
			}
			for _, from := range []string{"guest/g", "alice/a", "root/r"} {
				all = append(all, h.join(from, "nick")...)
				all = append(all, h.do(from, "", configuration("roomname=x"))...)
				h.do(from, "nick", "<presence type='unavailable'/>")
			}
		}
		return all
	}
	for _, c := range []struct {
		name   string
		change func(*Config)
		named  bool
	}{
		{"users", func(*Config) {}, false},
		{"nobody", func(c *Config) { c.Create = CreateNobody }, false},
		{"named", func(c *Config) { c.Create = CreateNobody }, true},
		{"admins", func(c *Config) { c.Admins = []string{"root@localhost"} }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHall(t, c.change)
			h.named = c.named
			h.open(nil)
			other := newHall(t, func(cfg *Config) {
				c.change(cfg)
				if cfg.Admins == nil {
					cfg.Admins = []string{"alice@localhost"}
				} else {
					cfg.Admins = nil
				}
				cfg.Create = map[string]string{CreateUsers: CreateNobody, CreateNobody: CreateUsers}[cfg.Create]
			})
			other.named = !c.named
			other.open(h.room.State())
			if diff := cmp.Diff(states(h), states(other)); diff != "" {
				t.Errorf("-before +under other settings\n%s", diff)
			}
			if diff := cmp.Diff(string(h.room.State()), string(other.room.State())); diff != "" {
				t.Errorf("-before +under other settings\n%s", diff)
			}
		})
	}
}

// What the State says is saved the database may have lost with the power.
func TestSaveOnceMore(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a")
	h.configure("persistentroom=1")
	h.save()
	saved, state := h.store.rooms[coven], h.room.State()
	delete(h.store.rooms, coven)
	h.open(state)
	if string(h.room.State()) != string(state) {
		t.Error("the state is another one")
	}
	h.store.failed = errors.New("away")
	if _, err := h.room.Save(t.Context()); err == nil || !h.room.Dirty() {
		t.Error("it is saved, and the store is away")
	}
	h.store.failed = nil
	h.save()
	if k := h.store.rooms[coven]; string(k.State) != string(saved.State) {
		t.Errorf("%+v", k)
	}
	if changed, err := h.room.Save(t.Context()); changed || err != nil {
		t.Error("it is saved again and again")
	}
	// Also the end of a room may be lost.
	h.do("alice/a", "", "<iq type='set' id='d'><query xmlns='http://jabber.org/protocol/muc#owner'><destroy/></query></iq>")
	h.save()
	h.store.rooms[coven] = saved
	h.open(h.room.State())
	h.save()
	if len(h.store.rooms) > 0 {
		t.Error("the room has come back")
	}
}

// Whoever has another State after Save is told so, whether it succeeds or not.
func TestSaveChanged(t *testing.T) {
	full := func(h *hall) {
		room := stanza.MustParseAddr("other@conference.localhost")
		h.store.rooms[room] = Kept{Room: room, Persistent: true, Creator: stanza.MustParseAddr("alice@localhost")}
	}
	persistent := func(h *hall) { h.configure("persistentroom=1") }
	leave := func(h *hall) { h.do("alice/a", "alice", "<presence type='unavailable'/>") }
	for _, c := range []struct {
		name   string
		before []func(*hall)
	}{
		{"temporary", nil},
		{"hidden", []func(*hall){func(h *hall) { h.configure("publicroom=0") }}},
		{"ended", []func(*hall){leave}},
		{"persistent", []func(*hall){persistent}},
		{"one too many", []func(*hall){full, persistent}},
		{"one too many and left", []func(*hall){full, persistent, leave}},
		{"opened again", []func(*hall){persistent, (*hall).save, func(h *hall) { h.open(h.room.State()) }}},
		{"spoken", []func(*hall){persistent, (*hall).save, func(h *hall) {
			h.do("alice/a", "", "<message type='groupchat'><body>hello</body></message>")
		}, leave}},
	} {
		for _, fail := range []func(*memoryStore, error){
			func(*memoryStore, error) {},
			func(s *memoryStore, err error) { s.failed = err },
			func(s *memoryStore, err error) { s.err = err },
		} {
			h := newHall(t, func(cfg *Config) { cfg.RoomsPerUser = 1 })
			h.joinAll("alice/a")
			for _, f := range c.before {
				f(h)
			}
			fail(h.store, errors.New("away"))
			for range 3 {
				before := string(h.room.State())
				changed, err := h.room.Save(t.Context())
				if !changed && string(h.room.State()) != before {
					t.Errorf("%s: another state, and it does not say so; %v", c.name, err)
				}
			}
			h.store.err, h.store.failed = nil, nil
			h.save()
		}
	}
}

// The operator's rooms count for nobody.
func TestSaveNamed(t *testing.T) {
	h := newHall(t, func(c *Config) { c.RoomsPerUser, c.Admins = 1, []string{"alice@localhost"} })
	h.named = true
	h.open(nil)
	h.joinAll("alice/a")
	room := stanza.MustParseAddr("other@conference.localhost")
	h.store.rooms[room] = Kept{Room: room, Persistent: true, Creator: h.room.nobody()}
	h.configure("persistentroom=1")
	h.save()
	if !h.store.rooms[coven].Persistent {
		t.Error("the room is not kept")
	}
	h.do("alice/a", "alice", "<presence type='unavailable'/>")
	h.named = false
	h.open(nil)
	h.expect("bob/b", "bob", enter,
		"bob/b < bob: presence none/participant jid=bob/b 110",
		"bob/b < room: message groupchat subject")
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
