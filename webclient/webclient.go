package webclient

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed dist
var dist embed.FS

// Cache-Control of what changes with the gateway, and of what never does.
const (
	aWhile  = "public, max-age=300"
	forEver = "public, max-age=31536000, immutable"
	always  = "no-cache"
)

// Handler serves the web client.
type Handler struct {
	files map[string]*file // by path
	paths []string
}

// file is one resource with everything that is said of it.
type file struct {
	content, zipped   []byte // zipped is nil when that is not smaller
	kind, etag, cache string
	shared            bool // pages of other sites may have it
	page              bool // an HTML page, with a Content-Security-Policy
}

// New makes a Handler. domain is the one that the demo's people are guests of, and room where they meet, "" for no room.
func New(cfg Config, domain, room string) (*Handler, error) {
	h := &Handler{files: map[string]*file{}}
	if cfg.Widget || cfg.Demo {
		if err := h.addWidget(); err != nil {
			return nil, fmt.Errorf("webclient: %w", err)
		}
	}
	if cfg.Demo {
		if err := h.addDemo(domain, room); err != nil {
			return nil, fmt.Errorf("webclient: %w", err)
		}
	}
	return h, nil
}

// Paths are the patterns of http.ServeMux that belong to the Handler.
func (h *Handler) Paths() []string { return h.paths }

func (h *Handler) addWidget() error {
	content, err := dist.ReadFile("dist/widget.js")
	if err != nil {
		return err
	}
	integrity := sha512.Sum384(content)
	pinned := "/widget/" + hex.EncodeToString(integrity[:16]) + ".js"
	about, err := json.Marshal(struct {
		Path      string `json:"path"`
		Integrity string `json:"integrity"`
	}{pinned, "sha384-" + base64.StdEncoding.EncodeToString(integrity[:])})
	if err != nil {
		return err
	}
	widget := &file{content: content, cache: aWhile, shared: true}
	if err := h.add("/widget.js", widget); err != nil {
		return err
	}
	same := *widget
	same.cache = forEver
	h.put(pinned, &same)
	return h.add("/widget.json", &file{content: about, cache: aWhile, shared: true})
}

func (h *Handler) addDemo(domain, room string) error {
	entries, err := fs.ReadDir(dist, "dist/demo")
	if err != nil {
		return err
	}
	for _, e := range entries {
		content, err := dist.ReadFile("dist/demo/" + e.Name())
		if err != nil {
			return err
		}
		name := "/demo/" + e.Name()
		if e.Name() == "index.html" {
			name = "/{$}"
		}
		if err := h.add(name, &file{content: content, cache: always, page: path.Ext(e.Name()) == ".html"}); err != nil {
			return err
		}
	}
	settings, err := json.Marshal(map[string]string{"domain": domain, "room": room})
	if err != nil {
		return err
	}
	return h.add("/demo/settings.json", &file{content: settings, cache: always})
}

func (h *Handler) add(pattern string, f *file) error {
	name := strings.TrimSuffix(pattern, "{$}")
	if f.kind = mime.TypeByExtension(path.Ext(name)); f.page {
		f.kind = "text/html; charset=utf-8"
	} else if path.Ext(name) == ".js" {
		f.kind = "text/javascript; charset=utf-8" // whatever the machine's own table says
	}
	sum := sha256.Sum256(f.content)
	f.etag = hex.EncodeToString(sum[:16])
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(f.content); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if buf.Len() < len(f.content) {
		f.zipped = buf.Bytes()
	}
	h.put(pattern, f)
	return nil
}

func (h *Handler) put(pattern string, f *file) {
	h.files[strings.TrimSuffix(pattern, "{$}")] = f
	h.paths = append(h.paths, pattern)
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := h.files[r.URL.Path]
	if f == nil {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	head := w.Header()
	f.describe(head, r.Host)
	content, tag := f.content, `"`+f.etag+`"`
	if f.zipped != nil {
		head.Set("Vary", "Accept-Encoding")
		if acceptsGzip(r.Header.Get("Accept-Encoding")) {
			head.Set("Content-Encoding", "gzip")
			content, tag = f.zipped, `"`+f.etag+`-gzip"`
		}
	}
	head.Set("ETag", tag)
	if matches(r.Header.Get("If-None-Match"), tag) {
		head.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	head.Set("Content-Type", f.kind)
	head.Set("Content-Length", strconv.Itoa(len(content)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(content) // whoever asked may be gone
	}
}

func (f *file) describe(head http.Header, host string) {
	head.Set("Cache-Control", f.cache)
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "no-referrer")
	if f.shared {
		head.Set("Access-Control-Allow-Origin", "*")
		head.Set("Cross-Origin-Resource-Policy", "cross-origin")
	}
	if f.page {
		head.Set("Content-Security-Policy", policy(host))
	}
}

// policy is what the demo page may do, which is also what a page needs for the widget: its script, and connections to
// the gateway. Not every browser takes 'self' for WebSockets of the same host.
func policy(host string) string {
	connect := "'self'"
	if host != "" && !strings.ContainsFunc(host, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".-_:[]", r)
	}) {
		connect += " ws://" + host + " wss://" + host
	}
	return "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src " + connect +
		"; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
}

// acceptsGzip reads Accept-Encoding (RFC 9110 §12.5.3) as far as it matters here.
func acceptsGzip(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		name, params, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
			continue
		}
		q, ok := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
		weight, err := strconv.ParseFloat(q, 64)
		return !ok || err == nil && weight > 0
	}
	return false
}

// matches reads If-None-Match (RFC 9110 §13.1.2), which compares weakly.
func matches(header, tag string) bool {
	if strings.TrimSpace(header) == "*" {
		return true
	}
	for part := range strings.SplitSeq(header, ",") {
		if strings.TrimPrefix(strings.TrimSpace(part), "W/") == tag {
			return true
		}
	}
	return false
}
