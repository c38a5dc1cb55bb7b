package boshclient

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"holdfast/internal/testkit/xmppclient"
)

// ClientConfig is a model client's.
type ClientConfig struct {
	Config  // Domain, Stats and Faults are the client's
	Account xmppclient.Account

	OnStanza func(*xmppclient.Element) // every stanza that arrives, in order; from one goroutine
	OnAck    func(id string)           // every stanza whose request was answered, by the id it was sent with, in order
	Presence string                    // sent after binding: <presence/>; "-" sends none
}

// Client is a model client. Make one with New.
type Client struct {
	cfg     ClientConfig
	changed xmppclient.Signal
	stats   Stats
	faults  xmppclient.Faults

	mu      sync.Mutex
	queue   []outgoing // what was not acknowledged
	given   int        // of queue, to the present session
	session *Session   // nil while there is none
	bound   int
	ended   map[string]int
	leaving bool
	left    bool
}

type outgoing struct{ id, xml string }

// ClientStats counts a client's life.
type ClientStats struct {
	Counts
	Bound int            // sessions that got as far as a bound resource
	Ended map[string]int // sessions, and attempts at one, by how they ended
}

// New makes a client; nothing happens before Run.
func New(cfg ClientConfig) *Client {
	c := &Client{ended: map[string]int{}}
	cfg.Domain, cfg.Stats, cfg.Faults = cfg.Account.Domain, &c.stats, &c.faults
	if cfg.Presence == "" {
		cfg.Presence = "<presence xmlns='" + xmppclient.NSClient + "'/>"
	}
	c.cfg = cfg
	return c
}

// Send queues a stanza. id is what OnAck will say.
func (c *Client) Send(id, xml string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, outgoing{id, xml})
	c.giveLocked()
}

// giveLocked hands the present session what it has not been given.
func (c *Client) giveLocked() {
	for c.session != nil && c.given < len(c.queue) {
		s := c.session
		if s.Send(c.queue[c.given].xml, func() { c.acknowledge(s) }) != nil {
			return // it has ended, which Run hears
		}
		c.given++
	}
}

// acknowledge lets go of the first stanza: the answers are in order.
func (c *Client) acknowledge(s *Session) {
	c.mu.Lock()
	if c.session != s {
		c.mu.Unlock()
		return
	}
	id := c.queue[0].id
	c.queue = c.queue[1:]
	c.given--
	c.mu.Unlock()
	if id != "" && c.cfg.OnAck != nil {
		c.cfg.OnAck(id)
	}
	c.changed.Notify()
}

// Unacknowledged counts the stanzas that were queued and not acknowledged.
func (c *Client) Unacknowledged() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue)
}

// Stats returns the counts so far.
func (c *Client) Stats() ClientStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ClientStats{Counts: c.stats.Get(), Bound: c.bound, Ended: maps.Clone(c.ended)}
}

// Faults lists where the server broke the rules.
func (c *Client) Faults() []string { return c.faults.List() }

// Online reports whether there is a bound session.
func (c *Client) Online() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session != nil
}

// Await returns when cond holds. It is asked again whenever the client goes on- or offline or something is
// acknowledged.
func (c *Client) Await(ctx context.Context, cond func() bool) error {
	return c.changed.Await(ctx, cond)
}

// Leave terminates the session (XEP-0124 §13), the present one or the next, and returns when the server has agreed.
// Run ends then.
func (c *Client) Leave(ctx context.Context) error {
	c.mu.Lock()
	c.leaving = true
	if c.session != nil {
		_ = c.session.Terminate() // when it has ended, the next one is
	}
	c.mu.Unlock()
	return c.Await(ctx, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.left
	})
}

// Run keeps the client in a session until ctx ends, and drops it without a word then. Leave ends it otherwise.
func (c *Client) Run(ctx context.Context) {
	for ctx.Err() == nil {
		err := c.live(ctx)
		how := "broken"
		var end *Ended
		if errors.As(err, &end) {
			how = end.How()
		}
		c.mu.Lock()
		lost := c.session != nil && !c.leaving && ctx.Err() == nil
		c.session, c.given = nil, 0
		c.ended[how]++
		// An answer that was lost with the network is not given again when the session is gone.
		c.left = c.leaving && end != nil && end.Err == nil
		left := c.left
		c.mu.Unlock()
		c.changed.Notify()
		if lost && end != nil {
			c.faults.Add("the session is lost: %v; before that:\n\t%s", err, strings.Join(end.Trace, "\n\t"))
		}
		if left {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// live lives one session through and says how it ended.
func (c *Client) live(ctx context.Context) error {
	conn := Dial(c.cfg.Config)
	defer conn.Abort()
	if err := c.login(ctx, conn); err != nil {
		var refused xmppclient.Failure
		if errors.As(err, &refused) {
			c.faults.Add("authentication was refused: %s", refused.Condition)
		}
		return err
	}
	s := SessionOf(conn)
	c.mu.Lock()
	if c.cfg.Presence != "-" {
		if len(c.queue) == 0 || c.queue[0].id != "" {
			c.queue = append([]outgoing{{"", c.cfg.Presence}}, c.queue...)
		}
	}
	c.session, c.given = s, 0
	c.bound++
	c.giveLocked()
	if c.leaving {
		_ = s.Terminate() // when it has ended, Next says so
	}
	c.mu.Unlock()
	c.changed.Notify()
	for {
		e, err := s.Next(ctx)
		if err != nil {
			return err
		}
		switch {
		case e.Stanza():
			if c.cfg.OnStanza != nil {
				c.cfg.OnStanza(e)
			}
		case e.Is(xmppclient.NSStream, "error"):
		default:
			c.faults.Add("%v in a session", e)
		}
	}
}

func (c *Client) login(ctx context.Context, conn *xmppclient.Conn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errLate)
	defer cancel()
	if err := conn.Prepare(ctx, c.cfg.Account); err != nil {
		return err
	}
	return conn.Bind(ctx, c.cfg.Account.Resource)
}
