package auth

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

func open(c *Config) { c.Registration = RegistrationOpen }

func TestRegister(t *testing.T) { // XEP-0077 §3.1
	s := newService(t, newMemStore(), open)
	ctx := t.Context()
	for _, c := range []struct {
		name, username, password string
		want                     error
	}{
		{"new", "alice", "secret", nil},
		{"taken", "alice", "secret", ErrConflict},
		{"taken in another case", "ALICE", "secret", ErrConflict},
		{"no name", "", "secret", ErrNameNotAllowed},
		{"an address", "bob@localhost", "secret", ErrNameNotAllowed},
		{"a name that is not allowed", "b ob", "secret", ErrNameNotAllowed},
		{"no password", "bob", "", ErrNotAcceptable},
		{"a password that is not allowed", "bob", "\u0007", ErrNotAcceptable},
	} {
		if err := s.Register(ctx, "localhost", c.username, c.password, home); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := login(t, s, ScramSHA256, "alice", "secret", "", home); err != nil {
		t.Error(err)
	}
	if err := s.ChangePassword(ctx, alice, "other"); err != nil { // §3.3
		t.Error(err)
	}
	if _, err := login(t, s, ScramSHA256, "alice", "other", "", home); err != nil {
		t.Error(err)
	}
	if err := s.ChangePassword(ctx, alice, ""); !errors.Is(err, ErrNotAcceptable) {
		t.Error(err)
	}
	full, _ := alice.WithResource("phone")
	if err := s.Unregister(ctx, full); err != nil { // §3.2
		t.Error(err)
	}
	if err := s.Unregister(ctx, alice); !errors.Is(err, ErrNotRegistered) {
		t.Error(err)
	}
	if _, err := login(t, s, ScramSHA256, "alice", "other", "", home); !errors.Is(err, NotAuthorized) {
		t.Error(err)
	}
}

func TestRegistrationOff(t *testing.T) {
	s := withAlice(t, newService(t, newMemStore()))
	if s.RegistrationOffered() {
		t.Error("offered")
	}
	for name, err := range map[string]error{
		"register":   s.Register(t.Context(), "localhost", "bob", "secret", home),
		"password":   s.ChangePassword(t.Context(), alice, "other"),
		"unregister": s.Unregister(t.Context(), alice),
	} {
		if !errors.Is(err, ErrRegistrationOff) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRegistrationErrorOnTheWire(t *testing.T) {
	s := withAlice(t, newService(t, newMemStore(), open))
	err := s.Register(t.Context(), "localhost", "alice", "secret", home)
	var wire mstanza.Error
	if !errors.As(err, &wire) || wire.Condition != mstanza.Conflict || wire.Type != mstanza.Cancel || wire.Text["en"] == "" {
		t.Errorf("%v: %+v", err, wire)
	}
	store := newMemStore()
	s = newService(t, store, open)
	store.broken(errors.New("the disk is gone"))
	if err := s.Register(t.Context(), "localhost", "alice", "secret", home); !errors.Is(err, ErrRegistration) {
		t.Errorf("store failure: %v", err)
	}
}

func TestRegistrationRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, newMemStore(), open, func(c *Config) { c.RegistrationRate, c.Mechanisms = 2, []string{ScramSHA256} })
		register := func(name string, from netip.Addr) error {
			return s.Register(context.Background(), "localhost", name, "secret", from)
		}
		if err := register("bad name", home); !errors.Is(err, ErrNameNotAllowed) {
			t.Error(err) // does not count
		}
		for i, want := range []error{nil, ErrConflict, ErrTooManyAccounts, ErrTooManyAccounts} {
			if err := register("one", home); !errors.Is(err, want) {
				t.Errorf("%d: %v, want %v", i, err, want)
			}
		}
		if err := register("two", away); err != nil {
			t.Errorf("another address: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if err := register("three", home); err != nil {
			t.Errorf("later: %v", err)
		}
		free := newService(t, newMemStore(), open, func(c *Config) { c.RegistrationRate, c.Mechanisms = 0, []string{ScramSHA256} })
		for i := range 50 {
			if err := free.Register(context.Background(), "localhost", string(rune('a'+i%26))+string(rune('a'+i/26)), "secret", home); err != nil {
				t.Fatalf("%d without a limit: %v", i, err)
			}
		}
		if ok, _ := free.Accounts().Exists(context.Background(), stanza.MustParseAddr("xb@localhost")); !ok {
			t.Error("not registered")
		}
	})
}
