package xmppclient

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"
)

// Config is a model client's. URL and Account are needed; zero values of the rest stand for what is said there.
type Config struct {
	URL     string
	Roots   *x509.CertPool // who signs the certificate of a wss URL
	Account Account
	// Dial makes the connections instead of URL and Roots.
	Dial func(ctx context.Context) (*Conn, error)

	OnStanza  func(*Element)           // every stanza that arrives, in order, after it was counted; from one goroutine
	OnResumed func(took time.Duration) // every resumption: from <resume/> to <resumed/>
	OnAck     func(id string)          // every stanza that is acknowledged, by the id it was sent with, in order

	RequestEvery int           // stanzas between two requests for acknowledgement: 5
	Idle         time.Duration // after which the client asks whether the server is still there: 500 ms
	Patience     time.Duration // silence after which a connection counts as dead: 3 s
	Backoff      time.Duration // between a break and the next try: 50 ms
	Presence     string        // sent after binding: <presence/>; "-" sends none
}

// Client is a model client. Make one with New.
type Client struct {
	cfg  Config
	wake chan struct{} // there may be something to write

	mu      sync.Mutex
	token   string     // to resume with; empty when there is no session
	queue   []outgoing // what the server has not acknowledged; the first unsent of them have not been sent in this session
	sent    int        // of queue, sent on the present connection
	acked   uint32     // the server's count of this session, as the client last heard it
	in      uint32     // stanzas received in this session
	control []string   // to write before anything else
	online  bool
	leaving bool // says good-bye on the next occasion
	left    bool
	stats   Stats

	changed Signal // when online or queue changes
	faults  Faults
}

type outgoing struct{ id, xml string }

// Stats counts a client's life.
type Stats struct {
	Connected int            // streams up to a session
	Bound     int            // new sessions
	Resumed   int            // sessions taken up again
	Refused   int            // <failed/> answers to <resume/>
	Ended     map[string]int // connections by how they ended
}

// New makes a client; nothing happens before Run.
func New(cfg Config) *Client {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&cfg.Idle, 500*time.Millisecond)
	def(&cfg.Patience, 3*time.Second)
	def(&cfg.Backoff, 50*time.Millisecond)
	if cfg.RequestEvery == 0 {
		cfg.RequestEvery = 5
	}
	if cfg.Presence == "" {
		cfg.Presence = "<presence xmlns='" + NSClient + "'/>"
	}
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context) (*Conn, error) { return DialTLS(ctx, cfg.URL, cfg.Roots) }
	}
	return &Client{cfg: cfg, wake: make(chan struct{}, 1), stats: Stats{Ended: map[string]int{}}}
}

// Send queues a stanza. id is what OnAck will say.
func (c *Client) Send(id, xml string) {
	c.mu.Lock()
	c.queue = append(c.queue, outgoing{id, xml})
	c.mu.Unlock()
	c.poke()
}

// Unacknowledged counts the stanzas that were queued and not acknowledged.
func (c *Client) Unacknowledged() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue)
}

// Stats returns the counts so far.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Ended = maps.Clone(s.Ended)
	return s
}

// Faults lists where the server broke the rules.
func (c *Client) Faults() []string { return c.faults.List() }

// Leave ends the session properly (RFC 7395 §3.6), on the connection there is or on the next one, and returns when the
// server has agreed. Run ends then.
func (c *Client) Leave(ctx context.Context) error {
	c.mu.Lock()
	c.leaving = true
	if c.online {
		c.farewellLocked()
	}
	c.mu.Unlock()
	return c.Await(ctx, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.left
	})
}

// farewellLocked acknowledges what came, so that none of it goes to anybody else, and closes.
func (c *Client) farewellLocked() {
	c.control = append(c.control, fmt.Sprintf("<a xmlns='%s' h='%d'/>", NSSM, c.in), "<close xmlns='"+NSFraming+"'/>")
	c.poke()
}

// Online reports whether there is a session on a connection.
func (c *Client) Online() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.online
}

// Await returns when cond holds. It is asked again whenever the client goes on- or offline or something is
// acknowledged.
func (c *Client) Await(ctx context.Context, cond func() bool) error {
	return c.changed.Await(ctx, cond)
}

func (c *Client) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run keeps the client connected until ctx ends. The last connection is dropped without a word then, so that the
// session stays resumable. Leave ends it otherwise.
func (c *Client) Run(ctx context.Context) {
	for ctx.Err() == nil {
		err := c.connect(ctx)
		c.mu.Lock()
		c.online = false
		c.left = c.leaving && errors.Is(err, errClosed)
		left := c.left
		c.stats.Ended[how(err)]++
		c.changed.Notify()
		c.mu.Unlock()
		if left {
			return
		}
		wait := c.cfg.Backoff
		if errors.Is(err, errProtocol) {
			wait = time.Second // it will hardly be better at once
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}
