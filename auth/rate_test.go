package auth

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestFailureRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := withAlice(t, newService(t, newMemStore(), func(c *Config) { c.FailureRate = 3 }))
		for range 3 {
			if _, err := login(t, s, ScramSHA256, "alice", "wrong", "", home); !errors.Is(err, NotAuthorized) {
				t.Fatal(err)
			}
		}
		if _, err := login(t, s, ScramSHA256, "alice", "secret", "", home); !errors.Is(err, TooManyFailures) {
			t.Errorf("after too many failures: %v", err)
		}
		if _, err := login(t, s, ScramSHA256, "alice", "secret", "", away); err != nil {
			t.Errorf("another address: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if _, err := login(t, s, ScramSHA256, "alice", "secret", "", home); err != nil {
			t.Errorf("later: %v", err)
		}
		// Exchanges that were begun before the failures do not get past them.
		var begun []*Exchange
		for range 5 {
			e, err := s.Begin(Plain, "localhost", home, true)
			if err != nil {
				t.Fatal(err)
			}
			begun = append(begun, e)
		}
		for i, e := range begun {
			want := NotAuthorized
			if i >= 3 {
				want = TooManyFailures
			}
			if _, _, err := e.Step(t.Context(), []byte("\x00alice\x00wrong")); !errors.Is(err, want) {
				t.Errorf("%d: %v, want %v", i, err, want)
			}
		}
	})
}

func TestUserFailureRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := withAlice(t, newService(t, newMemStore(), func(c *Config) { c.UserFailureRate = 4 }))
		if _, err := login(t, s, ScramSHA256, "alice", "secret", "", home); err != nil {
			t.Fatal(err)
		}
		next := netip.MustParseAddr("2001:db8::1")
		guess := func(name string) error {
			b := next.As16()
			b[7]++ // a new /64 each time
			next = netip.AddrFrom16(b)
			_, err := login(t, s, ScramSHA256, name, "wrong", "", next)
			return err
		}
		for _, name := range []string{"alice", "carol"} { // known or not
			for range 4 {
				if err := guess(name); !errors.Is(err, NotAuthorized) {
					t.Fatal(err)
				}
			}
			if err := guess(name); !errors.Is(err, TooManyFailures) {
				t.Errorf("%s guessed at from everywhere: %v", name, err)
			}
		}
		if _, err := login(t, s, ScramSHA256, "alice", "secret", "", away); !errors.Is(err, TooManyFailures) {
			t.Errorf("from a new address: %v", err)
		}
		if _, err := login(t, s, ScramSHA256, "alice", "secret", "", home); err != nil {
			t.Errorf("from the usual address: %v", err)
		}
	})
}

func TestIPv6CountsByNetwork(t *testing.T) {
	for a, want := range map[string]string{
		"192.0.2.1":           "192.0.2.1",
		"::ffff:192.0.2.1":    "192.0.2.1",
		"2001:db8:0:1::5":     "2001:db8:0:1::",
		"2001:db8:0:1:2::5":   "2001:db8:0:1::",
		"fe80::1%eth0":        "fe80::",
		"2001:db8:0:2:ffff::": "2001:db8:0:2::",
	} {
		if got := network(netip.MustParseAddr(a)); got.String() != want {
			t.Errorf("%s: %s, want %s", a, got, want)
		}
	}
	if network(netip.Addr{}) != (netip.Addr{}) {
		t.Error("no address")
	}
}
