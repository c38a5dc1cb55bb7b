package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"iter"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"holdfast/stanza"
)

// Anonymous is the mechanism of guests (RFC 4505, XEP-0175).
const Anonymous = "ANONYMOUS"

// ErrGuests says that there are as many guests as there may be.
var ErrGuests = errors.New("too many guests")

const (
	// guestPrefix and guestDigits are what names of guests look like; nobody can register one.
	guestPrefix = "guest-"
	guestDigits = 32
	// guestSecretPrefix marks trace information as the secret of a guest who wants to be the same one the next time. It
	// is followed by minGuestSecret characters or more of base64url: 256 bits.
	guestSecretPrefix = "holdfast:"
	minGuestSecret    = 43
	maxTrace          = 255 // characters, RFC 4505 §2
	// EachOther among Config.GuestContacts lets guests write to guests.
	EachOther = "guests"

	idleGuestsPage = 100
)

var guestEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// GuestName is the localpart that the holder of a secret gets. The name tells nothing of the secret, and who has no
// secret gets a random one of the same form.
func GuestName(secret string) string {
	sum := sha256.Sum256([]byte("holdfast guest\x00" + secret))
	return guestPrefix + guestEncoding.EncodeToString(sum[:guestDigits*5/8])
}

// IsGuest reports whether a user's address has the form that guests have.
func IsGuest(user stanza.Addr) bool {
	digits, ok := strings.CutPrefix(user.Local(), guestPrefix)
	return ok && len(digits) == guestDigits && !strings.ContainsFunc(digits, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '2' || r > '7')
	})
}

// guestSecret is the secret in trace information, "" for none.
func guestSecret(trace string) string {
	secret, ok := strings.CutPrefix(trace, guestSecretPrefix)
	if !ok || len(secret) < minGuestSecret || strings.ContainsFunc(secret, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) {
		return ""
	}
	return secret
}

// guests is what the Service knows of guests beyond their accounts.
type guests struct {
	contacts  []stanza.Addr // whom they may write to
	eachOther bool
	made      *rate[netip.Addr] // new ones, by address
	seen      *lru[stanza.Addr, time.Time]
}

func newGuests(cfg Config) (*guests, error) {
	g := &guests{
		made: newRate[netip.Addr](cfg.GuestRate, cfg.RateTable),
		seen: newLRU[stanza.Addr, time.Time](cfg.Cache),
	}
	var err error
	g.contacts, g.eachOther, err = cfg.guestContacts()
	return g, err
}

// GuestsAllowed reports whether there are guests at all.
func (s *Service) GuestsAllowed() bool { return s.guests.eachOther || len(s.guests.contacts) > 0 }

// MayReach reports whether a user may send something to another one: guests may to the contacts that they have.
func (s *Service) MayReach(user, to stanza.Addr) bool {
	if user, to = user.Bare(), to.Bare(); user == to || !IsGuest(user) {
		return true
	}
	return slices.Contains(s.guests.contacts, to) || s.guests.eachOther && IsGuest(to)
}

// IsGuestContact reports whether the operator named an address for guests to write to.
func (s *Service) IsGuestContact(addr stanza.Addr) bool {
	return slices.Contains(s.guests.contacts, addr)
}

// anonymous is the only step of ANONYMOUS (RFC 4505 §2): the client may leave a trace.
func (e *Exchange) anonymous(ctx context.Context, trace []byte) error {
	if !utf8.Valid(trace) || utf8.RuneCount(trace) > maxTrace {
		return MalformedRequest
	}
	name := GuestName(guestSecret(string(trace)))
	if guestSecret(string(trace)) == "" {
		name = GuestName(rand.Text() + rand.Text())
	}
	user, err := stanza.NewAddr(name, e.domain, "")
	if err != nil {
		return err
	}
	if err := e.s.guest(ctx, user, e.from); err != nil {
		return err
	}
	e.user = user
	return nil
}

// guest makes sure that there is an account for a guest, and that it is known to be used.
func (s *Service) guest(ctx context.Context, user stanza.Addr, from netip.Addr) error {
	acct, err := s.accounts.store.Load(ctx, user)
	exists := err == nil
	switch {
	case err != nil && !errors.Is(err, ErrNotFound):
		return err
	case exists && acct.Disabled:
		return AccountDisabled
	case exists && acct.Removing:
		return errRemoving
	case exists && s.seenLately(user):
		return nil
	case !exists && !s.guests.made.take(network(from)):
		return TooManyGuests
	}
	if err := s.accounts.removals.wait(ctx); err != nil {
		return err
	}
	switch err := s.accounts.store.Guest(ctx, user, s.cfg.Guests); {
	case errors.Is(err, ErrGuests):
		s.log.LogAttrs(ctx, slog.LevelWarn, "a guest was refused: there are too many")
		return TooManyGuests
	case errors.Is(err, ErrExists):
		return NotAuthorized
	case err != nil:
		return err
	}
	if !exists {
		s.accounts.forget(user)
		if err := s.accounts.usable(ctx, user); err != nil {
			return err
		}
	}
	s.guests.seen.put(user, time.Now())
	return nil
}

// seenLately reports whether it was noted a moment ago that a guest is there.
func (s *Service) seenLately(user stanza.Addr) bool {
	at, seen := s.guests.seen.get(user)
	return seen && time.Since(at) < s.cfg.GuestLifetime/8
}

// ExpireGuests removes the guests who were not there for Config.GuestLifetime, now and then until ctx ends. connected are
// users who have a session here.
func (s *Service) ExpireGuests(ctx context.Context, connected func() iter.Seq[stanza.Addr]) {
	if s.cfg.GuestLifetime == 0 {
		return
	}
	tick := time.NewTicker(min(s.cfg.GuestLifetime/4, pruneEvery))
	defer tick.Stop()
	for {
		err := s.stillThere(ctx, connected())
		if err == nil {
			err = s.expireGuests(ctx)
		}
		if err != nil && ctx.Err() == nil {
			s.log.LogAttrs(ctx, slog.LevelWarn, "guests were not removed and will be the next time", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// stillThere notes of guests who have been connected for long that they are not gone, for other gateways too.
func (s *Service) stillThere(ctx context.Context, connected iter.Seq[stanza.Addr]) error {
	for user := range connected {
		if !IsGuest(user) || s.seenLately(user) {
			continue
		}
		exists, err := s.accounts.Exists(ctx, user)
		if err != nil {
			return err
		}
		if !exists {
			continue
		}
		if err := s.accounts.store.Guest(ctx, user, 0); err != nil && !errors.Is(err, ErrExists) {
			return err
		}
		s.guests.seen.put(user, time.Now())
	}
	return nil
}

func (s *Service) expireGuests(ctx context.Context) error {
	for {
		idle, err := s.accounts.store.IdleGuests(ctx, time.Now().Add(-s.cfg.GuestLifetime), idleGuestsPage)
		if err != nil {
			return err
		}
		for _, user := range idle {
			// Another gateway may have been quicker.
			if err := s.accounts.Remove(ctx, user); err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			s.guests.seen.remove(user)
		}
		if len(idle) < idleGuestsPage {
			return nil
		}
	}
}
