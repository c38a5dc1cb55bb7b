package xmppclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// Namespaces.
const (
	NSClient  = "jabber:client"
	NSFraming = "urn:ietf:params:xml:ns:xmpp-framing"
	NSStream  = "http://etherx.jabber.org/streams"
	NSStreams = "urn:ietf:params:xml:ns:xmpp-streams"
	NSSASL    = "urn:ietf:params:xml:ns:xmpp-sasl"
	NSBind    = "urn:ietf:params:xml:ns:xmpp-bind"
	NSSM      = "urn:xmpp:sm:3"
)

// Carrier carries whole elements both ways: a WebSocket, or the HTTP requests of a BOSH session. Writes may come from
// any goroutine, reads from one at a time.
type Carrier interface {
	Write(ctx context.Context, frame string) error
	Read(ctx context.Context) (*Element, error)
	// Abort drops the connection without a word.
	Abort()
}

// Conn is one connection. The stream on it begins with <open/> and ends with <close/> (RFC 7395), which a carrier of
// another kind translates.
type Conn struct {
	Carrier
	// JID is the full address after Login or a binding.
	JID string
	// Features are the last ones that the server announced.
	Features *Element
}

// Dial opens a WebSocket connection with the subprotocol xmpp.
func Dial(ctx context.Context, url string) (*Conn, error) { return DialTLS(ctx, url, nil) }

// DialTLS is Dial to a wss address whose certificate is signed by one of roots.
func DialTLS(ctx context.Context, url string, roots *x509.CertPool) (*Conn, error) {
	opts := &websocket.DialOptions{Subprotocols: []string{"xmpp"}}
	if roots != nil {
		opts.HTTPClient = &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, IdleConnTimeout: time.Second,
		}}
	}
	c, resp, err := DialOptions(ctx, url, opts) //nolint:bodyclose // the library closes it
	if err != nil {
		return nil, err
	}
	if got := resp.Header.Get("Sec-WebSocket-Protocol"); got != "xmpp" {
		c.Abort()
		return nil, fmt.Errorf("xmppclient: the server chose subprotocol %q", got)
	}
	return c, nil
}

// DialOptions opens a WebSocket connection as opts says. The response is there also when the server refused.
func DialOptions(ctx context.Context, url string, opts *websocket.DialOptions) (*Conn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ws, resp, err := websocket.Dial(ctx, url, opts)
	if err != nil {
		return nil, resp, fmt.Errorf("xmppclient: %w", err)
	}
	ws.SetReadLimit(16 << 20)
	return &Conn{Carrier: frames{ws}}, resp, nil
}

// frames is the carrier that a WebSocket is.
type frames struct{ ws *websocket.Conn }

// Write sends one text message.
func (f frames) Write(ctx context.Context, frame string) error {
	return f.ws.Write(ctx, websocket.MessageText, []byte(frame))
}

// WriteBinary sends one binary message. The connection has to be a WebSocket.
func (c *Conn) WriteBinary(ctx context.Context, frame []byte) error {
	return c.Carrier.(frames).ws.Write(ctx, websocket.MessageBinary, frame)
}

// WriteFragmented sends one text message in several frames (RFC 6455 §5.4). The connection has to be a WebSocket.
func (c *Conn) WriteFragmented(ctx context.Context, parts ...string) error {
	w, err := c.Carrier.(frames).ws.Writer(ctx, websocket.MessageText)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := w.Write([]byte(p)); err != nil {
			return err
		}
	}
	return w.Close()
}

// Read returns the next element.
func (f frames) Read(ctx context.Context) (*Element, error) {
	kind, data, err := f.ws.Read(ctx)
	if err != nil {
		return nil, err
	}
	if kind != websocket.MessageText {
		return nil, errors.New("xmppclient: the server sent a binary message")
	}
	return Parse(string(data))
}

// Status is the status code of the close frame that ended the connection, -1 when it ended without.
func Status(err error) int { return int(websocket.CloseStatus(err)) }

func (f frames) Abort() { _ = f.ws.CloseNow() }

// Leave ends the stream and the connection properly (RFC 7395 §3.6).
func (c *Conn) Leave(ctx context.Context) error {
	if err := c.Write(ctx, "<close xmlns='"+NSFraming+"'/>"); err != nil {
		return err
	}
	for {
		e, err := c.Read(ctx)
		if err != nil {
			if s := Status(err); s == int(websocket.StatusNormalClosure) {
				return nil
			}
			return err
		}
		if e.Is(NSFraming, "close") {
			if f, ok := c.Carrier.(frames); ok {
				return f.ws.Close(websocket.StatusNormalClosure, "")
			}
			c.Abort()
			return nil
		}
	}
}
