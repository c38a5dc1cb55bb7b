package hostmeta_test

import (
	"crypto/tls"
	"encoding/json"
	"encoding/xml"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"holdfast/internal/hostmeta"
	"holdfast/internal/proxy"
)

var (
	websocket = hostmeta.Entry{Rel: "urn:xmpp:alt-connections:websocket", Plain: "ws", TLS: "wss", Path: "/xmpp-websocket"}
	bosh      = hostmeta.Entry{Rel: "urn:xmpp:alt-connections:xbosh", Plain: "http", TLS: "https", Path: "/http-bind"}
)

func handler(t *testing.T, entries ...hostmeta.Entry) http.Handler {
	t.Helper()
	trust, err := proxy.New(proxy.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	return hostmeta.New(trust, entries...)
}

// XEP-0156 §4 and §5.
func TestHostMeta(t *testing.T) {
	for _, tt := range []struct {
		name   string
		url    string
		remote string
		tls    bool
		proto  string
		want   string
	}{
		{"plain", "", "192.0.2.1:1", false, "", "ws://chat.example:5280/xmpp-websocket"},
		{"local", "", "127.0.0.1:1", false, "", "ws://chat.example:5280/xmpp-websocket"},
		{"TLS", "", "192.0.2.1:1", true, "", "wss://chat.example:5280/xmpp-websocket"},
		{"behind TLS", "", "127.0.0.1:1", false, "https", "wss://chat.example:5280/xmpp-websocket"},
		{"a stranger's word", "", "192.0.2.1:1", false, "https", "ws://chat.example:5280/xmpp-websocket"},
		{"set", "wss://public.example/ws?a=1&b=2", "192.0.2.1:1", false, "", "wss://public.example/ws?a=1&b=2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			entry := websocket
			entry.Public = tt.url
			h := handler(t, entry, bosh)
			get := func(path string) *httptest.ResponseRecorder {
				r := httptest.NewRequest(http.MethodGet, path, nil)
				r.Host, r.RemoteAddr = "chat.example:5280", tt.remote
				if tt.tls {
					r.TLS = &tls.ConnectionState{}
				}
				if tt.proto != "" {
					r.Header.Set("X-Forwarded-Proto", tt.proto)
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != http.StatusOK || w.Header().Get("Access-Control-Allow-Origin") != "*" {
					t.Errorf("%s: status %d, headers %v", path, w.Code, w.Header())
				}
				return w
			}
			type links struct {
				Links []struct {
					Rel  string `json:"rel" xml:"rel,attr"`
					Href string `json:"href" xml:"href,attr"`
				} `json:"links" xml:"http://docs.oasis-open.org/ns/xri/xrd-1.0 Link"`
			}
			check := func(what string, l links) {
				if len(l.Links) != 2 || l.Links[1].Rel != bosh.Rel || !strings.HasPrefix(l.Links[1].Href, "http") || l.Links[0].Rel != "urn:xmpp:alt-connections:websocket" || l.Links[0].Href != tt.want {
					t.Errorf("%s: got %+v, want %s", what, l, tt.want)
				}
			}
			var fromXML, fromJSON links
			w := get("/.well-known/host-meta")
			if err := xml.Unmarshal(w.Body.Bytes(), &fromXML); err != nil || w.Header().Get("Content-Type") != "application/xrd+xml" {
				t.Errorf("%v, %s", err, w.Header().Get("Content-Type"))
			}
			check("XRD", fromXML)
			w = get("/.well-known/host-meta.json")
			if err := json.Unmarshal(w.Body.Bytes(), &fromJSON); err != nil || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%v, %s", err, w.Header().Get("Content-Type"))
			}
			check("JSON", fromJSON)
		})
	}
}

// A host that is markup stays text.
func TestHostMetaEscapes(t *testing.T) {
	h := handler(t, websocket)
	for _, path := range []string{"/.well-known/host-meta", "/.well-known/host-meta.json"} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Host = `x"><y a="`
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if strings.Contains(w.Body.String(), "<y") {
			t.Errorf("%s: %s", path, w.Body)
		}
	}
}

func TestHostMetaMethods(t *testing.T) {
	h := handler(t, websocket)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/.well-known/host-meta", nil))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") == "" {
		t.Errorf("status %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
}
