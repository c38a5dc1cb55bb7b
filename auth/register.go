package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

// RegistrationError is why a registration was refused (XEP-0077 §3), a comparable value. It unwraps to the stanza
// error that goes on the wire.
type RegistrationError struct {
	Type      mstanza.ErrorType
	Condition mstanza.Condition
	Text      string
}

// What registration refuses.
var (
	ErrRegistrationOff = RegistrationError{mstanza.Cancel, mstanza.NotAllowed, "registration is not offered here"}
	ErrConflict        = RegistrationError{mstanza.Cancel, mstanza.Conflict, "the user name is taken"}
	ErrNameNotAllowed  = RegistrationError{mstanza.Modify, mstanza.NotAcceptable, "the user name is empty or has characters that are not allowed"}
	ErrNotAcceptable   = RegistrationError{mstanza.Modify, mstanza.NotAcceptable, ErrPassword.Error()}
	ErrTooManyAccounts = RegistrationError{mstanza.Wait, mstanza.ResourceConstraint, "too many registrations from this address, try again in a minute"}
	ErrNotRegistered   = RegistrationError{mstanza.Cancel, mstanza.ItemNotFound, "there is no such account"}
	ErrRegistration    = RegistrationError{mstanza.Wait, mstanza.InternalServerError, "registration failed, try again later"}
)

func (e RegistrationError) Error() string {
	return fmt.Sprintf("registration: %s: %s", e.Condition, e.Text)
}

// Unwrap returns the stanza.Error of mellium.
func (e RegistrationError) Unwrap() error {
	return mstanza.Error{Type: e.Type, Condition: e.Condition, Text: map[string]string{"en": e.Text}}
}

// Register is what in-band registration asks a stranger for (XEP-0077 §3.1).
const (
	RegisterInstructions = "Choose a user name and a password."
	RegisterFields       = "username password" // the elements of the form, separated by spaces
)

// RegistrationOffered reports whether strangers may register.
func (s *Service) RegistrationOffered() bool { return s.cfg.Registration == RegistrationOpen }

// Register makes an account for a stranger. The error is a RegistrationError.
func (s *Service) Register(ctx context.Context, domain, username, password string, from netip.Addr) error {
	err := s.register(ctx, domain, username, password, from)
	return s.registration(ctx, "register", err)
}

func (s *Service) register(ctx context.Context, domain, username, password string, from netip.Addr) error {
	if !s.RegistrationOffered() {
		return ErrRegistrationOff
	}
	user, err := stanza.NewAddr(username, domain, "")
	if err != nil || user.Local() == "" || IsGuest(user) {
		return ErrNameNotAllowed
	}
	if _, err := saslprep(password); err != nil {
		return err
	}
	// Attempts at taken names count too: they tell which names are taken.
	if !s.registered.take(network(from)) {
		return ErrTooManyAccounts
	}
	exists, err := s.accounts.Exists(ctx, user)
	if err != nil {
		return err
	}
	if exists {
		return ErrExists // without paying for the hashes
	}
	return s.accounts.Create(ctx, user, password)
}

// ChangePassword gives an authenticated user another password (XEP-0077 §3.3). The error is a RegistrationError.
func (s *Service) ChangePassword(ctx context.Context, user stanza.Addr, password string) error {
	err := error(ErrRegistrationOff)
	if s.RegistrationOffered() && !IsGuest(user) {
		err = s.accounts.SetPassword(ctx, user.Bare(), password)
	}
	return s.registration(ctx, "password", err)
}

// Unregister removes an authenticated user (XEP-0077 §3.2). The error is a RegistrationError.
func (s *Service) Unregister(ctx context.Context, user stanza.Addr) error {
	err := error(ErrRegistrationOff)
	if s.RegistrationOffered() {
		err = s.accounts.Remove(ctx, user.Bare())
	}
	return s.registration(ctx, "remove", err)
}

// registration makes a RegistrationError of an error, and counts.
func (s *Service) registration(ctx context.Context, what string, err error) error {
	if err == nil {
		s.metrics.registrations.WithLabelValues(what, "success").Inc()
		return nil
	}
	var refusal RegistrationError
	switch {
	case errors.As(err, &refusal):
	case errors.Is(err, ErrExists):
		refusal = ErrConflict
	case errors.Is(err, ErrNotFound):
		refusal = ErrNotRegistered
	case errors.Is(err, ErrPassword):
		refusal = ErrNotAcceptable
	default:
		s.log.LogAttrs(ctx, slog.LevelError, "registration failed", slog.Any("error", err))
		refusal = ErrRegistration
	}
	s.metrics.registrations.WithLabelValues(what, string(refusal.Condition)).Inc()
	return refusal
}
