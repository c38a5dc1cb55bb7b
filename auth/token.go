package auth

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"holdfast/stanza"
)

// OAuthBearer is the mechanism of tokens (RFC 7628).
const OAuthBearer = "OAUTHBEARER"

const (
	minTokenSecret = 32   // bytes, RFC 7518 §3.2
	maxToken       = 8192 // bytes of the client's message
	tokenLeeway    = 30 * time.Second
)

// tokens checks what the site's own server signed: JSON Web Tokens (RFC 7519) with HMAC-SHA256.
type tokens struct{ secret []byte }

// openTokens reads the secret; nil means that there are no tokens.
func openTokens(cfg Config) (*tokens, error) {
	if cfg.TokenSecretFile == "" {
		return nil, nil //nolint:nilnil // said above
	}
	secret, err := os.ReadFile(cfg.TokenSecretFile)
	if err != nil {
		return nil, fmt.Errorf("AUTH_TOKEN_SECRET_FILE: %w", err)
	}
	if secret = bytes.TrimRight(secret, "\r\n"); len(secret) < minTokenSecret {
		return nil, fmt.Errorf("AUTH_TOKEN_SECRET_FILE has a secret of %d bytes, at least %d are needed", len(secret), minTokenSecret)
	}
	return &tokens{secret}, nil
}

// claims are those of RFC 7519 §4.1 that matter here.
type claims struct {
	Subject   string          `json:"sub"` // user or user@domain
	Expires   *float64        `json:"exp"` // must be there
	NotBefore float64         `json:"nbf"`
	Audience  json.RawMessage `json:"aud"` // a domain or several, if it is there
}

var errToken = errors.New("token not valid")

// check returns the user that a token is for.
func (t *tokens) check(token, domain string, now time.Time) (stanza.Addr, error) {
	signed, signature, ok := cutLast(token, ".")
	head, payload, ok2 := strings.Cut(signed, ".")
	sig, err := base64.RawURLEncoding.Strict().DecodeString(signature)
	if !ok || !ok2 || err != nil {
		return stanza.Addr{}, errToken
	}
	mac := hmac.New(sha256.New, t.secret)
	mac.Write([]byte(signed))
	if !hmac.Equal(mac.Sum(nil), sig) {
		return stanza.Addr{}, errToken
	}
	// What follows was written by who knows the secret.
	var header struct {
		Algorithm string   `json:"alg"`
		Critical  []string `json:"crit"`
	}
	var c claims
	if decodeJSON(head, &header) != nil || decodeJSON(payload, &c) != nil || header.Algorithm != "HS256" || len(header.Critical) > 0 {
		return stanza.Addr{}, errToken
	}
	if c.Expires == nil || now.Add(-tokenLeeway).After(seconds(*c.Expires)) || now.Add(tokenLeeway).Before(seconds(c.NotBefore)) || !c.meant(domain) {
		return stanza.Addr{}, errToken
	}
	if !strings.Contains(c.Subject, "@") {
		c.Subject += "@" + domain
	}
	user, err := stanza.ParseAddr(c.Subject)
	if err != nil || user.Local() == "" || !user.IsBare() || user.Domain() != domain || IsGuest(user) {
		return stanza.Addr{}, errToken
	}
	return user, nil
}

// meant reports whether a token is for this domain: RFC 7519 §4.1.3.
func (c claims) meant(domain string) bool {
	if c.Audience == nil {
		return true
	}
	var one string
	var several []string
	if json.Unmarshal(c.Audience, &one) != nil && json.Unmarshal(c.Audience, &several) != nil {
		return false
	}
	for _, a := range append(several, one) {
		if a == domain {
			return true
		}
	}
	return false
}

func seconds(s float64) time.Time {
	const most = 1 << 40 // beyond what matters, and not beyond what time can have
	return time.Unix(int64(max(0, min(s, most))), 0)
}

func decodeJSON(part string, v any) error {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, v)
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// refusedToken is what a client hears before the failure (RFC 7628 §3.2.2).
var refusedToken = []byte(`{"status":"invalid_token"}`)

// bearer is a step of OAUTHBEARER: the client's message, and after a refusal its answer to that.
func (e *Exchange) bearer(ctx context.Context, message []byte) (challenge []byte, done bool, err error) {
	if e.refused {
		return nil, false, NotAuthorized
	}
	authzid, token, err := parseBearer(message)
	if err != nil {
		return nil, false, err
	}
	user, err := e.s.tokens.check(token, e.domain, time.Now())
	if err == nil && authzid != "" {
		if as, perr := stanza.ParseAddr(authzid); perr != nil || as != user {
			return nil, false, InvalidAuthzid
		}
	}
	if err != nil {
		e.refused = true
		return refusedToken, false, nil
	}
	if err := e.s.mayTry(user, e.from); err != nil {
		return nil, false, err
	}
	acct, err := e.s.accounts.store.Load(ctx, user)
	switch {
	case errors.Is(err, ErrNotFound):
		err = e.s.adopt(ctx, user)
	case err == nil && acct.Disabled:
		err = AccountDisabled
	case err == nil && acct.Removing:
		err = errRemoving
	}
	if err != nil {
		return nil, false, err
	}
	e.user = user
	return nil, true, nil
}

// adopt makes the account of a user who came with a token for the first time. It has no password.
func (s *Service) adopt(ctx context.Context, user stanza.Addr) error {
	if err := s.accounts.removals.wait(ctx); err != nil {
		return err
	}
	errs, err := s.accounts.store.Create(ctx, []Account{{Addr: user}})
	if err != nil {
		return err
	}
	s.accounts.forget(user)
	if errs[0] != nil && !errors.Is(errs[0], ErrExists) { // another connection may be quicker
		return errs[0]
	}
	return s.accounts.usable(ctx, user)
}

// parseBearer reads the client's message: gs2-header kvsep *kvpair kvsep (RFC 7628 §3.1).
func parseBearer(message []byte) (authzid, token string, err error) {
	if len(message) > maxToken || !utf8.Valid(message) {
		return "", "", MalformedRequest
	}
	parts := strings.Split(string(message), "\x01")
	header := strings.Split(parts[0], ",")
	if len(parts) < 4 || parts[len(parts)-1] != "" || parts[len(parts)-2] != "" || len(header) != 3 || header[2] != "" || header[0] != "n" && header[0] != "y" {
		return "", "", MalformedRequest
	}
	if header[1] != "" {
		name, ok := strings.CutPrefix(header[1], "a=")
		if !ok {
			return "", "", MalformedRequest
		}
		authzid = strings.NewReplacer("=2C", ",", "=3D", "=").Replace(name)
	}
	for _, pair := range parts[1 : len(parts)-2] {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return "", "", MalformedRequest
		}
		if key != "auth" {
			continue
		}
		scheme, rest, _ := strings.Cut(value, " ")
		if !strings.EqualFold(scheme, "Bearer") || token != "" {
			return "", "", MalformedRequest
		}
		token = strings.TrimSpace(rest)
	}
	if token == "" {
		return "", "", MalformedRequest
	}
	return authzid, token, nil
}
