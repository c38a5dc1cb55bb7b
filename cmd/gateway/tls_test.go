package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"holdfast/internal/testkit/xmppclient"
)

// writeCertificate makes a self-signed certificate for 127.0.0.1 in two files of dir, and gives them the modification time at.
func writeCertificate(t testing.TB, dir, name string, at time.Time) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(at.UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: at.Add(-time.Hour), NotAfter: at.Add(1000 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeAt(t, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), at)
	writeAt(t, key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), at)
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return cert, key, pool
}

func writeAt(t testing.TB, path string, b []byte, at time.Time) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func served(t testing.TB, c *certificate) string {
	t.Helper()
	got, err := c.get(nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(got.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf.Subject.CommonName
}

func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		first := time.Now()
		cert, key, _ := writeCertificate(t, dir, "first", first)
		pair, err := newCertificate(cert, key, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		check := func(want string) {
			t.Helper()
			if got := served(t, pair); got != want {
				t.Errorf("%s is served, want %s", got, want)
			}
		}
		check("first")
		time.Sleep(checkEvery)
		check("first")

		// A renewal: one file after the other. In between they do not fit, and the old pair goes on.
		oldKey, err := os.ReadFile(key)
		if err != nil {
			t.Fatal(err)
		}
		writeCertificate(t, dir, "second", first.Add(time.Minute))
		newKey, err := os.ReadFile(key)
		if err != nil {
			t.Fatal(err)
		}
		writeAt(t, key, oldKey, first)
		check("first") // looked at lately
		time.Sleep(checkEvery)
		check("first") // halfway
		writeAt(t, key, newKey, first.Add(time.Minute))
		time.Sleep(checkEvery)
		check("second")

		// Gone, or nonsense: better an old certificate than none.
		if err := os.Remove(cert); err != nil {
			t.Fatal(err)
		}
		time.Sleep(checkEvery)
		check("second")
		writeAt(t, cert, []byte("nonsense"), first.Add(2*time.Minute))
		time.Sleep(checkEvery)
		check("second")
		writeCertificate(t, dir, "third", first.Add(3*time.Minute))
		time.Sleep(checkEvery)
		check("third")
	})
}

func TestMissingCertificate(t *testing.T) {
	_, err := newCertificate(filepath.Join(t.TempDir(), "none"), "none", slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "HOLDFAST_TLS_CERT") {
		t.Errorf("error %v does not name the setting", err)
	}
}

// Clients on TLS, with no plain text on the same port, and PLAIN offered.
func TestServeTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key, pool := writeCertificate(t, dir, "gateway", time.Now())
	n := startNode(t, t.TempDir(), map[string]string{"TLS_CERT": cert, "TLS_KEY": key})
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
	}}
	conn, _, err := xmppclient.DialOptions(t.Context(), "wss://"+n.cfg.Listen+"/xmpp-websocket",
		&websocket.DialOptions{Subprotocols: []string{"xmpp"}, HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Abort()
	n.addUsers("alice")
	account := n.account("alice")
	account.Mechanism = "PLAIN"
	if err := conn.Prepare(t.Context(), account); err != nil {
		t.Error(err)
	}
	resp, err := client.Get("https://" + n.cfg.Listen + "/.well-known/host-meta")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if b, _ := io.ReadAll(resp.Body); !strings.Contains(string(b), "wss://"+n.cfg.Listen) {
		t.Errorf("host-meta says %s", b)
	}
	if plain, err := plainHTTP.Get("http://" + n.cfg.Listen + "/.well-known/host-meta"); err == nil {
		_ = plain.Body.Close()
		if plain.StatusCode == http.StatusOK {
			t.Error("plain text is served on the TLS port")
		}
	}
}
