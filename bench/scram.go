package bench

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

var errScram = errors.New("bench: SCRAM-SHA-256: the server's message is malformed or its signature is wrong")

// scram is the client's side of SCRAM-SHA-256 (RFC 5802 §5, RFC 7677) without channel binding.
type scram struct {
	nonce     string
	firstBare string
	signature []byte // what the server has to prove itself with
}

// first renders the client-first-message.
func (s *scram) first(name, nonce string) []byte {
	s.nonce = nonce
	s.firstBare = "n=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(name) + ",r=" + nonce
	return []byte("n,," + s.firstBare)
}

// final answers the server-first-message.
func (s *scram) final(a *Account, challenge []byte) ([]byte, error) {
	var nonce, salt string
	iterations := 0
	for field := range strings.SplitSeq(string(challenge), ",") {
		switch name, value, _ := strings.Cut(field, "="); name {
		case "r":
			nonce = value
		case "s":
			salt = value
		case "i":
			iterations, _ = strconv.Atoi(value)
		}
	}
	if !strings.HasPrefix(nonce, s.nonce) || len(nonce) == len(s.nonce) || iterations < 1 || iterations > 1_000_000 {
		return nil, errScram
	}
	if key := salt + "," + strconv.Itoa(iterations); key != a.saltedFor {
		raw, err := base64.StdEncoding.DecodeString(salt)
		if err != nil {
			return nil, errScram
		}
		salted, err := pbkdf2.Key(sha256.New, a.Password, raw, iterations, sha256.Size)
		if err != nil {
			return nil, fmt.Errorf("bench: salting: %w", err)
		}
		a.saltedFor, a.salted = key, salted
	}
	withoutProof := "c=biws,r=" + nonce
	message := s.firstBare + "," + string(challenge) + "," + withoutProof
	clientKey := sum(a.salted, "Client Key")
	storedKey := sha256.Sum256(clientKey)
	proof := sum(storedKey[:], message)
	for i := range proof {
		proof[i] ^= clientKey[i]
	}
	s.signature = sum(sum(a.salted, "Server Key"), message)
	return []byte(withoutProof + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

// verify checks the server-final-message.
func (s *scram) verify(final []byte) error {
	value, ok := bytes.CutPrefix(final, []byte("v="))
	if !ok {
		return errScram
	}
	got, err := base64.StdEncoding.DecodeString(string(value))
	if err != nil || !hmac.Equal(got, s.signature) {
		return errScram
	}
	return nil
}

func sum(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
