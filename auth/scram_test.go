package auth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"mellium.im/sasl"
)

func fetchPencil(t testing.TB, f *family, salt string) fetcher {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(salt)
	if err != nil {
		t.Fatal(err)
	}
	stored, server, err := f.keys("pencil", raw, 4096)
	if err != nil {
		t.Fatal(err)
	}
	return func(name, _ []byte) ([]byte, []byte, int64, error) {
		if string(name) != "user" {
			return nil, nil, 0, errors.New("another name")
		}
		return raw, append(bytes.Clone(stored), server...), 4096, nil
	}
}

type vector struct {
	rfc, mechanism, clientNonce, serverNonce, salt, proof, verifier string
}

var vectors = []vector{
	{
		"RFC 5802 §5", ScramSHA1, "fyko+d2lbbFgONRv9qkxdawL", "3rfcNHYJY1ZVvWVs7j", "QSXCR+Q6sek8bf92",
		"v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
	},
	{
		"RFC 7677 §3", ScramSHA256, "rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", "W22ZaJ0SNY7soEsUEjb6gQ==",
		"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
	},
	{
		// No RFC has a vector for SHA-512: the messages of RFC 7677, computed with another implementation (Python's
		// hmac and hashlib), which also gives the two above.
		"RFC 7677 §3 with SHA-512", ScramSHA512, "rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", "W22ZaJ0SNY7soEsUEjb6gQ==",
		"gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==",
		"ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
	},
}

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.rfc, func(t *testing.T) {
			f := families([]string{v.mechanism})[0]
			st, err := f.clientFirst([]byte("n,,n=user,r="+v.clientNonce), []byte(v.serverNonce), fetchPencil(t, f, v.salt))
			if err != nil {
				t.Fatal(err)
			}
			nonce := v.clientNonce + v.serverNonce
			if want := "r=" + nonce + ",s=" + v.salt + ",i=4096"; string(st.first) != want {
				t.Errorf("server-first-message %q, want %q", st.first, want)
			}
			final, err := f.clientFinal(st, []byte("c=biws,r="+nonce+",p="+v.proof))
			if err != nil || string(final) != "v="+v.verifier {
				t.Errorf("server-final-message %q, %v; want v=%s", final, err, v.verifier)
			}
		})
	}
}

func TestClientFirstMessage(t *testing.T) { // RFC 5802 §7
	f := families([]string{ScramSHA256})[0]
	long := strings.Repeat("x", maxScram)
	for message, want := range map[string]string{
		"n,,n=user,r=abc":                     "user|",
		"y,,n=user,r=abc":                     "user|",
		"n,a=user@localhost,n=user,r=abc":     "user|user@localhost",
		"n,a=us=2Cer@x,n=a=3Db=2Cc,r=abc":     "a=b,c|us,er@x",
		"n,,n=user,r=abc,x=extension,y=other": "user|",
		"":                                    "",
		"n":                                   "",
		"n,":                                  "",
		"n,,":                                 "",
		"n,,n=user":                           "",
		"n,,n=user,":                          "",
		"n,,n=,r=abc":                         "",
		"n,,n=user,r=":                        "",
		"n,,n=user,r=a\x7fb":                  "",
		"n,,n=user,r=a b":                     "",
		"n,,n=us=er,r=abc":                    "",
		"n,,n=user=2,r=abc":                   "",
		"n,,n=user=2c,r=abc":                  "",
		"n,,n=us\x00er,r=abc":                 "",
		"n,,n=us\xffer,r=abc":                 "",
		"n,,r=abc,n=user":                     "",
		"n,,m=ext,n=user,r=abc":               "",
		"n,,n=user,r=abc,m=ext":               "",
		"n,x=y,n=user,r=abc":                  "",
		"n,a=,n=user,r=abc":                   "",
		"x,,n=user,r=abc":                     "",
		",,n=user,r=abc":                      "",
		"p=tls-exporter,,n=user,r=abc":        "",
		"n,,n=" + long + ",r=abc":             "",
	} {
		var asked string
		st, err := f.clientFirst([]byte(message), []byte("server"), func(name, authzid []byte) ([]byte, []byte, int64, error) {
			asked = string(name) + "|" + string(authzid)
			return []byte("salt"), make([]byte, 64), 4096, nil
		})
		if asked != want || (err == nil) != (want != "") {
			t.Errorf("%.60q: asked for %q, %v", message, asked, err)
		}
		if err != nil && !errors.Is(err, MalformedRequest) {
			t.Errorf("%.60q: %v", message, err)
		}
		if err == nil && !strings.HasPrefix(string(st.first), "r=abcserver,s=c2FsdA==,i=4096") {
			t.Errorf("%.60q: %q", message, st.first)
		}
	}
}

func TestClientFinalMessage(t *testing.T) { // RFC 5802 §7
	v := vectors[1]
	f := families([]string{v.mechanism})[0]
	nonce := v.clientNonce + v.serverNonce
	good := "c=biws,r=" + nonce + ",p=" + v.proof
	for name, c := range map[string]struct {
		message string
		want    error
	}{
		"good":                     {good, nil},
		"empty":                    {"", MalformedRequest},
		"commas":                   {",,,", MalformedRequest},
		"no proof":                 {"c=biws,r=" + nonce, MalformedRequest},
		"empty proof":              {"c=biws,r=" + nonce + ",p=", MalformedRequest},
		"short proof":              {"c=biws,r=" + nonce + ",p=AAAA", MalformedRequest},
		"long proof":               {"c=biws,r=" + nonce + ",p=" + base64.StdEncoding.EncodeToString(make([]byte, 64)), MalformedRequest},
		"garbage proof":            {"c=biws,r=" + nonce + ",p=!" + v.proof[1:], MalformedRequest},
		"newline in proof":         {good + "\n", MalformedRequest},
		"proof not last":           {good + ",x=y", MalformedRequest},
		"another binding":          {"c=eSws,r=" + nonce + ",p=" + v.proof, MalformedRequest}, // y,, where n,, was said
		"no binding":               {"r=" + nonce + ",p=" + v.proof, MalformedRequest},
		"another nonce":            {"c=biws,r=" + nonce + "x,p=" + v.proof, MalformedRequest},
		"the client's nonce alone": {"c=biws,r=" + v.clientNonce + ",p=" + v.proof, MalformedRequest},
		"mandatory extension":      {"c=biws,r=" + nonce + ",m=x,p=" + v.proof, MalformedRequest},
		"another proof":            {"c=biws,r=" + nonce + ",p=" + base64.StdEncoding.EncodeToString(make([]byte, 32)), NotAuthorized},
		"unsigned extension":       {"c=biws,r=" + nonce + ",x=y,p=" + v.proof, NotAuthorized},
	} {
		st, err := f.clientFirst([]byte("n,,n=user,r="+v.clientNonce), []byte(v.serverNonce), fetchPencil(t, f, v.salt))
		if err != nil {
			t.Fatal(err)
		}
		final, err := f.clientFinal(st, []byte(c.message))
		if !errors.Is(err, c.want) || (err == nil) != (final != nil) {
			t.Errorf("%s: %q, %v; want %v", name, final, err, c.want)
		}
	}
}

// clientMechanism is the client's side of SHA-512, which mellium does not have.
func clientMechanism(f *family) sasl.Mechanism {
	return sasl.Mechanism{
		Name: f.name,
		Start: func(n *sasl.Negotiator) (bool, []byte, any, error) {
			user, _, _ := n.Credentials()
			bare := "n=" + string(user) + ",r=" + string(n.Nonce())
			return true, []byte("n,," + bare), bare, nil
		},
		Next: func(n *sasl.Negotiator, challenge []byte, data any) (bool, []byte, any, error) {
			if n.State()&sasl.StepMask == sasl.ResponseSent {
				if string(challenge) != data.(string) {
					return false, nil, nil, sasl.ErrAuthn
				}
				return false, nil, nil, nil
			}
			_, password, _ := n.Credentials()
			parts := strings.SplitN(string(challenge), ",", 3)
			salt, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(parts[1], "s="))
			if err != nil {
				return false, nil, nil, err
			}
			iterations := 0
			for _, c := range strings.TrimPrefix(parts[2], "i=") {
				iterations = 10*iterations + int(c-'0')
			}
			salted := sasl.SCRAMSaltPassword(f.new, password, salt, iterations)
			without := "c=biws," + parts[0]
			auth := []byte(data.(string) + "," + string(challenge) + "," + without)
			key := f.hmac(salted, []byte("Client Key"))
			signature := f.hmac(f.hash(key), auth)
			for i := range key {
				key[i] ^= signature[i]
			}
			server := f.hmac(f.hmac(salted, []byte("Server Key")), auth)
			return true, []byte(without + ",p=" + base64.StdEncoding.EncodeToString(key)),
				"v=" + base64.StdEncoding.EncodeToString(server), nil
		},
	}
}

func FuzzSCRAM(f *testing.F) {
	v := vectors[1]
	fam := families([]string{v.mechanism})[0]
	fetch := fetchPencil(f, fam, v.salt)
	final := "c=biws,r=" + v.clientNonce + v.serverNonce + ",p=" + v.proof
	f.Add([]byte("n,,n=user,r="+v.clientNonce), []byte(final))
	f.Add([]byte("n,a=x,n=user,r=a,m=b"), []byte("c=biws,r=,p="))
	f.Fuzz(func(t *testing.T, first, last []byte) {
		st, err := fam.clientFirst(first, []byte(v.serverNonce), fetch)
		if err != nil {
			return
		}
		if !bytes.HasSuffix(st.nonce, []byte(v.serverNonce)) || !bytes.HasPrefix(first, st.gs2) {
			t.Fatalf("state of %q: %+v", first, st)
		}
		if got, err := fam.clientFinal(st, last); err == nil && string(last) != final {
			t.Fatalf("%q was accepted: %q", last, got)
		}
	})
}

func BenchmarkServerSCRAM256(b *testing.B) {
	v := vectors[1]
	f := families([]string{v.mechanism})[0]
	fetch := fetchPencil(b, f, v.salt)
	first, last := []byte("n,,n=user,r="+v.clientNonce), []byte("c=biws,r="+v.clientNonce+v.serverNonce+",p="+v.proof)
	for b.Loop() {
		st, err := f.clientFirst(first, []byte(v.serverNonce), fetch)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.clientFinal(st, last); err != nil {
			b.Fatal(err)
		}
	}
}

// proof is the client-final-message of who has the ClientKey.
func proof(f *family, key []byte, bare, challenge string) []byte {
	nonce, _, _ := strings.Cut(challenge, ",")
	without := "c=biws," + nonce
	p := f.hmac(f.hash(key), []byte(bare+","+challenge+","+without))
	for i := range p {
		p[i] ^= key[i]
	}
	return []byte(without + ",p=" + base64.StdEncoding.EncodeToString(p))
}
