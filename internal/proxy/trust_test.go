package proxy

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func request(remote string, secure bool, headers ...string) *http.Request {
	r := &http.Request{RemoteAddr: remote, Header: http.Header{}}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	if secure {
		r.TLS = &tls.ConnectionState{}
	}
	return r
}

func TestClient(t *testing.T) {
	const xff, xfp, fwd = "X-Forwarded-For", "X-Forwarded-Proto", "Forwarded"
	trusting := func(header string) *Trust {
		cfg := DefaultConfig()
		cfg.TrustedProxies = append(cfg.TrustedProxies, "10.0.0.0/8", "2001:db8:ff::1")
		cfg.Header = header
		tr, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	for _, tt := range []struct {
		name   string
		header string
		r      *http.Request
		addr   string
		secure bool
		known  bool
	}{
		{"direct", "", request("192.0.2.1:99", false), "192.0.2.1", false, true},
		{"direct TLS", "", request("192.0.2.1:99", true), "192.0.2.1", true, true},
		{"direct loopback", "", request("127.0.0.1:99", false), "127.0.0.1", true, false},
		{"direct loopback v6", "", request("[::1]:99", false), "::1", true, false},
		{"stranger's headers", "", request("192.0.2.1:99", false, xff, "127.0.0.1", xfp, "https", fwd, "for=127.0.0.1;proto=https"), "192.0.2.1", false, true},
		{"X-Forwarded-For", "", request("10.1.1.1:99", false, xff, "192.0.2.7"), "192.0.2.7", false, true},
		{"X-Forwarded-Proto https", "", request("10.1.1.1:99", false, xff, "192.0.2.7", xfp, "https"), "192.0.2.7", true, true},
		{"X-Forwarded-Proto http over TLS hop", "", request("10.1.1.1:99", true, xff, "192.0.2.7", xfp, "http"), "192.0.2.7", false, true},
		{"TLS hop, nothing said of the protocol", "", request("10.1.1.1:99", true, xff, "192.0.2.7"), "192.0.2.7", true, true},
		{"X-Forwarded-Proto list with a plain part", "", request("10.1.1.1:99", false, xff, "192.0.2.7", xfp, "https, http"), "192.0.2.7", false, true},
		{"spoofed left end", "", request("127.0.0.1:99", false, xff, "127.0.0.1, 192.0.2.7"), "192.0.2.7", false, true},
		{"two trusted hops", "", request("127.0.0.1:99", false, xff, "198.51.100.1, 192.0.2.7, 10.2.2.2"), "192.0.2.7", false, true},
		{"two header lines", "", request("127.0.0.1:99", false, xff, "192.0.2.7", xff, "10.2.2.2"), "192.0.2.7", false, true},
		{"port", "", request("10.1.1.1:99", false, xff, "192.0.2.7:1234"), "192.0.2.7", false, true},
		{"IPv6 with port", "", request("10.1.1.1:99", false, xff, "[2001:db8::7]:1234"), "2001:db8::7", false, true},
		{"IPv6 in brackets", "", request("10.1.1.1:99", false, xff, "[2001:db8::7]"), "2001:db8::7", false, true},
		{"mapped IPv4", "", request("[::ffff:10.1.1.1]:99", false, xff, "::ffff:192.0.2.7"), "192.0.2.7", false, true},
		{"malformed", "", request("10.1.1.1:99", false, xff, "nonsense"), "10.1.1.1", false, false},
		{"malformed from a local proxy is not local", "", request("127.0.0.1:99", false, xff, "nonsense"), "127.0.0.1", false, false},
		{"malformed left of a trusted hop", "", request("127.0.0.1:99", false, xff, "<>, 127.0.0.1"), "127.0.0.1", false, false},
		{"empty", "", request("10.1.1.1:99", false, xff, ""), "10.1.1.1", false, false},
		{"local client of a local proxy", "", request("127.0.0.1:99", false, xff, "127.0.0.1"), "127.0.0.1", true, false},
		{"local proxy that tells only the protocol", "", request("127.0.0.1:99", false, xfp, "http"), "127.0.0.1", false, false},
		{"all trusted", "", request("127.0.0.1:99", false, xff, "10.0.0.9"), "10.0.0.9", false, false},
		{"too many hops", "", request("127.0.0.1:99", false, xff, "192.0.2.7"+strings.Repeat(",127.0.0.1", maxHops)), "127.0.0.1", false, false},

		{"Forwarded", "", request("10.1.1.1:99", false, fwd, `for=192.0.2.43;proto=https;by=10.1.1.1`), "192.0.2.43", true, true},
		{"Forwarded IPv6", "", request("10.1.1.1:99", false, fwd, `For="[2001:db8:cafe::17]:4711"`), "2001:db8:cafe::17", false, true},
		{"Forwarded walk", "", request("10.1.1.1:99", false, fwd, `for=127.0.0.1;proto=https, for=192.0.2.43;proto=http, for="10.3.3.3";proto=https`), "192.0.2.43", false, true},
		{"Forwarded plain inner hop", "", request("10.1.1.1:99", false, fwd, `for=192.0.2.43;proto=https, for=10.3.3.3;proto=http`), "192.0.2.43", true, true},
		{"Forwarded quoted comma", "", request("10.1.1.1:99", false, fwd, `for=192.0.2.43;host="a,b;c\"d"`), "192.0.2.43", false, true},
		{"Forwarded unknown", "", request("127.0.0.1:99", false, fwd, `for=unknown;proto=https`), "127.0.0.1", true, false},
		{"Forwarded obfuscated, plain", "", request("127.0.0.1:99", false, fwd, `for=_hidden`), "127.0.0.1", false, false},
		{"Forwarded malformed", "", request("127.0.0.1:99", false, fwd, `for="192.0.2.43`), "127.0.0.1", false, false},
		{"Forwarded without pairs", "", request("127.0.0.1:99", false, fwd, `nonsense`), "127.0.0.1", false, false},

		{"auto prefers X-Forwarded-For", "", request("10.1.1.1:99", false, fwd, `for=127.0.0.1;proto=https`, xff, "192.0.2.7"), "192.0.2.7", false, true},
		{"forwarded only", HeaderForwarded, request("10.1.1.1:99", false, fwd, `for=192.0.2.43`, xff, "127.0.0.1"), "192.0.2.43", false, true},
		{"x-forwarded only", HeaderXForwarded, request("10.1.1.1:99", false, fwd, `for=192.0.2.43`), "10.1.1.1", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			header := tt.header
			if header == "" {
				header = HeaderAuto
			}
			got := trusting(header).Client(tt.r)
			want := Client{Addr: netip.MustParseAddr(tt.addr), Secure: tt.secure, Known: tt.known}
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// Whatever a client puts into the headers, what a proxy appended decides.
func TestClientCannotSpoof(t *testing.T) {
	tr, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	real := netip.MustParseAddr("203.0.113.9")
	rapid.Check(t, func(rt *rapid.T) {
		junk := rapid.StringOf(rapid.RuneFrom([]rune(`127.0:[]"\;,= forproxyhttps_<`))).Draw(rt, "junk")
		got := tr.Client(request("127.0.0.1:1", false, "X-Forwarded-For", junk+", 203.0.113.9", "X-Forwarded-Proto", "http"))
		if got != (Client{Addr: real, Known: true}) {
			rt.Fatalf("%q: %+v", junk, got)
		}
		got = tr.Client(request("127.0.0.1:1", false, "Forwarded", junk, "Forwarded", "for=203.0.113.9"))
		if got != (Client{Addr: real, Known: true}) {
			rt.Fatalf("%q: %+v", junk, got)
		}
	})
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*Config)
		want string // the variable that is named, "" when all is well
	}{
		{"default", func(*Config) {}, ""},
		{"none", func(c *Config) { c.TrustedProxies = []string{"none"} }, ""},
		{"address", func(c *Config) { c.TrustedProxies = []string{" 10.0.0.1 ", "fe80::/10"} }, ""},
		{"bad CIDR", func(c *Config) { c.TrustedProxies = []string{"10.0.0.0/64"} }, "TRUSTED_PROXIES"},
		{"bad header", func(c *Config) { c.Header = "via" }, "FORWARDED_HEADER"},
		{"negative", func(c *Config) { c.LineTimeout = -1 }, "PROXY_LINE_TIMEOUT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := DefaultConfig()
			tt.edit(&cfg)
			_, err := New(cfg)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want it to name %q", err, tt.want)
			}
		})
	}
}

func TestNobodyTrusted(t *testing.T) {
	cfg := DefaultConfig()
	cfg.TrustedProxies = []string{"none"}
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	got := tr.Client(request("127.0.0.1:1", false, "X-Forwarded-For", "192.0.2.1"))
	if want := (Client{Addr: netip.MustParseAddr("127.0.0.1"), Secure: true, Known: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
