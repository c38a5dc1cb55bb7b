package main

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"holdfast/internal/sqlx"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/muc"
	"holdfast/stanza"
)

func TestDatabaseURL(t *testing.T) {
	for url, dir := range map[string]string{
		"": "./data", "sqlite:": "./data", "sqlite:kept": "kept", "sqlite:/var/lib/kept": "/var/lib/kept",
		"postgres://h/db": "./data", "postgresql://u:p@h1:1,h2:2/db?sslmode=require": "./data",
	} {
		cfg, err := loadConfig([]string{"HOLDFAST_DATABASE_URL=" + url})
		if err != nil {
			t.Errorf("%s: %v", url, err)
		}
		if got := cfg.DatabaseURL.Dir(cfg.SQLite.Dir); got != dir {
			t.Errorf("%s means the directory %s, want %s", url, got, dir)
		}
	}
	for _, url := range []string{
		"mysql://u:geheim@h/db", "/var/lib/kept", "host=h password=geheim", "sqlite://u:geheim@h", "postgres:geheim",
		"postgres://u:geheim@h:port/db", "postgres://u:geheim@h/db?sslmode=geheim2",
	} {
		_, err := loadConfig([]string{"HOLDFAST_DATABASE_URL=" + url})
		if err == nil || !strings.Contains(err.Error(), "HOLDFAST_DATABASE_URL") || strings.Contains(err.Error(), "geheim@") ||
			strings.Contains(err.Error(), "=geheim ") {
			t.Errorf("%s: %v", url, err)
		}
	}
	_, err := loadConfig([]string{"HOLDFAST_DATABASE_URL=mysql://h/db"})
	for _, accepted := range []string{"sqlite:", "postgres://", "postgresql://"} {
		if err == nil || !strings.Contains(err.Error(), accepted) {
			t.Errorf("%v does not name %s", err, accepted)
		}
	}
}

func TestDatabasePasswordIsNotPrinted(t *testing.T) {
	cfg, err := loadConfig([]string{"HOLDFAST_DATABASE_URL=postgres://u:geheim@h/db?sslpassword=geheim2"})
	if err != nil {
		t.Fatal(err)
	}
	text := printed(t, &cfg)
	if strings.Contains(text, "geheim") || !strings.Contains(text, "HOLDFAST_DATABASE_URL=postgres://u:xxxxx@h/db") {
		t.Errorf("printed:\n%s", text)
	}
}

const ping = "<ping xmlns='urn:xmpp:ping'/>"

// Accounts, rosters and offline messages are in PostgreSQL: a gateway over another data directory has them.
func TestKeptInPostgres(t *testing.T) {
	n := startNode(t, t.TempDir(), map[string]string{"DATABASE_URL": postgresproc.New(t)})
	n.addUsers("alice", "bob")
	alice, bob := n.managed("alice", ""), n.bound("bob")
	alice.available()
	bob.available()
	befriend(alice, bob)
	bob.send("<presence xmlns='jabber:client' type='unavailable'/>")
	bob.iq("get", ping)
	alice.chat("bob@localhost", "one", "two")
	alice.iq("get", ping) // answered behind what came before
	n.stop()

	n = n.next(t.TempDir(), nil)
	bob = n.bound("bob")
	if got := contactsOf(bob); !slices.Equal(got, []string{"alice@localhost both"}) {
		t.Errorf("bob's roster is %v", got)
	}
	bob.available()
	if got := bob.bodies(2); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("bob got %v", got)
	}
	n.user("", "remove", "alice")
	n.await("rid of alice", func() bool { return len(contactsOf(bob)) == 0 || contactsOf(bob)[0] == "alice@localhost none" })
}

// MUC rooms are kept where the rest is, and are there again for the next process.
func TestKeptRooms(t *testing.T) {
	garden := muc.Kept{
		Room:  stanza.MustParseAddr("garden@conference.localhost"),
		State: []byte("state"), Persistent: true,
	}
	for name, url := range map[string]string{"sqlite": "sqlite:" + t.TempDir(), "postgres": postgresproc.New(t)} {
		t.Run(name, func(t *testing.T) {
			cfg, err := loadConfig([]string{"HOLDFAST_DATABASE_URL=" + url})
			if err != nil {
				t.Fatal(err)
			}
			with := func(use func(rooms muc.Store)) {
				t.Helper()
				k, err := openKept(t.Context(), &cfg, nil)
				if err != nil {
					t.Fatal(err)
				}
				use(k.rooms)
				if err := k.Close(); err != nil {
					t.Error(err)
				}
			}
			with(func(rooms muc.Store) {
				if err := rooms.Save(t.Context(), garden); err != nil {
					t.Error(err)
				}
			})
			with(func(rooms muc.Store) {
				if k, ok, err := rooms.Load(t.Context(), garden.Room); string(k.State) != "state" || !ok || err != nil {
					t.Errorf("%+v, %v, %v", k, ok, err)
				}
			})
		})
	}
}

// PostgreSQL goes away: the gateway is not ready, goes on with what it knows and has lost nothing when it is back.
func TestPostgresGoesAway(t *testing.T) {
	n := startNode(t, t.TempDir(), map[string]string{"DATABASE_URL": postgresproc.New(t), "AUTH_CACHE_AGE": "1m"})
	n.addUsers("alice", "bob")
	alice := n.managed("alice", "")
	alice.chat("bob@localhost", "0")
	alice.acked(1)
	server := postgresproc.Get(t)
	server.Kill(t)
	n.await("unready", func() bool {
		code, why := n.body("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(why, "database")
	})
	if n.get("/healthz") != http.StatusOK {
		t.Error("not alive")
	}
	alice.chat("bob@localhost", "1", "2", "3")
	alice.acked(4)
	server.Start(t)
	n.await("ready again", func() bool { return n.get("/readyz") == http.StatusOK })
	bob := n.bound("bob")
	bob.available()
	if got := bob.bodies(4); !slices.Equal(got, []string{"0", "1", "2", "3"}) {
		t.Errorf("bob got %v", got)
	}
	bob.quiet()
}

// A directory of its own for what is kept, which no second gateway may serve from.
func TestKeptInAnotherDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kept")
	n := startNode(t, t.TempDir(), map[string]string{"DATABASE_URL": "sqlite:" + dir})
	n.addUsers("alice")
	n.bound("alice")
	if _, err := os.Stat(filepath.Join(dir, sqlx.File)); err != nil {
		t.Error(err)
	}
	if _, err := sqlx.Acquire(dir); err == nil {
		t.Error("a second gateway may serve from it")
	}
	n.stop()
	n = n.next(t.TempDir(), nil)
	n.bound("alice")
}
