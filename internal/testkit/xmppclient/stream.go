package xmppclient

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errDead     = errors.New("silence")
	errProtocol = errors.New("a broken rule")
	errClosed   = errors.New("closed by the server")
)

// connect lives one connection through and says how it ended.
func (c *Client) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	negotiation, done := context.WithTimeoutCause(ctx, c.cfg.Patience, errDead)
	defer done()
	conn, err := c.cfg.Dial(negotiation)
	if err != nil {
		return cause(negotiation, err)
	}
	defer conn.Abort()
	if err := conn.Prepare(negotiation, c.cfg.Account); err != nil {
		var refused Failure
		if errors.As(err, &refused) {
			c.faults.Add("authentication was refused: %s", refused.Condition)
		}
		return cause(negotiation, err)
	}
	if err := c.begin(negotiation, conn); err != nil {
		return cause(negotiation, err)
	}
	return c.live(ctx, cancel, conn)
}

// cause prefers what ended a context to the error that followed from it.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// begin resumes the session, or binds a new one.
func (c *Client) begin(ctx context.Context, conn *Conn) error {
	c.mu.Lock()
	token, in := c.token, c.in
	c.mu.Unlock()
	if token != "" {
		resumed, err := c.resume(ctx, conn, token, in)
		if resumed || err != nil {
			return err
		}
	}
	if err := conn.Bind(ctx, c.cfg.Account.Resource); err != nil {
		return err
	}
	if err := conn.Write(ctx, "<enable xmlns='"+NSSM+"' resume='true'/>"); err != nil {
		return err
	}
	e, err := conn.Read(ctx)
	if err != nil {
		return err
	}
	if !e.Is(NSSM, "enabled") {
		c.faults.Add("%v in answer to <enable/>", e)
		return errProtocol
	}
	if r := e.Attr("resume"); r != "true" && r != "1" || e.Attr("id") == "" {
		c.faults.Add("the session cannot be resumed: %v", e)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token, c.acked, c.in, c.sent = e.Attr("id"), 0, 0, 0
	if c.cfg.Presence != "-" {
		c.queue = append([]outgoing{{"", c.cfg.Presence}}, c.queue...)
	}
	c.stats.Bound++
	c.onlineLocked()
	return nil
}

// resume reports whether the session goes on (XEP-0198 §5). After a refusal the client goes on with a new session
// and sends again what the old one did not count.
func (c *Client) resume(ctx context.Context, conn *Conn, token string, in uint32) (bool, error) {
	start := time.Now()
	err := conn.Write(ctx, fmt.Sprintf("<resume xmlns='%s' h='%d' previd='%s'/>", NSSM, in, Escape(token)))
	if err != nil {
		return false, err
	}
	e, err := conn.Read(ctx)
	if err != nil {
		return false, err
	}
	switch {
	case e.Is(NSSM, "resumed"):
		if id := e.Attr("previd"); id != token {
			c.faults.Add("resumed %q where %q was asked for", id, token)
		}
		if c.cfg.OnResumed != nil {
			c.cfg.OnResumed(time.Since(start))
		}
		h, err := strconv.ParseUint(e.Attr("h"), 10, 32)
		if err != nil {
			c.faults.Add("no count in %v", e)
			return false, errProtocol
		}
		if err := c.count(uint32(h)); err != nil {
			return false, err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.sent = 0
		c.stats.Resumed++
		c.onlineLocked()
		return true, nil
	case e.Is(NSSM, "failed"):
		if h, err := strconv.ParseUint(e.Attr("h"), 10, 32); err != nil {
			c.faults.Add("a resumption failed without a count: %v", e)
		} else if err := c.count(uint32(h)); err != nil {
			return false, err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.token, c.stats.Refused = "", c.stats.Refused+1
		// An old session's presence is not for the new one, which has its own.
		if len(c.queue) > 0 && c.queue[0].id == "" && c.cfg.Presence != "-" {
			c.queue = c.queue[1:]
		}
		return false, nil
	}
	c.faults.Add("%v in answer to <resume/>", e)
	return false, errProtocol
}

func (c *Client) onlineLocked() {
	c.control = nil
	c.online = true
	if c.leaving {
		c.farewellLocked()
	}
	c.stats.Connected++
	c.changed.Notify()
	c.poke()
}

// count takes the server's count of what it handled and lets go of that.
func (c *Client) count(h uint32) error {
	c.mu.Lock()
	n := h - c.acked // modulo 2^32
	switch {
	case n > 1<<31:
		c.faults.Add("the count fell from %d to %d", c.acked, h)
		c.mu.Unlock()
		return errProtocol
	case int64(n) > int64(len(c.queue)):
		c.faults.Add("the count rose from %d to %d, with %d stanzas waiting", c.acked, h, len(c.queue))
		c.mu.Unlock()
		return errProtocol
	}
	acked := c.queue[:n]
	c.queue = c.queue[n:]
	c.acked = h
	c.sent = max(0, c.sent-int(n))
	if n > 0 {
		c.changed.Notify()
	}
	c.mu.Unlock()
	for _, o := range acked {
		if o.id != "" && c.cfg.OnAck != nil {
			c.cfg.OnAck(o.id)
		}
	}
	return nil
}

// live reads and writes until the connection ends.
func (c *Client) live(ctx context.Context, cancel context.CancelCauseFunc, conn *Conn) error {
	var heard atomic.Int64
	heard.Store(time.Now().UnixNano())
	var writer sync.WaitGroup
	writer.Go(func() {
		// What else ends a write, the reader meets too, after what came before it.
		if err := c.write(ctx, conn, &heard); errors.Is(err, errDead) {
			cancel(err)
		}
	})
	err := c.read(ctx, conn, &heard)
	if Status(err) < 0 {
		err = cause(ctx, err)
	}
	cancel(err)
	conn.Abort()
	writer.Wait()
	return err
}

func (c *Client) read(ctx context.Context, conn *Conn, heard *atomic.Int64) error {
	for {
		e, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		heard.Store(time.Now().UnixNano())
		switch {
		case e.Stanza():
			c.mu.Lock()
			c.in++
			c.mu.Unlock()
			if c.cfg.OnStanza != nil {
				c.cfg.OnStanza(e)
			}
		case e.Is(NSSM, "r"):
			c.mu.Lock()
			c.control = append(c.control, fmt.Sprintf("<a xmlns='%s' h='%d'/>", NSSM, c.in))
			c.mu.Unlock()
			c.poke()
		case e.Is(NSSM, "a"):
			h, err := strconv.ParseUint(e.Attr("h"), 10, 32)
			if err != nil {
				c.faults.Add("no count in %v", e)
				return errProtocol
			}
			c.mu.Lock()
			beyond := int64(uint32(h)-c.acked) > int64(c.sent) && uint32(h)-c.acked <= 1<<31
			if beyond {
				c.faults.Add("%d acknowledged after %d, when %d more were sent on this connection", h, c.acked, c.sent)
			}
			c.mu.Unlock()
			if err := c.count(uint32(h)); err != nil {
				return err
			}
		case e.Is(NSStream, "error"):
			return fmt.Errorf("stream error %s", e.Condition())
		case e.Is(NSFraming, "close"):
			return errClosed
		default:
			c.faults.Add("%v in a session", e)
		}
	}
}

// write sends what waits, asks for acknowledgements, and notices when nothing comes back.
func (c *Client) write(ctx context.Context, conn *Conn, heard *atomic.Int64) error {
	tick := time.NewTicker(c.cfg.Idle)
	defer tick.Stop()
	request := "<r xmlns='" + NSSM + "'/>"
	asked := 0
	for {
		for {
			frame, stanza := c.next()
			if frame == "" {
				break
			}
			if err := c.put(ctx, conn, frame); err != nil {
				return err
			}
			if !stanza {
				continue
			}
			if asked++; asked%c.cfg.RequestEvery == 0 {
				if err := c.put(ctx, conn, request); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.wake:
		case <-tick.C:
			if time.Since(time.Unix(0, heard.Load())) > c.cfg.Patience {
				return errDead
			}
			if err := c.put(ctx, conn, request); err != nil {
				return err
			}
		}
	}
}

func (c *Client) next() (frame string, stanza bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.control) > 0 {
		frame, c.control = c.control[0], c.control[1:]
		return frame, false
	}
	if c.sent < len(c.queue) {
		c.sent++
		return c.queue[c.sent-1].xml, true
	}
	return "", false
}

func (c *Client) put(ctx context.Context, conn *Conn, frame string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Patience, errDead)
	defer cancel()
	if err := conn.Write(ctx, frame); err != nil {
		return cause(ctx, err)
	}
	return nil
}

// how names an end in few words, for Stats.
func how(err error) string {
	var named interface{ How() string }
	switch s := Status(err); {
	case err == nil:
		return "nothing"
	case errors.As(err, &named):
		return named.How()
	case s >= 0:
		return "status " + strconv.Itoa(s)
	case errors.Is(err, errDead), errors.Is(err, errProtocol), errors.Is(err, context.Canceled):
		return err.Error()
	case strings.HasPrefix(err.Error(), "stream error"), strings.HasPrefix(err.Error(), "closed by"):
		return err.Error()
	}
	return "broken"
}
