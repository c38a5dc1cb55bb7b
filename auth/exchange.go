package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net/netip"
	"unicode/utf8"

	"mellium.im/sasl"

	"holdfast/stanza"
)

// Exchange is one run of a mechanism. It is used by one goroutine at a time.
type Exchange struct {
	s         *Service
	mechanism string
	family    *family // nil for mechanisms without one
	only      step    // of a mechanism that mellium does not drive
	refused   bool    // the token was, and the client has still to answer to that
	domain    string
	from      netip.Addr
	neg       *sasl.Negotiator

	ctx     context.Context // of the Step that runs: mellium's callbacks have none
	started bool            // the client has said something
	asked   bool            // an empty challenge was sent for want of an initial response
	over    bool
	user    stanza.Addr
	rec     record
	failure error // what a callback found, where mellium's own error says less
}

// step says whose the steps of a mechanism are.
type step uint8

const (
	melliumStep step = iota
	guestStep
	tokenStep
)

// Step takes the client's next message, without base64, and returns what to answer. With done, the challenge is the
// additional data with success (nil for none) and User says who it is. An empty first message stands for no initial
// response (RFC 6120 §6.4.2) and is answered with an empty challenge, but for ANONYMOUS, which takes it for no trace. The error is a Failure; the exchange is over
// then.
func (e *Exchange) Step(ctx context.Context, response []byte) (challenge []byte, done bool, err error) {
	if e.over {
		return nil, false, MalformedRequest
	}
	if e.only != guestStep && !e.started && !e.asked && len(response) == 0 {
		e.asked = true
		return []byte{}, false, nil
	}
	e.started = true
	if challenge, done, err = e.step(ctx, response); err == nil && !done {
		return challenge, false, nil
	}
	e.over = true
	if err != nil {
		failure := e.failed(ctx, err)
		e.s.metrics.attempts.WithLabelValues(e.mechanism, failure.condition).Inc()
		return nil, false, failure
	}
	e.s.metrics.attempts.WithLabelValues(e.mechanism, "success").Inc()
	return challenge, true, nil
}

func (e *Exchange) step(ctx context.Context, response []byte) (challenge []byte, done bool, err error) {
	switch e.only {
	case guestStep:
		return nil, true, e.anonymous(ctx, response)
	case tokenStep:
		return e.bearer(ctx, response)
	case melliumStep:
	}
	e.ctx = ctx
	more, challenge, err := e.neg.Step(response)
	e.ctx = nil
	if err == nil && !more {
		err = e.accept()
	}
	return challenge, !more, err
}

// User is who logged in, a bare address, once Step said done.
func (e *Exchange) User() stanza.Addr {
	if !e.over {
		return stanza.Addr{}
	}
	return e.user
}

// accept has the last word on a client that showed the right proof.
func (e *Exchange) accept() error {
	switch {
	case !e.rec.known():
		return NotAuthorized
	case e.rec.disabled:
		return AccountDisabled
	}
	e.s.usual.put(place{e.user, network(e.from)}, struct{}{})
	return nil
}

// failed makes a Failure of an error and counts what was a guess.
func (e *Exchange) failed(ctx context.Context, err error) Failure {
	if e.failure != nil {
		err = e.failure
	}
	user := e.user
	e.user = stanza.Addr{}
	var failure Failure
	switch {
	case errors.As(err, &failure):
	case errors.Is(err, sasl.ErrAuthn):
		failure = NotAuthorized
	case errors.Is(err, sasl.ErrInvalidChallenge), errors.Is(err, sasl.ErrInvalidState), errors.Is(err, sasl.ErrTooManySteps):
		failure = MalformedRequest
	default:
		e.s.log.LogAttrs(ctx, slog.LevelError, "authentication could not be checked", slog.Any("error", err))
		failure = TemporaryAuthFailure
	}
	if failure == NotAuthorized {
		e.s.failures.count(network(e.from))
		if !user.IsZero() {
			e.s.userFailures.count(user)
		}
	}
	return failure
}

// identify finds out who the client says it is, and loads what there is to check it against.
func (e *Exchange) identify(name, authzid []byte, f *family) error {
	if !utf8.Valid(name) {
		return MalformedRequest
	}
	user, err := stanza.NewAddr(string(name), e.domain, "")
	if err != nil || user.Local() == "" {
		// Nobody can have such a name, so the answer need not take as long as for those that somebody can have.
		return NotAuthorized
	}
	if len(authzid) > 0 {
		// RFC 6120 §6.3.8: a bare address, and nobody may act for another here.
		if as, err := stanza.ParseAddrBytes(authzid); err != nil || as != user {
			return InvalidAuthzid
		}
	}
	if err := e.s.mayTry(user, e.from); err != nil {
		return err
	}
	e.user = user
	e.rec, err = e.s.accounts.load(e.ctx, user, f)
	return err
}

// salted gives mellium what SCRAM needs: in the place of the SaltedPassword there are the two keys that family cuts
// apart again.
func (e *Exchange) salted(name, authzid []byte, _ string) (salt, keys []byte, iterations int64, err error) {
	if err := e.identify(name, authzid, e.family); err != nil {
		return nil, nil, 0, err
	}
	c := e.rec.cred
	keys = append(append(make([]byte, 0, len(c.StoredKey)+len(c.ServerKey)), c.StoredKey...), c.ServerKey...)
	return c.Salt, keys, int64(c.Iterations), nil
}

// plain checks the message of PLAIN (RFC 4616).
func (e *Exchange) plain(n *sasl.Negotiator) bool {
	name, password, authzid := n.Credentials()
	if len(name) == 0 || len(password) == 0 || len(password) > maxPassword || !utf8.Valid(password) {
		e.failure = MalformedRequest
		return false
	}
	f := e.s.accounts.hasher.forPlain()
	if e.failure = e.identify(name, authzid, f); e.failure != nil {
		return false
	}
	mac := e.s.remember(e.user, password)
	memo, ok := e.s.verified.get(e.user)
	same := subtle.ConstantTimeCompare(mac[:], memo.mac[:]) == 1
	if ok && same && e.rec.known() && memo.version == e.rec.version {
		e.s.metrics.remembered.Inc()
		return true
	}
	right, err := e.s.accounts.hasher.verify(e.ctx, f, e.rec.cred, string(password))
	if err != nil {
		e.failure = err
		return false
	}
	if !right || !e.rec.known() {
		return false
	}
	e.s.verified.put(e.user, memory{version: e.rec.version, mac: mac})
	return true
}

// memory is a PLAIN password that was verified against a version of the credentials.
type memory struct {
	version int64
	mac     [sha256.Size]byte
}

func (s *Service) remember(user stanza.Addr, password []byte) (mac [sha256.Size]byte) {
	m := hmac.New(sha256.New, s.key[:])
	m.Write([]byte(user.String()))
	m.Write([]byte{0}) // no address has it
	m.Write(password)
	m.Sum(mac[:0])
	return mac
}
