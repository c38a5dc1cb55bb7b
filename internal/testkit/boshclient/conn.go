package boshclient

import (
	"context"
	"errors"
	"strings"

	"holdfast/internal/testkit/xmppclient"
)

// Dial prepares a session as a connection of package xmppclient: <open/> creates it, and later opens its stream anew,
// <close/> terminates it. Nothing is sent before <open/>.
func Dial(cfg Config) *xmppclient.Conn {
	return &xmppclient.Conn{Carrier: &carrier{cfg: cfg}}
}

// SessionOf returns the session under a connection made by Dial, once its stream is open.
func SessionOf(c *xmppclient.Conn) *Session { return c.Carrier.(*carrier).session }

// carrier translates between the framing of RFC 7395 and <body/>. Its methods are called one at a time up to the
// answer to the first <open/>.
type carrier struct {
	cfg     Config
	session *Session
	framing []*xmppclient.Element // to be read before what comes
	closed  bool
}

func (c *carrier) Write(ctx context.Context, frame string) error {
	switch {
	case strings.HasPrefix(frame, "<open "):
		header := "<open xmlns='" + xmppclient.NSFraming + "'/>"
		if c.session == nil {
			s, resp, err := Create(ctx, c.cfg)
			if err != nil {
				return err
			}
			c.session = s
			header = "<open xmlns='" + xmppclient.NSFraming + "' from='" + xmppclient.Escape(resp.Body.Attr("from")) + "'/>"
		} else if err := c.session.Restart(c.cfg.Domain); err != nil {
			return err
		}
		e, err := xmppclient.Parse(header)
		c.framing = append(c.framing, e)
		return err
	case c.session == nil:
		return errors.New("boshclient: no session")
	case strings.HasPrefix(frame, "<close "):
		return c.session.Terminate()
	}
	return c.session.Send(frame, nil)
}

func (c *carrier) Read(ctx context.Context) (*xmppclient.Element, error) {
	if len(c.framing) > 0 {
		e := c.framing[0]
		c.framing = c.framing[1:]
		return e, nil
	}
	if c.session == nil {
		return nil, errors.New("boshclient: no session")
	}
	e, err := c.session.Next(ctx)
	var end *Ended
	if errors.As(err, &end) && end.Err == nil && (end.Condition == "" || end.Condition == "remote-stream-error") && !c.closed {
		c.closed = true
		return xmppclient.Parse("<close xmlns='" + xmppclient.NSFraming + "'/>")
	}
	return e, err
}

func (c *carrier) Abort() {
	if c.session != nil {
		c.session.Abort()
	}
}
