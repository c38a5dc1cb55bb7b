package auth

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"holdfast/stanza"
)

// Values of Config.Registration.
const (
	RegistrationOff  = "off"
	RegistrationOpen = "open"
)

// Config says how clients may prove who they are, and how often they may fail.
type Config struct {
	Mechanisms      []string      `env:"AUTH_MECHANISMS" desc:"SASL mechanisms, comma-separated, out of SCRAM-SHA-512, SCRAM-SHA-256, SCRAM-SHA-1, PLAIN; accounts get credentials for those named when their password is set"`
	Iterations      int           `env:"AUTH_SCRAM_ITERATIONS" desc:"PBKDF2 iterations of new passwords, 4096 or more; each client pays them at each login, and so does who guesses passwords from a stolen database"`
	FailureRate     int           `env:"AUTH_FAILURE_RATE" desc:"failed authentications a minute from one address (IPv6: one /64) before it is refused for a while; 0 for no limit"`
	UserFailureRate int           `env:"AUTH_USER_FAILURE_RATE" desc:"failed authentications a minute for one user from all addresses together, before those from which the user did not log in lately are refused; 0 for no limit"`
	RateTable       int           `env:"AUTH_RATE_TABLE" desc:"addresses and users whose failures are counted, the oldest forgotten first; 0 for no limit"`
	Cache           int           `env:"AUTH_CACHE" desc:"credentials, remembered PLAIN passwords and existing or unknown users kept in memory, this many of each; 0 for no limit"`
	CacheAge        time.Duration `env:"AUTH_CACHE_AGE" desc:"how long a change by another process (gateway user) may go unseen; 0 looks at each login"`
	HashParallel    int           `env:"AUTH_HASH_PARALLEL" desc:"passwords hashed at the same time, the others wait; 0 for no limit"`
	TokenSecretFile string        `env:"AUTH_TOKEN_SECRET_FILE" desc:"file with a secret of 32 bytes or more, with which the site's own server signs JSON Web Tokens (HS256) that users log in with (SASL OAUTHBEARER); empty: no tokens"`

	Registration     string `env:"REGISTRATION" desc:"in-band registration (XEP-0077): off, or open for everybody"`
	RegistrationRate int    `env:"REGISTRATION_RATE" desc:"accounts a minute from one address (IPv6: one /64), attempts at taken names included; 0 for no limit"`

	GuestContacts []string      `env:"GUEST_CONTACTS" desc:"comma-separated addresses (user@domain) that guests may write to, who log in without an account (SASL ANONYMOUS, XEP-0175); guests among them lets guests write to each other; empty: no guests"`
	Guests        int           `env:"GUESTS" desc:"guests known at a time; 0 for no limit"`
	GuestRate     int           `env:"GUEST_RATE" desc:"new guests a minute from one address (IPv6: one /64); 0 for no limit"`
	GuestLifetime time.Duration `env:"GUEST_LIFETIME" desc:"how long after it was last connected a guest is forgotten, with the messages that wait for it; 0 keeps guests for ever"`
}

// DefaultConfig returns the settings that hold when nothing is set.
//
// 10,000 iterations are a compromise. OWASP asks for 600,000 where the server hashes once; here a phone or a browser
// without native crypto hashes at each login, and 600,000 would take it seconds. The default doubles the 4,096 of RFC
// 7677 §4 and costs a phone some 20-50 ms. Long random passwords (gateway user add --generate) do not depend on it.
func DefaultConfig() Config {
	return Config{
		Mechanisms:       []string{ScramSHA512, ScramSHA256, ScramSHA1, Plain},
		Iterations:       10_000,
		FailureRate:      30,
		UserFailureRate:  60,
		RateTable:        65_536,
		Cache:            10_000,
		CacheAge:         250 * time.Millisecond,
		HashParallel:     4,
		Registration:     RegistrationOff,
		RegistrationRate: 10,
		Guests:           10_000,
		GuestRate:        30,
		GuestLifetime:    7 * 24 * time.Hour,
	}
}

// Validate names the first variable that has a value it does not accept.
func (c Config) Validate() error {
	if len(c.Mechanisms) == 0 {
		return fmt.Errorf("AUTH_MECHANISMS must name at least one of %s", strings.Join(mechanismNames, ", "))
	}
	scram := false
	for _, m := range c.Mechanisms {
		if !slices.Contains(mechanismNames, m) {
			return fmt.Errorf("AUTH_MECHANISMS accepts %s, not %q", strings.Join(mechanismNames, ", "), m)
		}
		scram = scram || m != Plain
	}
	if !scram {
		return fmt.Errorf("AUTH_MECHANISMS must name a SCRAM mechanism: passwords are stored as its credentials")
	}
	if c.Iterations < 4096 || c.Iterations > 10_000_000 {
		return fmt.Errorf("AUTH_SCRAM_ITERATIONS must be between 4096 and 10000000, not %d", c.Iterations)
	}
	for _, v := range []struct {
		name string
		n    int
	}{
		{"AUTH_FAILURE_RATE", c.FailureRate},
		{"AUTH_USER_FAILURE_RATE", c.UserFailureRate},
		{"AUTH_RATE_TABLE", c.RateTable},
		{"AUTH_CACHE", c.Cache},
		{"AUTH_HASH_PARALLEL", c.HashParallel},
		{"REGISTRATION_RATE", c.RegistrationRate},
		{"GUESTS", c.Guests},
		{"GUEST_RATE", c.GuestRate},
	} {
		if v.n < 0 {
			return fmt.Errorf("%s must be 0 or more, not %d", v.name, v.n)
		}
	}
	if c.CacheAge < 0 {
		return fmt.Errorf("AUTH_CACHE_AGE must be 0 or more, not %v", c.CacheAge)
	}
	if c.Registration != RegistrationOff && c.Registration != RegistrationOpen {
		return fmt.Errorf("REGISTRATION accepts off or open, not %q", c.Registration)
	}
	if c.GuestLifetime != 0 && c.GuestLifetime < time.Minute {
		return fmt.Errorf("GUEST_LIFETIME must be 0, or 1m or more, not %v", c.GuestLifetime)
	}
	_, _, err := c.guestContacts()
	return err
}

// guestContacts reads GuestContacts.
func (c Config) guestContacts() (contacts []stanza.Addr, eachOther bool, err error) {
	for _, name := range c.GuestContacts {
		if name = strings.TrimSpace(name); name == EachOther {
			eachOther = true
			continue
		}
		addr, err := stanza.ParseAddr(name)
		if err != nil || addr.Local() == "" || !addr.IsBare() {
			return nil, false, fmt.Errorf("GUEST_CONTACTS accepts user@domain and %s, not %q", EachOther, name)
		}
		contacts = append(contacts, addr)
	}
	return contacts, eachOther, nil
}
