package bosh

import "net/http"

const page = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>XMPP over HTTP</title></head>
<body><h1>XMPP over HTTP</h1>
<p>This is a BOSH endpoint (<a href="https://xmpp.org/extensions/xep-0124.html">XEP-0124</a>,
<a href="https://xmpp.org/extensions/xep-0206.html">XEP-0206</a>). It is alive, and made for XMPP clients: give them this address.</p>
</body></html>
`

// showPage is for people who look what is behind the address.
func showPage(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write([]byte(page)) // a reader who is gone is gone
}
