package bench

import (
	"cmp"
	"errors"
	"time"
)

// ResumeConfig is a resume storm: sessions with stream management lose their connections all at once, get messages
// while they are away, and come back (XEP-0198 §5).
type ResumeConfig struct {
	First     int // account to begin with
	Sessions  int // 500 when 0
	Queued    int // messages for each while it is away, 5 when 0
	Senders   int // who write them, 10 when 0
	AtOnce    int // sessions coming back at a time, 0 for all
	Body      int // bytes, 100 when 0
	Mechanism Mechanism

	// Of a cluster: the node that the sessions are at, and the one that they come back to and that the senders are at.
	Node, Back int
	// Kill, when set, ends the sessions' node and returns when it is gone. Nothing is cut before that: the messages for
	// the sessions have left the node and lie unread in the connections.
	Kill func() error
}

// ResumeResult is what the storm took, from the first new connection until the last session had its messages and
// the server was quiet: connection, SASL and resumption.
type ResumeResult struct {
	Counts
	Effort
	Resumed int
	Latency Histogram     // from <resume/> to <resumed/> and the last of the queued messages
	Took    time.Duration // from the kill, or else from the first new connection, to the last session's last message
}

// PerResume is the server's CPU time for one session that came back.
func (r *ResumeResult) PerResume() time.Duration { return r.Per(r.Resumed) }

// Resume runs the scenario.
func Resume(t *Target, cfg ResumeConfig) (*ResumeResult, error) {
	cfg.Sessions, cfg.Queued = cmp.Or(cfg.Sessions, 500), cmp.Or(cfg.Queued, 5)
	cfg.Senders, cfg.Body = cmp.Or(cfg.Senders, 10), cmp.Or(cfg.Body, 100)
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	defer l.close()
	how := profile{mechanism: cfg.Mechanism, sm: true, presence: true, ackEvery: 5}
	senders, err := t.gather(l, cfg.First, cfg.Senders, how)
	if err != nil {
		return nil, err
	}
	how.ackEvery = 1 // the one stanza of these, presence, is to be acknowledged before the cut
	away, err := t.gather(l, cfg.First+cfg.Senders, cfg.Sessions, how)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(senders.at(cfg.Back, senders.clients...), away.at(cfg.Node, away.clients...)); err != nil {
		return nil, err
	}
	for _, group := range []*crowd{senders, away} {
		if err := group.login(32); err != nil {
			return nil, err
		}
		defer group.logout()
	}
	away.acknowledged(5 * time.Second)
	if err := l.settle(t.PIDs, 2*time.Second); err != nil {
		return nil, err
	}

	s := &storm{cfg: cfg, loop: l, away: away, senders: senders, result: &ResumeResult{}}
	if err := s.cutAndQueue(); err != nil {
		return nil, err
	}
	if err := s.comeBack(); err != nil {
		return nil, err
	}
	s.result.Counts.Add(senders.odd)
	s.result.Counts.Add(away.odd)
	for i := range s.ledgers {
		s.result.Counts.Add(s.ledgers[i].Counts())
	}
	s.result.Unacked = s.unacked
	return s.result, nil
}

type storm struct {
	cfg           ResumeConfig
	loop          *loop
	away, senders *crowd
	ledgers       []Ledger
	unacked       int
	through       int
	lost          time.Time // when the sessions lost their node, or began to come back
	result        *ResumeResult
}

// cutAndQueue resets every connection and has the messages written and acknowledged. With a node to kill the
// connections are reset after that, since what was written to them would be taken by the clients otherwise.
func (s *storm) cutAndQueue() error {
	for _, one := range s.away.clients {
		if s.cfg.Kill != nil {
			one.deafen()
			continue
		}
		one.drop()
		one.stage = idle
	}
	if err := s.loop.settle(s.away.target.PIDs, 2*time.Second); err != nil {
		return err
	}
	s.ledgers = make([]Ledger, len(s.away.clients))
	for range s.cfg.Queued {
		for i, one := range s.away.clients {
			sender := s.senders.clients[i%len(s.senders.clients)]
			m := xmppLetter(one.jid, i, s.cfg.Body, false)
			sender.say(m.fill(s.ledgers[i].Send(), s.loop.now()))
		}
	}
	s.unacked = s.senders.acknowledged(15 * time.Second)
	if err := s.loop.settle(s.away.target.PIDs, 2*time.Second); err != nil || s.cfg.Kill == nil {
		return err
	}
	s.lost = time.Now()
	if err := s.loop.await(10*time.Second, s.cfg.Kill); err != nil {
		return err
	}
	for _, one := range s.away.clients {
		one.drop()
		one.stage = idle
	}
	return nil
}

func (s *storm) comeBack() error {
	m, err := s.away.target.meter()
	if err != nil {
		return err
	}
	if s.cfg.Kill == nil {
		s.lost = time.Now()
	}
	if err := s.away.at(s.cfg.Back, s.away.clients...); err != nil {
		return err
	}
	next := 0
	start := func() {
		if next < len(s.away.clients) {
			next++
			s.away.clients[next-1].start()
		}
	}
	for i, one := range s.away.clients {
		s.expect(i, one, start)
	}
	for range cmp.Or(s.cfg.AtOnce, len(s.away.clients)) {
		// The connections begin one by one between other events, as they would from outside.
		s.loop.later(start)
	}
	waiting := func() bool { return s.through == len(s.away.clients) }
	if err := s.away.until(30*time.Second, "resumption", waiting); err != nil {
		return err
	}
	s.result.Took = time.Since(s.lost)
	if err := s.loop.settle(s.away.target.PIDs, 2*time.Second); err != nil {
		return err
	}
	s.result.Resumed = s.through
	s.result.Effort, err = m.read()
	return err
}

// expect counts what comes to a session; it is through when it was resumed and has all that was queued.
func (s *storm) expect(i int, one *client, then func()) {
	resumed, got := false, 0
	check := func() {
		if !resumed || got < s.cfg.Queued {
			return
		}
		s.result.Latency.Record(time.Duration(s.loop.now() - one.resumeAt))
		s.through++
		got = -1 << 30 // once
		one.ack()
		s.loop.later(then)
	}
	one.onResumed = func() {
		resumed = true
		check()
	}
	one.onMessage = func(f []byte) {
		stream, seq, _, ok := readLetter(f)
		switch {
		case !ok || stream != i || isError(f):
			s.away.stray(f)
		case s.ledgers[i].Deliver(seq):
			got++
			check()
		}
	}
}
