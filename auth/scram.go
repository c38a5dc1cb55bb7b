package auth

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"unicode/utf8"

	"mellium.im/sasl"
)

// maxScram bounds what a client may send in one message, in bytes. Names have at most 1,023 bytes (RFC 7622 §3.3), so
// this is room enough.
const maxScram = 8 << 10

// scramState is what the server keeps between the client's two messages.
type scramState struct {
	gs2       []byte // gs2-header
	firstBare []byte // client-first-message-bare
	first     []byte // server-first-message
	nonce     []byte
	cred      Credential
}

// mechanism is the server's side of f as a mechanism of mellium.im/sasl. The credentials come from the Negotiator's
// SaltedCredentials with StoredKey and ServerKey, one after the other, in the place of the SaltedPassword.
func (f *family) mechanism() sasl.Mechanism {
	return sasl.Mechanism{
		Name: f.name,
		Start: func(*sasl.Negotiator) (bool, []byte, any, error) {
			return false, nil, nil, sasl.ErrInvalidState // the server never starts
		},
		Next: func(n *sasl.Negotiator, message []byte, data any) (bool, []byte, any, error) {
			switch n.State() & sasl.StepMask {
			case sasl.AuthTextSent:
				st, err := f.clientFirst(message, n.Nonce(), n.SaltedCredentials)
				if err != nil {
					return false, nil, nil, err
				}
				return true, st.first, st, nil
			case sasl.ResponseSent:
				st, ok := data.(*scramState)
				if !ok {
					return false, nil, nil, sasl.ErrInvalidState
				}
				final, err := f.clientFinal(st, message)
				return false, final, nil, err
			}
			return false, nil, nil, sasl.ErrTooManySteps
		},
	}
}

type fetcher func(username, authzid []byte) (salt, keys []byte, iterations int64, err error)

// clientFirst takes the client-first-message (RFC 5802 §7) and makes the server-first-message.
func (f *family) clientFirst(message, nonce []byte, fetch fetcher) (*scramState, error) {
	if len(message) > maxScram || !utf8.Valid(message) || bytes.IndexByte(message, 0) >= 0 {
		return nil, MalformedRequest
	}
	flag, rest, ok := bytes.Cut(message, comma)
	if !ok {
		return nil, MalformedRequest
	}
	// "y" is a client that could bind the channel and saw no -PLUS: right, there is none. "p" asks for what was
	// not offered.
	if string(flag) != "n" && string(flag) != "y" {
		return nil, MalformedRequest
	}
	authzidAttr, bare, ok := bytes.Cut(rest, comma)
	if !ok {
		return nil, MalformedRequest
	}
	var authzid []byte
	if len(authzidAttr) > 0 {
		if authzid, ok = saslname(authzidAttr, "a="); !ok {
			return nil, MalformedRequest
		}
	}
	nameAttr, rest, ok := bytes.Cut(bare, comma)
	if !ok {
		return nil, MalformedRequest
	}
	// An "m=" here is the reserved extension that must fail (§5.1); it is no name.
	name, ok := saslname(nameAttr, "n=")
	if !ok {
		return nil, MalformedRequest
	}
	nonceAttr, extensions, _ := bytes.Cut(rest, comma)
	theirs, ok := bytes.CutPrefix(nonceAttr, []byte("r="))
	if !ok || !printable(theirs) || bytes.HasPrefix(extensions, []byte("m=")) {
		return nil, MalformedRequest
	}
	salt, keys, iterations, err := fetch(name, authzid)
	if err != nil {
		return nil, err
	}
	st := &scramState{
		gs2:       bytes.Clone(message[:len(message)-len(bare)]),
		firstBare: bytes.Clone(bare),
		nonce:     append(append(make([]byte, 0, len(theirs)+len(nonce)), theirs...), nonce...),
		cred: Credential{
			Mechanism: f.name, Iterations: int(iterations), Salt: salt,
			StoredKey: keys[:f.size], ServerKey: keys[f.size:],
		},
	}
	first := append(make([]byte, 0, len(st.nonce)+64), "r="...)
	first = append(first, st.nonce...)
	first = append(first, ",s="...)
	first = base64.StdEncoding.AppendEncode(first, salt)
	first = append(first, ",i="...)
	first = append(first, st.cred.iterationsText()...)
	st.first = first
	return st, nil
}

// clientFinal takes the client-final-message, checks the proof and makes the server-final-message.
func (f *family) clientFinal(st *scramState, message []byte) ([]byte, error) {
	if len(message) > maxScram {
		return nil, MalformedRequest
	}
	// The proof is the last attribute, and base64 has no comma.
	at := bytes.LastIndexByte(message, ',')
	if at < 0 {
		return nil, MalformedRequest
	}
	without, proofAttr := message[:at], message[at+1:]
	proof, ok := base64Attr(proofAttr, "p=")
	if !ok || len(proof) != f.size {
		return nil, MalformedRequest
	}
	bindingAttr, rest, ok := bytes.Cut(without, comma)
	if !ok {
		return nil, MalformedRequest
	}
	binding, ok := base64Attr(bindingAttr, "c=")
	if !ok || !bytes.Equal(binding, st.gs2) {
		return nil, MalformedRequest
	}
	nonceAttr, extensions, _ := bytes.Cut(rest, comma)
	nonce, ok := bytes.CutPrefix(nonceAttr, []byte("r="))
	if !ok || !bytes.Equal(nonce, st.nonce) || bytes.HasPrefix(extensions, []byte("m=")) {
		return nil, MalformedRequest
	}
	auth := [][]byte{st.firstBare, comma, st.first, comma, without} // AuthMessage (§3)
	key := f.hmac(st.cred.StoredKey, auth...)                       // ClientSignature
	subtle.XORBytes(key, key, proof)                                // ClientKey
	if subtle.ConstantTimeCompare(f.hash(key), st.cred.StoredKey) != 1 {
		return nil, NotAuthorized
	}
	final := append(make([]byte, 0, 2+base64.StdEncoding.EncodedLen(f.size)), "v="...)
	return base64.StdEncoding.AppendEncode(final, f.hmac(st.cred.ServerKey, auth...)), nil
}

var comma = []byte{','}

// saslname takes an attribute with the given prefix and resolves =2C and =3D, the only ones that may be (§5.1).
func saslname(attr []byte, prefix string) ([]byte, bool) {
	escaped, ok := bytes.CutPrefix(attr, []byte(prefix))
	if !ok || len(escaped) == 0 {
		return nil, false
	}
	name := make([]byte, 0, len(escaped))
	for i := 0; i < len(escaped); i++ {
		if escaped[i] != '=' {
			name = append(name, escaped[i])
			continue
		}
		switch {
		case bytes.HasPrefix(escaped[i:], []byte("=2C")):
			name = append(name, ',')
		case bytes.HasPrefix(escaped[i:], []byte("=3D")):
			name = append(name, '=')
		default:
			return nil, false
		}
		i += 2
	}
	return name, true
}

func base64Attr(attr []byte, prefix string) ([]byte, bool) {
	text, ok := bytes.CutPrefix(attr, []byte(prefix))
	if !ok || bytes.ContainsAny(text, "\r\n") {
		return nil, false
	}
	b, err := base64.StdEncoding.Strict().AppendDecode(nil, text)
	return b, err == nil
}

func printable(b []byte) bool {
	for _, c := range b {
		if c < 0x21 || c > 0x7e || c == ',' {
			return false
		}
	}
	return len(b) > 0
}
