package muc

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/internal/sqlx"
	"holdfast/internal/sqlx/sqlxtest"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/stanza"
)

// storeBackend opens a Store at a place; what was there before is there again.
type storeBackend struct {
	name  string
	place func(t testing.TB) string
	open  func(t testing.TB, place string) Store
}

var storeBackends = []storeBackend{
	{
		name:  "sqlite",
		place: func(t testing.TB) string { return t.TempDir() },
		open: func(t testing.TB, dir string) Store {
			s, err := NewSQLite(t.Context(), sqlxtest.OpenDir(t, dir))
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	},
	{
		name:  "postgres",
		place: postgresproc.New,
		open: func(t testing.TB, url string) Store {
			return openedPostgres(t, sqlxtest.OpenPostgres(t, url))
		},
	},
}

func openedPostgres(t testing.TB, db *sqlx.Postgres) *Postgres {
	t.Helper()
	s, err := NewPostgres(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func saveRooms(t testing.TB, s Store, rooms ...Kept) {
	t.Helper()
	for _, k := range rooms {
		if err := s.Save(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
}

func removeRoom(t testing.TB, s Store, room stanza.Addr) {
	t.Helper()
	if err := s.Remove(t.Context(), room); err != nil {
		t.Fatal(err)
	}
}

func wantKept(t testing.TB, s Store, want Kept) {
	t.Helper()
	got, ok, err := s.Load(t.Context(), want.Room)
	if err != nil || !ok {
		t.Fatalf("%v: %v, %v", want.Room, ok, err)
	}
	if diff := cmp.Diff(want, got, sameKept); diff != "" {
		t.Errorf("%v: -want +got\n%s", want.Room, diff)
	}
}

func wantNotKept(t testing.TB, s Store, room stanza.Addr) {
	t.Helper()
	if k, ok, err := s.Load(t.Context(), room); ok || err != nil {
		t.Errorf("%v: %+v, %v, %v", room, k, ok, err)
	}
}

func wantPersistent(t testing.TB, s Store, creator stanza.Addr, want int) {
	t.Helper()
	if n, err := s.Persistent(t.Context(), creator); n != want || err != nil {
		t.Errorf("%v has %d persistent rooms, want %d: %v", creator, n, want, err)
	}
}

// pages lists all public rooms of a host, count at a time.
func pages(t testing.TB, s Store, host string, count int) (all []Kept) {
	t.Helper()
	after := ""
	for {
		page, err := s.Public(t.Context(), host, after, count)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) > count {
			t.Fatalf("a page of %d rooms, %d at most", len(page), count)
		}
		all = append(all, page...)
		if len(page) < count {
			return all
		}
		after = page[count-1].Room.String()
	}
}

// sameKept also tells no State from an empty one.
var sameKept = cmp.Options{
	cmp.Comparer(func(a, b stanza.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }),
}

const storeHost = "conference.localhost"

var (
	storeUser  = stanza.MustParseAddr("romeo@localhost")
	storeOther = stanza.MustParseAddr("juliet@localhost")
)

func storeAddr(host, name string) stanza.Addr { return stanza.MustParseAddr(name + "@" + host) }

// storeRoom has everything that a Store keeps.
func storeRoom(name string) Kept {
	return Kept{
		Room: storeAddr(storeHost, name), Name: "Kapulet & \"Montag\" <'é日\U0001f3ad>\n", Creator: storeUser,
		Public: true, Persistent: true, State: []byte("\x00\x01<room/>\xff"),
	}
}

// Every backend passes the same suite.
func TestStore(t *testing.T) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, storeBackend)
	}{
		{"what is not there", testStoreAbsent},
		{"save and replace", testStoreSave},
		{"remove", testStoreRemove},
		{"pages", testStorePages},
		{"limits of a page", testStorePageLimits},
		{"persistent", testStorePersistent},
		{"large state", testStoreLarge},
		{"long addresses", testStoreLongAddresses},
		{"rooms at once", testStoreRoomsAtOnce},
		{"one room at once", testStoreOneRoomAtOnce},
		{"reopened", testStoreReopened},
		{"ended context", testStoreEndedContext},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, b := range storeBackends {
				t.Run(b.name, func(t *testing.T) { test.run(t, b) })
			}
		})
	}
}

func testStoreAbsent(t *testing.T, b storeBackend) {
	s := b.open(t, b.place(t))
	nowhere := storeAddr(storeHost, "nowhere")
	wantNotKept(t, s, nowhere)
	removeRoom(t, s, nowhere)
	wantPersistent(t, s, storeUser, 0)
	if got := pages(t, s, storeHost, 10); len(got) != 0 {
		t.Errorf("listed: %v", got)
	}
	saveRooms(t, s, storeRoom("garden"))
	wantNotKept(t, s, nowhere)
	wantNotKept(t, s, storeAddr("conference.localhost2", "garden"))
	wantNotKept(t, s, storeAddr(storeHost, "garde_"))
}

func testStoreSave(t *testing.T, b storeBackend) {
	s := b.open(t, b.place(t))
	other := storeRoom("balcony")
	saveRooms(t, s, other)
	for _, k := range []Kept{
		storeRoom("garden"),
		storeRoom("garden"), // once more, as after an answer that was lost
		{Room: storeAddr(storeHost, "garden"), Name: "Garden", Creator: storeOther, Persistent: true, State: []byte("2")},
		{Room: storeAddr(storeHost, "garden"), Creator: storeUser, Public: true}, // a temporary room has no state
		{Room: storeAddr(storeHost, "garden")},
	} {
		saveRooms(t, s, k)
		wantKept(t, s, k)
	}
	wantKept(t, s, other)
}

func testStoreRemove(t *testing.T, b storeBackend) {
	s := b.open(t, b.place(t))
	garden, balcony := storeRoom("garden"), storeRoom("balcony")
	saveRooms(t, s, garden, balcony)
	for range 2 {
		removeRoom(t, s, garden.Room)
		wantNotKept(t, s, garden.Room)
	}
	wantKept(t, s, balcony)
	wantPersistent(t, s, storeUser, 1)
	if got := pages(t, s, storeHost, 10); len(got) != 1 || got[0].Room != balcony.Room {
		t.Errorf("listed: %v", got)
	}
	saveRooms(t, s, garden)
	wantKept(t, s, garden)
}

// storeNames are names of rooms that languages and UTF-16 sort otherwise than their bytes: '@' ends a name, capitals are
// none, accents do not come first, and U+FA0E precedes U+20000.
var storeNames = []string{
	"-", "0", "a!", "a.b", "a", "a_", "aa", "ab", "b", "rooma", "z", "~", "ä", "äa", "œ", "ß", "ж", "жа", "א", "ก",
	"日", "日本", "한", "﨎", "𠀀",
}

func testStorePages(t *testing.T, b storeBackend) {
	s := b.open(t, b.place(t))
	var want []Kept
	for i, name := range storeNames {
		k := storeRoom(name)
		k.Name, k.Persistent = strings.ToUpper(name), i%2 == 0
		want = append(want, k)
	}
	slices.SortFunc(want, func(a, b Kept) int { return strings.Compare(a.Room.String(), b.Room.String()) })
	for i := range want {
		// In an order of saving that is neither this one nor its reverse.
		saveRooms(t, s, want[i*7%len(want)])
		hidden, elsewhere := storeRoom(fmt.Sprintf("hidden%d", i)), storeRoom(storeNames[i])
		hidden.Public = false
		elsewhere.Room = storeAddr("conference.localhost2", storeNames[i])
		saveRooms(t, s, hidden, elsewhere)
	}
	for i := range want {
		want[i].State = nil
	}
	for _, count := range []int{1, 2, 7, len(want) - 1, len(want), len(want) + 1} {
		if diff := cmp.Diff(want, pages(t, s, storeHost, count), sameKept); diff != "" {
			t.Errorf("pages of %d: -want +got\n%s", count, diff)
		}
	}
}

func testStorePageLimits(t *testing.T, b storeBackend) {
	s := b.open(t, b.place(t))
	saveRooms(t, s, storeRoom("a"), storeRoom("c"), storeRoom("e"))
	for _, test := range []struct {
		after string
		count int
		want  string
	}{
		{"", 3, "ace"},
		{"", 2, "ac"},
		{"", 0, ""},
		{"", -1, ""},
		{"a@" + storeHost, 1, "c"},
		{"b@" + storeHost, 9, "ce"}, // it is gone, or never was
		{"e@" + storeHost, 9, ""},
		{"no address /", 9, ""},
		{"' OR ''='", 9, "ace"},
	} {
		list, err := s.Public(t.Context(), storeHost, test.after, test.count)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, k := range list {
			got += k.Room.Local()
		}
		if got != test.want {
			t.Errorf("%d after %q: %q, want %q", test.count, test.after, got, test.want)
		}
	}
}

func testStorePersistent(t *testing.T, b storeBackend) {
	s := b.open(t, b.place(t))
	for i := range 3 {
		kept, hidden, temporary := storeRoom(fmt.Sprint("kept", i)), storeRoom(fmt.Sprint("hidden", i)), storeRoom(fmt.Sprint("temporary", i))
		hidden.Public, temporary.Persistent = false, false
		saveRooms(t, s, kept, hidden, temporary)
	}
	theirs := storeRoom("theirs")
	theirs.Creator = storeOther
	saveRooms(t, s, theirs)
	wantPersistent(t, s, storeUser, 6)
	wantPersistent(t, s, storeOther, 1)
	wantPersistent(t, s, stanza.MustParseAddr("romeo@localhost2"), 0)

	// A room that is replaced counts once, and as what it is now.
	changed := storeRoom("kept0")
	saveRooms(t, s, changed)
	wantPersistent(t, s, storeUser, 6)
	changed.Persistent = false
	saveRooms(t, s, changed)
	wantPersistent(t, s, storeUser, 5)
	changed.Persistent, changed.Creator = true, storeOther
	saveRooms(t, s, changed)
	wantPersistent(t, s, storeUser, 5)
	wantPersistent(t, s, storeOther, 2)
	removeRoom(t, s, changed.Room)
	wantPersistent(t, s, storeOther, 1)
}

func testStoreLarge(t *testing.T, b storeBackend) {
	s := b.open(t, b.place(t))
	k := storeRoom("garden")
	k.State = incompressible(1 << 20)
	saveRooms(t, s, k, storeRoom("balcony"))
	wantKept(t, s, k)
	k.State = bytes.Repeat([]byte{0}, 1<<20)
	saveRooms(t, s, k)
	wantKept(t, s, k)
	k.State = []byte("small")
	saveRooms(t, s, k)
	wantKept(t, s, k)
}

// incompressible is n bytes that are the same each time.
func incompressible(n int) []byte {
	b := make([]byte, 0, n+sha512.Size)
	for i := 0; len(b) < n; i++ {
		sum := sha512.Sum512(fmt.Append(nil, i))
		b = append(b, sum[:]...)
	}
	return b[:n]
}

// The longest addresses are not too long for an index, and may differ in nothing but the end.
func testStoreLongAddresses(t *testing.T, b storeBackend) {
	s := b.open(t, b.place(t))
	const most = 1023
	local := hex.EncodeToString(incompressible(most/2 + 1))[:most-1]
	host := "conference." + strings.Repeat(strings.Repeat("h", 60)+".", 3) + "example"
	var rooms []Kept
	for _, end := range []string{"a", "b"} {
		k := storeRoom("garden")
		k.Room = storeAddr(host, local+end)
		k.Creator = stanza.MustParseAddr(local + end + "@" + strings.TrimPrefix(host, "conference."))
		rooms = append(rooms, k)
	}
	saveRooms(t, s, rooms...)
	for _, k := range rooms {
		wantKept(t, s, k)
		wantPersistent(t, s, k.Creator, 1)
	}
	if got := pages(t, s, host, 1); len(got) != 2 || got[0].Room != rooms[0].Room || got[1].Room != rooms[1].Room {
		t.Errorf("listed: %v", got)
	}
}

func testStoreRoomsAtOnce(t *testing.T, b storeBackend) {
	s := b.open(t, b.place(t))
	const rooms, saves = 8, 5
	var wg sync.WaitGroup
	for i := range rooms {
		wg.Go(func() {
			k := storeRoom(fmt.Sprint("room", i))
			for n := range saves {
				k.Name, k.State = fmt.Sprint("name ", i, n), fmt.Append(nil, "state ", i, n)
				if err := s.Save(context.Background(), k); err != nil {
					t.Error(err)
				}
				got, ok, err := s.Load(context.Background(), k.Room)
				if err != nil || !ok || !cmp.Equal(got, k, sameKept) {
					t.Errorf("%+v, %v, %v, want %+v", got, ok, err, k)
				}
				if _, err := s.Public(context.Background(), storeHost, "", rooms); err != nil {
					t.Error(err)
				}
			}
			if i%2 == 1 {
				if err := s.Remove(context.Background(), k.Room); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantPersistent(t, s, storeUser, rooms/2)
	if got := pages(t, s, storeHost, 3); len(got) != rooms/2 {
		t.Errorf("%d rooms are listed, want %d", len(got), rooms/2)
	}
}

// Two nodes may believe for a moment that a room is theirs. One of them wins, as a whole.
func testStoreOneRoomAtOnce(t *testing.T, b storeBackend) {
	place := b.place(t)
	stores := []Store{b.open(t, place), b.open(t, place)}
	var wg sync.WaitGroup
	for i, s := range stores {
		wg.Go(func() {
			for n := range 10 {
				k := storeRoom("garden")
				k.Name = fmt.Sprint("save ", i, n)
				k.State = []byte(k.Name)
				if err := s.Save(context.Background(), k); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	k, ok, err := stores[0].Load(t.Context(), storeAddr(storeHost, "garden"))
	if err != nil || !ok || k.Name != string(k.State) || !strings.HasSuffix(k.Name, "9") {
		t.Errorf("%+v, %v, %v", k, ok, err)
	}
	wantPersistent(t, stores[1], storeUser, 1)
}

func testStoreReopened(t *testing.T, b storeBackend) {
	place := b.place(t)
	// The first one is never closed before the second reads, as after a kill.
	first := b.open(t, place)
	garden, gone := storeRoom("garden"), storeRoom("gone")
	saveRooms(t, first, garden, gone)
	removeRoom(t, first, gone.Room)
	second := b.open(t, place)
	wantKept(t, second, garden)
	wantNotKept(t, second, gone.Room)
	wantPersistent(t, second, storeUser, 1)
}

func testStoreEndedContext(t *testing.T, b storeBackend) {
	s := b.open(t, b.place(t))
	garden := storeRoom("garden")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Save(ctx, garden); !errors.Is(err, context.Canceled) {
		t.Errorf("save for a caller that had gone: %v", err)
	}
	wantNotKept(t, s, garden.Room)
	saveRooms(t, s, garden)
	if err := s.Remove(ctx, garden.Room); !errors.Is(err, context.Canceled) {
		t.Errorf("remove for a caller that had gone: %v", err)
	}
	wantKept(t, s, garden)
}

// A server that is killed takes nothing with it, and while it is away what fails may be tried again.
func TestStorePostgresKilled(t *testing.T) {
	s := openedPostgres(t, sqlxtest.OpenPostgres(t, postgresproc.New(t)))
	garden := storeRoom("garden")
	saveRooms(t, s, garden)
	server := postgresproc.Get(t)
	server.Kill(t)
	_, ok, err := s.Load(t.Context(), garden.Room)
	if ok {
		t.Error("it answers")
	}
	_, listed := s.Public(t.Context(), storeHost, "", 1)
	_, counted := s.Persistent(t.Context(), storeUser)
	for what, err := range map[string]error{
		"load": err, "list": listed, "count": counted,
		"save": s.Save(t.Context(), garden), "remove": s.Remove(t.Context(), garden.Room),
	} {
		if !sqlx.Transient(err) || !strings.HasPrefix(err.Error(), "muc: "+what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	server.Start(t)
	wantKept(t, s, garden)
	removeRoom(t, s, garden.Room)
	wantNotKept(t, s, garden.Room)
}

// A node that others have taken for dead writes nothing over what they have written since.
func TestStorePostgresFenced(t *testing.T) {
	url := postgresproc.New(t)
	open := func(node string) (*sqlx.Postgres, *Postgres) {
		db := sqlxtest.OpenPostgres(t, url)
		if err := db.Join(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		return db, openedPostgres(t, db)
	}
	_, paused := open("paused")
	db, heir := open("heir")
	saveRooms(t, paused, storeRoom("garden"))
	if err := db.Fence(t.Context(), "paused"); err != nil {
		t.Fatal(err)
	}
	theirs := storeRoom("garden")
	theirs.State = []byte("later")
	saveRooms(t, heir, theirs)
	if err := paused.Save(t.Context(), storeRoom("garden")); !errors.Is(err, sqlx.ErrFenced) {
		t.Errorf("save: %v", err)
	}
	if err := paused.Remove(t.Context(), theirs.Room); !errors.Is(err, sqlx.ErrFenced) {
		t.Errorf("remove: %v", err)
	}
	wantKept(t, heir, theirs)
}

// Save and Remove come back when the disk has it; where they cannot make sure of that they say so.
func TestStoreSQLiteOnDisk(t *testing.T) {
	db := sqlxtest.OpenDir(t, t.TempDir())
	s, err := NewSQLite(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	garden := storeRoom("garden")
	saveRooms(t, s, garden)
	log := filepath.Join(db.Dir(), sqlx.File+"-wal")
	rename := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	rename(log, log+".away")
	if err := os.Symlink(log, log); err != nil { // nobody can open it
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), garden); err == nil {
		t.Error("saved, and nobody knows whether it is on the disk")
	}
	if err := s.Remove(t.Context(), garden.Room); err == nil {
		t.Error("removed, and nobody knows whether that is on the disk")
	}
	rename(log+".away", log)
	saveRooms(t, s, garden)
	wantKept(t, s, garden)
}
