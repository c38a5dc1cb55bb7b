package webclient

import (
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func handler(t *testing.T, cfg Config) http.Handler {
	t.Helper()
	h, err := New(cfg, "example.com", "demo@rooms.example.com")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, pattern := range h.Paths() {
		mux.Handle(pattern, h)
	}
	return mux
}

func get(t *testing.T, h http.Handler, path string, headers ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) []byte {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestNothingIsServedUnlessAsked(t *testing.T) {
	none, byDefault := handler(t, Config{}), handler(t, DefaultConfig())
	for _, path := range []string{"/", "/widget.js", "/widget.json", "/demo/demo.js", "/demo/settings.json", "/demo/side.html"} {
		if got := get(t, none, path).StatusCode; got != http.StatusNotFound {
			t.Errorf("%s: %d", path, got)
		}
		want := http.StatusNotFound
		if strings.HasPrefix(path, "/widget") {
			want = http.StatusOK
		}
		if got := get(t, byDefault, path).StatusCode; got != want {
			t.Errorf("by default, %s: %d", path, got)
		}
	}
}

func TestWidget(t *testing.T) {
	h := handler(t, DefaultConfig())
	plain := get(t, h, "/widget.js")
	content := body(t, plain)
	for name, want := range map[string]string{
		"Content-Type": "text/javascript; charset=utf-8", "Cache-Control": aWhile, "Access-Control-Allow-Origin": "*",
		"Cross-Origin-Resource-Policy": "cross-origin", "X-Content-Type-Options": "nosniff", "Vary": "Accept-Encoding", "Content-Encoding": "",
	} {
		if got := plain.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	zipped := get(t, h, "/widget.js", "Accept-Encoding", "br, gzip;q=0.5")
	raw := body(t, zipped)
	if len(raw) > 80_000 {
		t.Errorf("the widget is %d bytes compressed", len(raw))
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil || zipped.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("not compressed: %v", err)
	}
	if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, content) {
		t.Errorf("what is compressed is something else: %v", err)
	}
	if zipped.Header.Get("ETag") == plain.Header.Get("ETag") {
		t.Error("both representations have one ETag")
	}
	for _, refused := range []string{"gzip;q=0", "gzip; q=0.0", "br", "x-gzip"} {
		if got := get(t, h, "/widget.js", "Accept-Encoding", refused).Header.Get("Content-Encoding"); got != "" {
			t.Errorf("Accept-Encoding: %s is answered with %s", refused, got)
		}
	}

	var about struct{ Path, Integrity string }
	if err := json.Unmarshal(body(t, get(t, h, "/widget.json")), &about); err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum384(content)
	if want := "sha384-" + base64.StdEncoding.EncodeToString(sum[:]); about.Integrity != want {
		t.Errorf("integrity %s, want %s", about.Integrity, want)
	}
	pinned := get(t, h, about.Path)
	if !bytes.Equal(body(t, pinned), content) || pinned.Header.Get("Cache-Control") != forEver {
		t.Errorf("%s: %v", about.Path, pinned.Header)
	}
	if got := get(t, h, "/widget/0123456789abcdef0123456789abcdef.js").StatusCode; got != http.StatusNotFound {
		t.Errorf("another version: %d", got)
	}
}

// RFC 9110 §13.1.2.
func TestConditionalRequests(t *testing.T) {
	h := handler(t, DefaultConfig())
	tag := get(t, h, "/widget.js", "Accept-Encoding", "gzip").Header.Get("ETag")
	for header, want := range map[string]int{
		tag: http.StatusNotModified, "W/" + tag: http.StatusNotModified, `"x", ` + tag: http.StatusNotModified, "*": http.StatusNotModified,
		`"x"`: http.StatusOK, "": http.StatusOK, strings.Trim(tag, `"`): http.StatusOK,
	} {
		r := get(t, h, "/widget.js", "Accept-Encoding", "gzip", "If-None-Match", header)
		if r.StatusCode != want {
			t.Errorf("If-None-Match: %s: %d", header, r.StatusCode)
		}
		if want == http.StatusNotModified && (len(body(t, r)) > 0 || r.Header.Get("ETag") != tag || r.Header.Get("Cache-Control") == "" || r.Header.Get("Content-Encoding") != "") {
			t.Errorf("If-None-Match: %s: %v", header, r.Header)
		}
	}
	if r := get(t, h, "/widget.js", "If-None-Match", tag); r.StatusCode != http.StatusOK {
		t.Error("the tag of the compressed form stands for the other")
	}
}

func TestMethods(t *testing.T) {
	h := handler(t, DefaultConfig())
	for method, want := range map[string]int{http.MethodHead: http.StatusOK, http.MethodPost: http.StatusMethodNotAllowed, http.MethodPut: http.StatusMethodNotAllowed} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/widget.js", http.NoBody))
		if w.Code != want {
			t.Errorf("%s: %d", method, w.Code)
		}
		if method == http.MethodHead && (w.Body.Len() > 0 || w.Header().Get("Content-Length") == "") {
			t.Errorf("HEAD: %v, %d bytes", w.Header(), w.Body.Len())
		}
	}
}

func TestDemo(t *testing.T) {
	h := handler(t, Config{Demo: true})
	for _, path := range []string{"/", "/demo/side.html"} {
		r := get(t, h, path)
		csp := r.Header.Get("Content-Security-Policy")
		if r.StatusCode != http.StatusOK || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") {
			t.Errorf("%s: %d, %v", path, r.StatusCode, r.Header)
		}
		if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || !strings.Contains(csp, "ws://example.com") {
			t.Errorf("%s: %s", path, csp)
		}
		if r.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s is for other sites too", path)
		}
	}
	if got := get(t, h, "/demo/").StatusCode; got != http.StatusNotFound {
		t.Errorf("/demo/: %d", got)
	}
	if got := string(body(t, get(t, h, "/demo/settings.json"))); got != `{"domain":"example.com","room":"demo@rooms.example.com"}` {
		t.Errorf("settings: %s", got)
	}
}

// A Host header is the client's word.
func TestPolicyOfAnyHost(t *testing.T) {
	for _, host := range []string{"", "a; script-src *", "a b", "a'b", "ä.example"} {
		if got := policy(host); !strings.Contains(got, "connect-src 'self';") {
			t.Errorf("%q: %s", host, got)
		}
	}
	for _, host := range []string{"example.com", "127.0.0.1:5280", "[::1]:5280"} {
		if got := policy(host); !strings.Contains(got, "connect-src 'self' ws://"+host+" wss://"+host+";") {
			t.Errorf("%q: %s", host, got)
		}
	}
}

// Every file of the demo is served, and nothing else has got into dist.
func TestDist(t *testing.T) {
	h, err := New(Config{Widget: true, Demo: true}, "example.com", "")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range h.Paths() {
		if !strings.HasPrefix(p, "/widget/") {
			got = append(got, p)
		}
	}
	slices.Sort(got)
	want := []string{
		"/demo/demo.css", "/demo/demo.js", "/demo/network.js", "/demo/settings.json", "/demo/side.html", "/demo/side.js",
		"/widget.js", "/widget.json", "/{$}",
	}
	if !slices.Equal(got, want) {
		t.Errorf("served: %q", got)
	}
}
