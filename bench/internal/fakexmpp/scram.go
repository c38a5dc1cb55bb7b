package fakexmpp

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// exchange is the server's side of SCRAM-SHA-256 (RFC 5802 §5).
type exchange struct {
	user, bare, first string
}

const (
	salt       = "c2FsdHNhbHQ="
	iterations = 4096
)

func (st *stream) authenticate(el string) {
	text := between(el, ">", "</")
	raw, _ := base64.StdEncoding.DecodeString(text)
	switch {
	case attrs(el)["mechanism"] == "PLAIN":
		parts := strings.Split(string(raw), "\x00")
		if want, ok := st.server.Password(parts[1]); !ok || want != parts[2] {
			st.refuse()
			return
		}
		st.user = parts[1]
		st.send(`<success xmlns="urn:ietf:params:xml:ns:xmpp-sasl"/>`)
	case st.scram.first == "":
		st.scram.bare = strings.TrimPrefix(string(raw), "n,,")
		st.scram.user = between(st.scram.bare, "n=", ",")
		st.scram.first = "r=" + between(st.scram.bare+",", "r=", ",") + "server,s=" + salt + ",i=4096"
		st.send(`<challenge xmlns="urn:ietf:params:xml:ns:xmpp-sasl">%s</challenge>`,
			base64.StdEncoding.EncodeToString([]byte(st.scram.first)))
	default:
		st.finish(string(raw))
	}
}

func (st *stream) refuse() {
	st.send(`<failure xmlns="urn:ietf:params:xml:ns:xmpp-sasl"><not-authorized/></failure>`)
}

func (st *stream) finish(final string) {
	withoutProof, proof, _ := strings.Cut(final, ",p=")
	password, ok := st.server.Password(st.scram.user)
	raw, _ := base64.StdEncoding.DecodeString(salt)
	salted, err := pbkdf2.Key(sha256.New, password, raw, iterations, sha256.Size)
	got, _ := base64.StdEncoding.DecodeString(proof)
	message := st.scram.bare + "," + st.scram.first + "," + withoutProof
	clientKey := mac(salted, "Client Key")
	stored := sha256.Sum256(clientKey)
	want := mac(stored[:], message)
	for i := range want {
		want[i] ^= clientKey[i]
	}
	if err != nil || !ok || !hmac.Equal(got, want) {
		st.refuse()
		return
	}
	st.user = st.scram.user
	signature := mac(mac(salted, "Server Key"), message)
	st.send(`<success xmlns="urn:ietf:params:xml:ns:xmpp-sasl">%s</success>`, base64.StdEncoding.EncodeToString(
		append([]byte("v="), base64.StdEncoding.EncodeToString(signature)...)))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
