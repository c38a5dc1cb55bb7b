package e2e

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"holdfast/internal/testkit/gatewayproc"
)

// browser is Debian's Chromium, or another one by its usual names.
func browser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if file, err := exec.LookPath(name); err == nil {
			return file
		}
	}
	t.Fatal("Chromium is not installed: run scripts/install.sh")
	return ""
}

// pages serves the pages of clients/ and the browser builds of the libraries, on an origin that is not the gateway's.
var pages = sync.OnceValue(func() (origin string) {
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(filepath.Join("clients", "pages"))))
	for path, library := range map[string]string{"/strophe/": "strophe.js", "/dist/": "converse.js"} {
		dir := filepath.Join("clients", "node_modules", library, "dist")
		mux.Handle(path, http.StripPrefix(path, http.FileServer(http.Dir(dir))))
	}
	return strings.Replace(httptest.NewServer(mux).URL, "127.0.0.1", "localhost", 1) // until the process ends
})

// forPages are settings that let the pages connect.
func forPages() map[string]string { return map[string]string{"HOLDFAST_ORIGINS": pages()} }

func startChromium(t *testing.T, name, service string) *nodeClient {
	t.Helper()
	return startBrowser(t, chromium, name, service, pages()+"/strophe.html")
}

func startConverse(t *testing.T, g *gatewayproc.Gateway, name string) *nodeClient {
	t.Helper()
	return startBrowser(t, converse, name, g.BOSHURL(), pages()+"/converse.html")
}

// read waits until converse.js shows a message with this text.
func (c *nodeClient) read(text string) {
	c.t.Helper()
	c.ask("the text "+text, func(ref string) map[string]any { return map[string]any{"cmd": "read", "ref": ref, "text": text} })
}

// startBrowser opens a page in a browser of its own and lets it connect.
func startBrowser(t *testing.T, library, name, service, page string) *nodeClient {
	t.Helper()
	profile, err := os.MkdirTemp("", "holdfast-profile-")
	if err != nil {
		t.Fatal(err)
	}
	// After the client's own end, which is registered later.
	t.Cleanup(func() { _ = os.RemoveAll(profile) })
	return launch(t, library, name, map[string]any{
		"service": service, "page": page, "browser": browser(t), "profile": profile,
	}, nil, nil)
}

// screenshot keeps a picture of the page where E2E_SCREENSHOTS says, if it says anything.
func (c *nodeClient) screenshot(name string) {
	if dir := os.Getenv("E2E_SCREENSHOTS"); dir != "" {
		c.ask("the screenshot", func(ref string) map[string]any {
			return map[string]any{"cmd": "screenshot", "ref": ref, "file": filepath.Join(dir, name+".png")}
		})
	}
}
