package auth

import (
	"context"
	"errors"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/stanza"
)

func withGuests(change ...func(*Config)) func(*Config) {
	return func(c *Config) {
		c.GuestContacts = []string{"alice@localhost"}
		for _, f := range change {
			f(c)
		}
	}
}

// anonymous logs a guest in with this trace.
func anonymous(t testing.TB, s *Service, trace string, from netip.Addr) (stanza.Addr, error) {
	t.Helper()
	e, err := s.Begin(Anonymous, "localhost", from, false)
	if err != nil {
		return stanza.Addr{}, err
	}
	challenge, done, err := e.Step(t.Context(), []byte(trace))
	if err != nil {
		return e.User(), err
	}
	if !done || len(challenge) != 0 {
		t.Errorf("ANONYMOUS went on with %q", challenge)
	}
	return e.User(), nil
}

var guestSecretOfTests = guestSecretPrefix + strings.Repeat("s3", 22)

func TestNoGuestsUnlessAllowed(t *testing.T) {
	s := newService(t, newMemStore())
	if slices.Contains(s.Mechanisms(true), Anonymous) {
		t.Error("ANONYMOUS is offered")
	}
	if _, err := anonymous(t, s, "", home); !errors.Is(err, InvalidMechanism) {
		t.Errorf("ANONYMOUS: %v", err)
	}
	if s := newService(t, newMemStore(), withGuests()); !slices.Contains(s.Mechanisms(false), Anonymous) {
		t.Error("ANONYMOUS is not offered")
	}
}

// RFC 4505 §2, XEP-0175: without a trace, or with one that is not ours, each guest is somebody new.
func TestGuestsAreNew(t *testing.T) {
	s := newService(t, newMemStore(), withGuests())
	seen := map[stanza.Addr]bool{}
	for _, trace := range []string{"", "", "somebody@example.com", "somebody@example.com", "holdfast:short", "holdfast:short", guestSecretPrefix + strings.Repeat("!", 50), guestSecretPrefix + strings.Repeat("!", 50)} {
		user, err := anonymous(t, s, trace, home)
		if err != nil || !IsGuest(user) || seen[user] {
			t.Errorf("%q: %v, %v", trace, user, err)
		}
		seen[user] = true
		if ok, err := s.Accounts().Exists(t.Context(), user); !ok || err != nil {
			t.Errorf("%v does not exist: %v", user, err)
		}
	}
	for _, trace := range []string{strings.Repeat("x", maxTrace+1), "\xff"} {
		if user, err := anonymous(t, s, trace, home); !errors.Is(err, MalformedRequest) || !user.IsZero() {
			t.Errorf("%q: %v, %v", trace, user, err)
		}
	}
}

func TestGuestComesBack(t *testing.T) {
	s := newService(t, newMemStore(), withGuests(func(c *Config) { c.GuestRate = 1 }))
	first, err := anonymous(t, s, guestSecretOfTests, home)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // which is no new guest
		if again, err := anonymous(t, s, guestSecretOfTests, home); again != first || err != nil {
			t.Errorf("%v came back as %v: %v", first, again, err)
		}
	}
	other := guestSecretOfTests + "x"
	if _, err := anonymous(t, s, other, home); !errors.Is(err, TooManyGuests) {
		t.Errorf("a second new guest from one address: %v", err)
	}
	if second, err := anonymous(t, s, other, away); err != nil || second == first {
		t.Errorf("from elsewhere: %v, %v", second, err)
	}
	// The name does not give the secret away, and no password opens the account.
	if strings.Contains(first.String(), "s3s3") {
		t.Errorf("%v", first)
	}
	if _, err := login(t, s, Plain, first.Local(), "anything", "", away); !errors.Is(err, NotAuthorized) {
		t.Errorf("a guest's name with a password: %v", err)
	}
	if err := s.ChangePassword(t.Context(), first, "secret"); err == nil {
		t.Error("a guest has a password now")
	}
}

func TestGuestsAreCapped(t *testing.T) {
	s := newService(t, newMemStore(), withGuests(func(c *Config) { c.Guests = 2 }))
	first, err := anonymous(t, s, guestSecretOfTests, home)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := anonymous(t, s, "", home); err != nil {
		t.Fatal(err)
	}
	if _, err := anonymous(t, s, "", home); !errors.Is(err, TooManyGuests) {
		t.Errorf("a third of two guests: %v", err)
	}
	if again, err := anonymous(t, s, guestSecretOfTests, home); again != first || err != nil {
		t.Errorf("one who is there: %v, %v", again, err)
	}
	if err := s.Accounts().SetDisabled(t.Context(), first, true); err != nil {
		t.Fatal(err)
	}
	if _, err := anonymous(t, s, guestSecretOfTests, home); !errors.Is(err, AccountDisabled) {
		t.Errorf("a disabled guest: %v", err)
	}
}

// An account that somebody made by hand is not a guest's, whatever its name is.
func TestGuestsTakeNoAccounts(t *testing.T) {
	s := newService(t, newMemStore(), withGuests(), func(c *Config) { c.Registration = RegistrationOpen })
	name := GuestName(guestSecret(guestSecretOfTests))
	if err := s.Register(t.Context(), "localhost", name, "secret", home); !errors.Is(err, ErrNameNotAllowed) {
		t.Errorf("somebody registers %s: %v", name, err)
	}
	if err := s.Accounts().Create(t.Context(), stanza.MustParseAddr(name+"@localhost"), "secret"); err != nil {
		t.Fatal(err)
	}
	if _, err := anonymous(t, s, guestSecretOfTests, home); !errors.Is(err, NotAuthorized) {
		t.Errorf("the operator's account: %v", err)
	}
}

func TestGuestsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, newMemStore(), withGuests(func(c *Config) { c.GuestLifetime = 40 * time.Minute }))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var removed []stanza.Addr
		s.Accounts().OnRemoved("test", func(_ context.Context, user stanza.Addr) error {
			removed = append(removed, user)
			return nil
		})
		go s.Accounts().Watch(ctx)
		connected, err := anonymous(t, s, "", home)
		if err != nil {
			t.Fatal(err)
		}
		others := []stanza.Addr{connected, stanza.MustParseAddr("bob@localhost"), stanza.MustParseAddr(GuestName("nobody") + "@localhost")}
		go s.ExpireGuests(ctx, func() iter.Seq[stanza.Addr] { return slices.Values(others) })
		stays, err := anonymous(t, s, guestSecretOfTests, home)
		if err != nil {
			t.Fatal(err)
		}
		goes, err := anonymous(t, s, "", home)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			time.Sleep(20 * time.Minute)
			synctest.Wait()
			if user, err := anonymous(t, s, guestSecretOfTests, home); user != stays || err != nil {
				t.Fatalf("%v, %v", user, err)
			}
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if !slices.Equal(removed, []stanza.Addr{goes}) {
			t.Errorf("removed: %v, want %v", removed, goes)
		}
		for user, want := range map[stanza.Addr]bool{stays: true, goes: false, connected: true, others[1]: false, others[2]: false} {
			if ok, err := s.Accounts().Exists(t.Context(), user); ok != want || err != nil {
				t.Errorf("%v: exists %v, %v", user, ok, err)
			}
		}
	})
}

func TestWhomGuestsMayReach(t *testing.T) {
	s := newService(t, newMemStore(), withGuests())
	guest, err := anonymous(t, s, "", home)
	if err != nil {
		t.Fatal(err)
	}
	other := stanza.MustParseAddr(GuestName("other") + "@localhost")
	reach := func(s *Service, want bool, from stanza.Addr, to string) {
		t.Helper()
		if got := s.MayReach(from, stanza.MustParseAddr(to)); got != want {
			t.Errorf("%v to %s: %v", from, to, got)
		}
	}
	reach(s, true, guest, "alice@localhost")
	reach(s, true, guest, "alice@localhost/phone")
	reach(s, true, guest, guest.String()+"/other")
	reach(s, false, guest, "bob@localhost")
	reach(s, false, guest, "alice@example.com")
	reach(s, false, guest, other.String())
	reach(s, true, bob, "alice@localhost")
	reach(s, true, bob, guest.String())
	each := newService(t, newMemStore(), func(c *Config) { c.GuestContacts = []string{EachOther} })
	reach(each, true, guest, other.String())
	reach(each, false, guest, "alice@localhost")
}

// The widget makes the same name of the secret (webclient/test/small.test.ts).
func TestGuestName(t *testing.T) {
	if got, want := GuestName(strings.Repeat("s3", 22)), "guest-kapw5g4pb3dytrajz2of5iszatwf2aqs"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestGuestSettings(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"GUEST_CONTACTS": func(c *Config) { c.GuestContacts = []string{"localhost"} },
		"GUESTS":         func(c *Config) { c.Guests = -1 },
		"GUEST_RATE":     func(c *Config) { c.GuestRate = -1 },
		"GUEST_LIFETIME": func(c *Config) { c.GuestLifetime = time.Second },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// guestContract is what every Store does with guests.
func guestContract(run func(string, func(*testing.T, Store, func() Store))) {
	guest := func(secret string) stanza.Addr { return stanza.MustParseAddr(GuestName(secret) + "@localhost") }
	run("guests", func(t *testing.T, s Store, reopen func() Store) {
		ctx := t.Context()
		last, err := s.Last(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"a", "b", "a"} {
			if err := s.Guest(ctx, guest(secret), 2); err != nil {
				t.Fatalf("guest %s: %v", secret, err)
			}
		}
		s = reopen()
		if err := s.Guest(ctx, guest("c"), 2); !errors.Is(err, ErrGuests) {
			t.Errorf("a third of two: %v", err)
		}
		if err := s.Guest(ctx, guest("b"), 2); err != nil {
			t.Errorf("one of two: %v", err)
		}
		if a, err := s.Load(ctx, guest("a"), ScramSHA1); err != nil || len(a.Credentials) != 0 || a.Version == 0 {
			t.Errorf("%+v, %v", a, err)
		}
		// Other processes hear of new ones, once.
		if log, err := s.Changes(ctx, last, 10); err != nil || len(log) != 2 || log[0].Addr != guest("a") || log[1].Addr != guest("b") {
			t.Errorf("log %v, %v", log, err)
		}
		create(t, s, GuestName("taken"))
		if err := s.Guest(ctx, guest("taken"), 0); !errors.Is(err, ErrExists) {
			t.Errorf("an account that is nobody's guest: %v", err)
		}
		if idle, err := s.IdleGuests(ctx, time.Now().Add(-time.Hour), 10); err != nil || len(idle) != 0 {
			t.Errorf("idle for an hour: %v, %v", idle, err)
		}
		idle, err := s.IdleGuests(ctx, time.Now().Add(time.Hour), 10)
		if err != nil || len(idle) != 2 {
			t.Errorf("idle: %v, %v", idle, err)
		}
		if one, err := s.IdleGuests(ctx, time.Now().Add(time.Hour), 1); err != nil || len(one) != 1 {
			t.Errorf("a page of one: %v, %v", one, err)
		}
		if _, err := s.Remove(ctx, guest("a")); err != nil {
			t.Fatal(err)
		}
		if err := s.Guest(ctx, guest("c"), 2); err != nil {
			t.Errorf("in the place of a removed one: %v", err)
		}
	})
}
