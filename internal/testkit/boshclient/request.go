package boshclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

var errLate = errors.New("no answer in time")

// run sends one request until it is answered.
func (s *Session) run(r *request) {
	resp, err := s.insist(r)
	if err != nil {
		s.mu.Lock()
		s.endLocked(&Ended{Err: fmt.Errorf("request %d: %w", r.rid, err)})
		s.mu.Unlock()
		return
	}
	if n := s.cfg.RepeatEvery; n > 0 && r.rid%uint64(n) == 0 && resp.Kind() != "terminate" {
		s.repeat(r, resp)
	}
	s.settling.Lock()
	s.mu.Lock()
	r.answer = resp
	settled := s.processLocked()
	s.mu.Unlock()
	for _, call := range settled {
		call()
	}
	s.settling.Unlock()
	// The next request waits for what settled means to the client: the client's own books are in order then.
	s.mu.Lock()
	s.pumpLocked()
	s.mu.Unlock()
}

// insist returns the answer, or why there will be none.
func (s *Session) insist(r *request) (*Response, error) {
	for {
		resp, err := s.try(r)
		s.mu.Lock()
		if err != nil {
			s.noteLocked("%d: try %d: %v", r.rid, r.tries, err)
		} else {
			s.noteLocked("%d: try %d: %d: %.250s", r.rid, r.tries, resp.Status, resp.Text)
		}
		s.mu.Unlock()
		switch {
		case s.ctx.Err() != nil:
			return nil, s.ctx.Err()
		case err != nil:
		case resp.Status == http.StatusServiceUnavailable, resp.Status == http.StatusBadGateway, resp.Status == http.StatusGatewayTimeout:
			s.cfg.Stats.count(func(c *Counts) { c.Unavailable++ })
			err = errors.New(http.StatusText(resp.Status))
		case resp.Status != http.StatusOK, !resp.Body.Is(NSBind, "body"):
			s.cfg.Faults.Add("a request is answered with %d %q", resp.Status, resp.Text)
			return nil, fmt.Errorf("answered with %d", resp.Status)
		case resp.Kind() == "error":
			s.cfg.Stats.count(func(c *Counts) { c.Recoverable++ })
			err = errors.New("a recoverable condition")
		default:
			return resp, nil
		}
		if s.cfg.Once || time.Since(r.sent) > s.cfg.GiveUp {
			return nil, err
		}
		select {
		case <-time.After(s.cfg.Backoff):
		case <-s.ctx.Done():
			return nil, s.ctx.Err()
		}
		s.cfg.Stats.count(func(c *Counts) { c.Retried++ })
		r.tries++
	}
}

// try sends the request once and waits as long as it may take: wait, or no longer than patience says once there is a
// later request, since the server holds only one.
func (s *Session) try(r *request) (*Response, error) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	done := make(chan struct{})
	defer close(done)
	s.wg.Go(func() {
		late := time.NewTimer(s.cfg.Wait + s.cfg.Patience)
		defer late.Stop()
		hurry := r.hurry
		for {
			select {
			case <-late.C:
				cancel(errLate)
				return
			case <-hurry:
				hurry = nil
				late.Reset(s.cfg.Patience)
			case <-done:
				return
			}
		}
	})
	resp, err := Post(ctx, s.http, s.cfg.URL, r.text, nil)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return resp, err
}

// repeat sends an answered request again, while its place in the window is not free yet, so that the server must still
// have the answer (XEP-0124 §14.3).
func (s *Session) repeat(r *request, first *Response) {
	again, err := s.insist(r)
	switch {
	case err != nil:
	case again.Text != first.Text && again.Body.Attr("condition") == "item-not-found" && s.movedOn(r.rid):
		// It was under way for so long that the window has gone past it.
	case again.Text != first.Text:
		s.cfg.Faults.Add("request %q was answered with %q, and when it was sent again with %q", r.text, first.Text, again.Text)
	default:
		s.cfg.Stats.count(func(c *Counts) { c.Repeated++ })
	}
}

// movedOn reports whether later requests have freed the place of one in the window.
func (s *Session) movedOn(rid uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next-1 > rid+s.window
}

// processLocked takes the answers that are there in the order of their rids, up to the first that is not, and returns
// what is to be called for what they settle.
func (s *Session) processLocked() (settled []func()) {
	for s.ended == nil {
		r := s.open[s.base]
		if r == nil || r.answer == nil {
			return settled
		}
		delete(s.open, s.base)
		s.base++
		s.checkLocked(r)
		b := r.answer.Body
		s.inbox = append(s.inbox, b.Children...)
		if r.answer.Kind() == "terminate" {
			s.endLocked(&Ended{Condition: b.Attr("condition")})
			return settled
		}
		s.changed.Notify()
		for _, it := range r.items {
			if it.settled != nil {
				settled = append(settled, it.settled)
			}
		}
	}
	return settled
}

// checkLocked holds an answer to the rules.
func (s *Session) checkLocked(r *request) {
	b, add := r.answer.Body, s.cfg.Faults.Add
	s.checkHeader(r.answer)
	for _, c := range b.Children {
		if c.Name.Space == NSBind {
			add("%v is in the namespace of <body/> in %q", c, r.answer.Text)
		}
	}
	if text := b.Attr("ack"); text != "" {
		ack, err := strconv.ParseUint(text, 10, 64)
		if err != nil || !s.acking || ack <= r.rid || ack >= s.next {
			add("ack is %q in the answer to request %d, the last one sent being %d: %q", text, r.rid, s.next-1, r.answer.Text)
		}
	}
	if report := b.Attr("report"); report != "" {
		s.cfg.Stats.count(func(c *Counts) { c.Reports++ })
		n, err := strconv.ParseUint(report, 10, 64)
		if _, errTime := strconv.ParseUint(b.Attr("time"), 10, 64); err != nil || errTime != nil || n > r.rid || !s.cfg.Acks {
			add("a wrong report in answer to request %d: %q", r.rid, r.answer.Text)
		}
	}
	alone := s.next == r.rid+1 && r.tries == 0
	if alone && len(b.Children) == 0 && r.answer.Kind() == "" && b.Attr("report") == "" && time.Since(r.sent) < s.cfg.Wait-100*time.Millisecond {
		s.cfg.Stats.count(func(c *Counts) { c.Early++ })
	}
}
