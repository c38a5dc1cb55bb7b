package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/stanza"
)

var tokenSecret = []byte(strings.Repeat("k", minTokenSecret))

// token signs claims as a site's server would.
func token(t testing.TB, header string, claims map[string]any, secret []byte) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

const hs256 = `{"alg":"HS256","typ":"JWT"}`

func withTokens(t testing.TB, change ...func(*Config)) *Service {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, append(slices.Clone(tokenSecret), '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	return newService(t, newMemStore(), append(change, func(c *Config) { c.TokenSecretFile = file })...)
}

// bearer logs in with a message of OAUTHBEARER, and answers a refusal as RFC 7628 §3.2.3 wants it.
func bearer(t testing.TB, s *Service, message string) (stanza.Addr, error) {
	t.Helper()
	e, err := s.Begin(OAuthBearer, "localhost", home, true)
	if err != nil {
		return stanza.Addr{}, err
	}
	challenge, done, err := e.Step(t.Context(), []byte(message))
	if err == nil && !done {
		if string(challenge) != string(refusedToken) {
			t.Errorf("challenge %q", challenge)
		}
		_, _, err = e.Step(t.Context(), []byte("\x01"))
	}
	return e.User(), err
}

func message(authzid, token string) string {
	return "n," + authzid + ",\x01host=localhost\x01auth=Bearer " + token + "\x01\x01"
}

func TestTokens(t *testing.T) {
	soon := time.Now().Add(time.Hour).Unix()
	good := map[string]any{"sub": "alice", "exp": soon}
	with := func(key string, value any) map[string]any {
		return map[string]any{"sub": "alice", "exp": soon, key: value}
	}
	for name, c := range map[string]struct {
		token, authzid string
		want           error
	}{
		"a user":                     {token(t, hs256, good, tokenSecret), "", nil},
		"a user for themselves":      {token(t, hs256, good, tokenSecret), "a=alice@localhost", nil},
		"a user with the domain":     {token(t, hs256, with("sub", "alice@localhost"), tokenSecret), "", nil},
		"for this domain":            {token(t, hs256, with("aud", "localhost"), tokenSecret), "", nil},
		"for several":                {token(t, hs256, with("aud", []string{"example.com", "localhost"}), tokenSecret), "", nil},
		"expired a moment ago":       {token(t, hs256, with("exp", time.Now().Add(-5*time.Second).Unix()), tokenSecret), "", nil},
		"for another":                {token(t, hs256, good, tokenSecret), "a=bob@localhost", InvalidAuthzid},
		"another secret":             {token(t, hs256, good, []byte(strings.Repeat("x", 32))), "", NotAuthorized},
		"no algorithm":               {token(t, `{"alg":"none"}`, good, tokenSecret), "", NotAuthorized},
		"another algorithm":          {token(t, `{"alg":"HS512"}`, good, tokenSecret), "", NotAuthorized},
		"a critical extension":       {token(t, `{"alg":"HS256","crit":["x"]}`, good, tokenSecret), "", NotAuthorized},
		"expired":                    {token(t, hs256, with("exp", time.Now().Add(-time.Minute).Unix()), tokenSecret), "", NotAuthorized},
		"for ever":                   {token(t, hs256, map[string]any{"sub": "alice"}, tokenSecret), "", NotAuthorized},
		"not yet":                    {token(t, hs256, with("nbf", soon), tokenSecret), "", NotAuthorized},
		"for another domain":         {token(t, hs256, with("aud", "example.com"), tokenSecret), "", NotAuthorized},
		"for nobody in particular":   {token(t, hs256, with("aud", 7), tokenSecret), "", NotAuthorized},
		"somebody of another domain": {token(t, hs256, with("sub", "alice@example.com"), tokenSecret), "", NotAuthorized},
		"with a resource":            {token(t, hs256, with("sub", "alice@localhost/x"), tokenSecret), "", NotAuthorized},
		"nobody":                     {token(t, hs256, with("sub", ""), tokenSecret), "", NotAuthorized},
		"a guest":                    {token(t, hs256, with("sub", GuestName("x")), tokenSecret), "", NotAuthorized},
		"not signed":                 {strings.TrimRight(token(t, hs256, good, tokenSecret), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"), "", NotAuthorized},
		"no token":                   {"a.b", "", NotAuthorized},
		"something else altogether":  {"....", "", NotAuthorized},
	} {
		t.Run(name, func(t *testing.T) {
			s := withTokens(t)
			user, err := bearer(t, s, message(c.authzid, c.token))
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if want := (stanza.Addr{}); err != nil && user != want || err == nil && user != alice {
				t.Errorf("logged in as %v", user)
			}
			if exists, err := s.Accounts().Exists(t.Context(), alice); err != nil || exists != (c.want == nil) {
				t.Errorf("alice exists: %v, %v", exists, err)
			}
		})
	}
}

func TestTokensOfKnownUsers(t *testing.T) {
	s := withAlice(t, withTokens(t))
	m := message("", token(t, hs256, map[string]any{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix()}, tokenSecret))
	if user, err := bearer(t, s, m); user != alice || err != nil {
		t.Errorf("%v, %v", user, err)
	}
	if _, err := login(t, s, Plain, "alice", "secret", "", home); err != nil {
		t.Errorf("her password is no good any more: %v", err)
	}
	if err := s.Accounts().SetDisabled(t.Context(), alice, true); err != nil {
		t.Fatal(err)
	}
	if _, err := bearer(t, s, m); !errors.Is(err, AccountDisabled) {
		t.Errorf("disabled: %v", err)
	}
}

func TestTokensAreForSecurePeers(t *testing.T) {
	s := withTokens(t)
	if slices.Contains(s.Mechanisms(false), OAuthBearer) || !slices.Contains(s.Mechanisms(true), OAuthBearer) {
		t.Errorf("offered: %v, to a secure peer %v", s.Mechanisms(false), s.Mechanisms(true))
	}
	if _, err := s.Begin(OAuthBearer, "localhost", home, false); !errors.Is(err, MechanismTooWeak) {
		t.Errorf("%v", err)
	}
	if _, err := newService(t, newMemStore()).Begin(OAuthBearer, "localhost", home, true); !errors.Is(err, InvalidMechanism) {
		t.Errorf("without a secret: %v", err)
	}
}

// RFC 7628 §3.1.
func TestBadBearerMessages(t *testing.T) {
	s := withTokens(t)
	for _, m := range []string{
		"x", "n,,", "n,,\x01\x01", "n,,\x01auth=Bearer x\x01", "n,,\x01auth=Basic x\x01\x01", "n,,\x01auth=Bearer \x01\x01", "p=tls,,\x01auth=Bearer x\x01\x01",
		"n,b=x,\x01auth=Bearer x\x01\x01", "n,,\x01auth\x01\x01", "n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01", "\xff", "n,,\x01auth=Bearer " + strings.Repeat("x", maxToken) + "\x01\x01",
	} {
		if user, err := bearer(t, s, m); !errors.Is(err, MalformedRequest) || !user.IsZero() {
			t.Errorf("%q: %v, %v", m, user, err)
		}
	}
}

// Guesses are counted like those of passwords.
func TestTokenGuesses(t *testing.T) {
	s := withTokens(t, func(c *Config) { c.FailureRate = 3 })
	for range 3 {
		if _, err := bearer(t, s, message("", "a.b.c")); !errors.Is(err, NotAuthorized) {
			t.Fatal(err)
		}
	}
	if _, err := bearer(t, s, message("", "a.b.c")); !errors.Is(err, TooManyFailures) {
		t.Errorf("a fourth: %v", err)
	}
}

func TestTokenSecretFile(t *testing.T) {
	for name, content := range map[string]string{"short": "too short", "empty": ""} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openTokens(Config{TokenSecretFile: file}); err == nil || !strings.Contains(err.Error(), "AUTH_TOKEN_SECRET_FILE") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := openTokens(Config{TokenSecretFile: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("a file that is not there")
	}
}
