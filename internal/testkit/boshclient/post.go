package boshclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"time"

	"holdfast/internal/testkit/xmppclient"
)

// Namespaces.
const (
	NSBind = "http://jabber.org/protocol/httpbind"
	NSXMPP = "urn:xmpp:xbosh"
)

// ContentType is that of requests and responses.
const ContentType = "text/xml; charset=utf-8"

// Response is the answer to one request.
type Response struct {
	Status int
	Header http.Header
	Text   string
	Body   *xmppclient.Element // nil when Text is no element
}

// Kind is what type says of the session: "terminate", "error" or nothing.
func (r *Response) Kind() string { return r.Body.Attr("type") }

// Post sends text as one request. header adds to Content-Type, or replaces it.
func Post(ctx context.Context, client *http.Client, url, text string, header http.Header) (*Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", ContentType)
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, err
	}
	r := &Response{Status: resp.StatusCode, Header: resp.Header, Text: string(b)}
	r.Body, _ = xmppclient.Parse(r.Text) // what is no element the caller sees
	return r, nil
}

// NewHTTP makes a client with connections of its own. roots sign the certificate of an https URL.
func NewHTTP(roots *x509.CertPool) *http.Client {
	t := &http.Transport{IdleConnTimeout: 10 * time.Second, MaxIdleConnsPerHost: 2}
	if roots != nil {
		t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: t}
}
