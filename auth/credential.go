package auth

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"fmt"
	"hash"
	"strconv"

	"holdfast/stanza"
)

// Names of the mechanisms.
const (
	ScramSHA512 = "SCRAM-SHA-512"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA1   = "SCRAM-SHA-1"
	Plain       = "PLAIN"
)

var mechanismNames = []string{ScramSHA512, ScramSHA256, ScramSHA1, Plain} // strongest first

// saltLen is the length of a salt in bytes.
const saltLen = 16

// Credential is what an account has at rest for one SCRAM mechanism (RFC 5802 §3).
type Credential struct {
	Mechanism  string
	Iterations int
	Salt       []byte
	StoredKey  []byte
	ServerKey  []byte
}

// family is SCRAM with one hash function.
type family struct {
	name string
	new  func() hash.Hash
	size int
}

func families(names []string) []*family {
	all := []*family{
		{ScramSHA512, sha512.New, sha512.Size},
		{ScramSHA256, sha256.New, sha256.Size},
		{ScramSHA1, sha1.New, sha1.Size},
	}
	var some []*family
	for _, f := range all {
		for _, name := range names {
			if f.name == name {
				some = append(some, f)
				break
			}
		}
	}
	return some
}

func (f *family) hmac(key []byte, parts ...[]byte) []byte {
	m := hmac.New(f.new, key)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

func (f *family) hash(b []byte) []byte {
	h := f.new()
	h.Write(b)
	return h.Sum(nil)
}

// keys derives the two keys of a password that SASLprep has prepared.
func (f *family) keys(password string, salt []byte, iterations int) (stored, server []byte, err error) {
	salted, err := pbkdf2.Key(f.new, password, salt, iterations, f.size)
	if err != nil {
		return nil, nil, fmt.Errorf("auth: derive: %w", err)
	}
	return f.hash(f.hmac(salted, []byte("Client Key"))), f.hmac(salted, []byte("Server Key")), nil
}

// hasher makes and checks credentials, a bounded number at a time, since a password costs milliseconds.
type hasher struct {
	families   []*family
	iterations int
	slots      chan struct{} // nil for no limit
}

func newHasher(cfg Config) *hasher {
	h := &hasher{families: families(cfg.Mechanisms), iterations: cfg.Iterations}
	if cfg.HashParallel > 0 {
		h.slots = make(chan struct{}, cfg.HashParallel)
	}
	return h
}

func (h *hasher) family(name string) *family {
	for _, f := range h.families {
		if f.name == name {
			return f
		}
	}
	return nil
}

// forPlain is the family that PLAIN passwords are checked with: SHA-256 is the fastest on hardware of today for the
// same iterations, and not weaker in this use.
func (h *hasher) forPlain() *family {
	if f := h.family(ScramSHA256); f != nil {
		return f
	}
	return h.families[0]
}

func (h *hasher) enter(ctx context.Context) error {
	if h.slots == nil {
		return nil
	}
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *hasher) leave() {
	if h.slots != nil {
		<-h.slots
	}
}

// credentials makes what is stored for a password: one Credential a family, each with a salt of its own.
func (h *hasher) credentials(ctx context.Context, password string) ([]Credential, error) {
	prepared, err := saslprep(password)
	if err != nil {
		return nil, err
	}
	if err := h.enter(ctx); err != nil {
		return nil, err
	}
	defer h.leave()
	creds := make([]Credential, 0, len(h.families))
	for _, f := range h.families {
		c := Credential{Mechanism: f.name, Iterations: h.iterations, Salt: make([]byte, saltLen)}
		if _, err := rand.Read(c.Salt); err != nil {
			return nil, fmt.Errorf("auth: salt: %w", err)
		}
		if c.StoredKey, c.ServerKey, err = f.keys(prepared, c.Salt, c.Iterations); err != nil {
			return nil, err
		}
		creds = append(creds, c)
	}
	return creds, nil
}

// verify reports whether password is the one that c was made of.
func (h *hasher) verify(ctx context.Context, f *family, c Credential, password string) (bool, error) {
	prepared, err := saslprep(password)
	if err != nil {
		// No account can have it. It is hashed like any other so that the answer takes as long.
		prepared = password
	}
	if err := h.enter(ctx); err != nil {
		return false, err
	}
	defer h.leave()
	stored, _, err := f.keys(prepared, c.Salt, c.Iterations)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(stored, c.StoredKey) == 1, nil
}

// fake is the credential of a user who does not exist: the same at each try, like a real one, and matched by no
// password (RFC 5802 §9 and common sense: asking for a salt must not tell who has an account).
func (h *hasher) fake(f *family, secret []byte, user stanza.Addr) Credential {
	derive := func(what string) []byte {
		return f.hmac(secret, []byte(what), []byte{0}, []byte(f.name), []byte{0}, []byte(user.String()))
	}
	return Credential{
		Mechanism: f.name, Iterations: h.iterations,
		Salt: derive("salt")[:saltLen], StoredKey: derive("stored"), ServerKey: derive("server"),
	}
}

// GeneratePassword returns a random password with 128 bits of entropy or more.
func GeneratePassword() string { return rand.Text() }

func (c Credential) iterationsText() []byte { return strconv.AppendInt(nil, int64(c.Iterations), 10) }
