package xmppclient

import (
	"context"
	"encoding/base64"
	"fmt"

	"mellium.im/sasl"
)

// Account is who logs in, and how.
type Account struct {
	Domain, User, Password string
	Resource               string // empty lets the server choose
	Mechanism              string // empty stands for SCRAM-SHA-256
}

// Failure is a SASL failure (RFC 6120 §6.5).
type Failure struct{ Condition string }

func (f Failure) Error() string { return "xmppclient: authentication failed: " + f.Condition }

// Open opens a stream, or opens it anew after authentication, and waits for the features.
func (c *Conn) Open(ctx context.Context, domain string) error {
	if err := c.Write(ctx, "<open xmlns='"+NSFraming+"' to='"+Escape(domain)+"' version='1.0'/>"); err != nil {
		return err
	}
	e, err := c.Read(ctx)
	if err != nil {
		return err
	}
	if !e.Is(NSFraming, "open") {
		return fmt.Errorf("xmppclient: %v where <open/> was expected", e)
	}
	if e, err = c.Read(ctx); err != nil {
		return err
	}
	if !e.Is(NSStream, "features") {
		return fmt.Errorf("xmppclient: %v where features were expected", e)
	}
	c.Features = e
	return nil
}

// Authenticate runs a SASL exchange (RFC 6120 §6.4).
func (c *Conn) Authenticate(ctx context.Context, a Account) error {
	mech, err := mechanism(a.Mechanism)
	if err != nil {
		return err
	}
	n := sasl.NewClient(mech, sasl.Credentials(func() (user, password, identity []byte) {
		return []byte(a.User), []byte(a.Password), nil
	}))
	more, out, err := n.Step(nil)
	if err != nil {
		return fmt.Errorf("xmppclient: %w", err)
	}
	frame := fmt.Sprintf("<auth xmlns='%s' mechanism='%s'>%s</auth>", NSSASL, mech.Name, encode(out))
	for {
		if err := c.Write(ctx, frame); err != nil {
			return err
		}
		e, err := c.Read(ctx)
		if err != nil {
			return err
		}
		switch {
		case e.Is(NSSASL, "failure"):
			return Failure{e.Condition()}
		case e.Is(NSSASL, "challenge"), e.Is(NSSASL, "success"):
		default:
			return fmt.Errorf("xmppclient: %v in an authentication", e)
		}
		in, err := base64.StdEncoding.DecodeString(e.Text)
		if err != nil {
			return fmt.Errorf("xmppclient: %w in %v", err, e)
		}
		if more {
			// The server's signature is checked here (RFC 5802 §5).
			if more, out, err = n.Step(in); err != nil {
				return fmt.Errorf("xmppclient: %w", err)
			}
		}
		if e.Name.Local == "success" {
			return nil
		}
		frame = "<response xmlns='" + NSSASL + "'>" + encode(out) + "</response>"
	}
}

func encode(b []byte) string {
	if len(b) == 0 {
		return "="
	}
	return base64.StdEncoding.EncodeToString(b)
}

// anonymous is RFC 4505, without trace information.
var anonymous = sasl.Mechanism{
	Name: "ANONYMOUS",
	Start: func(*sasl.Negotiator) (more bool, resp []byte, cache any, err error) {
		return false, nil, nil, nil
	},
}

func mechanism(name string) (sasl.Mechanism, error) {
	switch name {
	case "", "SCRAM-SHA-256":
		return sasl.ScramSha256, nil
	case "SCRAM-SHA-1":
		return sasl.ScramSha1, nil
	case "PLAIN":
		return sasl.Plain, nil
	case "ANONYMOUS":
		return anonymous, nil
	}
	return sasl.Mechanism{}, fmt.Errorf("xmppclient: mechanism %q is not known here", name)
}

// Bind binds a resource (RFC 6120 §7).
func (c *Conn) Bind(ctx context.Context, resource string) error {
	inner := ""
	if resource != "" {
		inner = "<resource>" + Escape(resource) + "</resource>"
	}
	err := c.Write(ctx, "<iq xmlns='"+NSClient+"' type='set' id='bind'><bind xmlns='"+NSBind+"'>"+inner+"</bind></iq>")
	if err != nil {
		return err
	}
	e, err := c.Read(ctx)
	if err != nil {
		return err
	}
	jid := e.Child(NSBind, "bind").Child(NSBind, "jid")
	if e.Attr("type") != "result" || jid == nil {
		return fmt.Errorf("xmppclient: %v where a bound address was expected", e)
	}
	c.JID = jid.Text
	return nil
}

// Prepare opens a stream, authenticates and opens it again, up to the point where a resource is bound or an earlier
// session resumed.
func (c *Conn) Prepare(ctx context.Context, a Account) error {
	if err := c.Open(ctx, a.Domain); err != nil {
		return err
	}
	if err := c.Authenticate(ctx, a); err != nil {
		return err
	}
	return c.Open(ctx, a.Domain)
}

// Login dials, prepares and binds.
func Login(ctx context.Context, url string, a Account) (*Conn, error) {
	c, err := Dial(ctx, url)
	if err != nil {
		return nil, err
	}
	if err := c.Prepare(ctx, a); err != nil {
		c.Abort()
		return nil, err
	}
	if err := c.Bind(ctx, a.Resource); err != nil {
		c.Abort()
		return nil, err
	}
	return c, nil
}
