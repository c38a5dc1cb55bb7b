package bench

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// FailoverConfig is one session of a cluster, idle but for a message now and then, that loses its connection or its
// node and comes back to another node at once, round by round (XEP-0198 §5).
type FailoverConfig struct {
	First     int // account to begin with: the session's, then that of who writes to it
	Rounds    int // 30 when 0
	Body      int // bytes, 100 when 0
	Mechanism Mechanism

	// Kill, when set, ends node 0, where the session is, and returns when it is gone; Restore brings it back and returns
	// when it is a member again, before the next round. Without Kill only the connection is reset, with both nodes
	// alive, and every other round goes from node 1 to node 0.
	Kill    func() error
	Restore func() error
}

// FailoverResult is how long it took. Each round is one of each histogram.
type FailoverResult struct {
	Counts
	Resume Histogram // from <resume/> to <resumed/>
	Away   Histogram // from the loss to <resumed/>: connection, SASL and resumption
}

// failover is the two clients of the scenario. All of it belongs to the loop.
type failover struct {
	cfg     FailoverConfig
	loop    *loop
	pair    *crowd
	session *client
	friend  *client
	ledger  Ledger
	result  *FailoverResult
}

// Failover runs the scenario.
func Failover(t *Target, cfg FailoverConfig) (*FailoverResult, error) {
	cfg.Rounds, cfg.Body = cmp.Or(cfg.Rounds, 30), cmp.Or(cfg.Body, 100)
	if len(t.Nodes) < 2 {
		return nil, errors.New("bench: another node is needed to come back to")
	}
	f := &failover{cfg: cfg, result: &FailoverResult{}}
	for round := range cfg.Rounds {
		if err := f.round(t, round); err != nil {
			return nil, fmt.Errorf("round %d: %w", round, err)
		}
		if cfg.Restore != nil {
			if err := cfg.Restore(); err != nil {
				return nil, fmt.Errorf("round %d: %w", round, err)
			}
		}
	}
	f.result.Counts.Add(f.ledger.Counts())
	return f.result, nil
}

func (f *failover) round(t *Target, round int) (err error) {
	from, back := 0, 1
	if f.cfg.Kill == nil && round%2 == 1 {
		from, back = back, from
	}
	if f.loop, err = newLoop(); err != nil {
		return err
	}
	defer f.loop.close()
	how := profile{mechanism: f.cfg.Mechanism, sm: true, presence: true, ackEvery: 1}
	if f.pair, err = t.gather(f.loop, f.cfg.First, 2, how); err != nil {
		return err
	}
	f.session, f.friend = f.pair.clients[0], f.pair.clients[1]
	if err := errors.Join(f.pair.at(from, f.session), f.pair.at(back, f.friend)); err != nil {
		return err
	}
	if err := f.pair.login(0); err != nil {
		return err
	}
	f.session.onMessage = f.arrived
	f.write()
	if err := f.delivered("a message before the loss"); err != nil {
		return err
	}
	if missing := f.pair.acknowledged(5 * time.Second); missing > 0 {
		return fmt.Errorf("bench: %d stanzas are not acknowledged: %w", missing, cmp.Or(f.pair.err, ErrPatience))
	}
	if err := f.loop.settle(t.PIDs, time.Second); err != nil {
		return err
	}
	if err := f.loseAndResume(back); err != nil {
		return err
	}
	f.write()
	if err := f.delivered("a message after the resumption"); err != nil {
		return err
	}
	f.result.Unacked += f.pair.acknowledged(5 * time.Second)
	f.pair.logout()
	f.result.Counts.Add(f.pair.odd)
	return f.pair.err
}

// loseAndResume has a message written while the session is away, which it gets with the resumption.
func (f *failover) loseAndResume(back int) error {
	f.session.deafen()
	lost := f.loop.now()
	if f.cfg.Kill != nil {
		if err := f.loop.await(10*time.Second, f.cfg.Kill); err != nil {
			return err
		}
	}
	f.session.drop()
	f.session.stage = idle
	if err := f.pair.at(back, f.session); err != nil {
		return err
	}
	f.write()
	resumed := false
	f.session.onResumed = func() {
		resumed = true
		now := f.loop.now()
		f.result.Resume.Record(time.Duration(now - f.session.resumeAt))
		f.result.Away.Record(time.Duration(now - lost))
	}
	f.session.start()
	if err := f.pair.until(20*time.Second, "resumption", func() bool { return resumed }); err != nil {
		return err
	}
	return f.delivered("a message during the absence")
}

func (f *failover) write() {
	letter := xmppLetter(f.session.jid, 0, f.cfg.Body, false)
	f.friend.say(letter.fill(f.ledger.Send(), f.loop.now()))
}

// delivered waits for what is on its way. What never comes is for the ledger to say.
func (f *failover) delivered(what string) error {
	err := f.pair.until(10*time.Second, what, func() bool { return f.ledger.Outstanding() == 0 })
	if errors.Is(err, ErrPatience) {
		return nil
	}
	return err
}

func (f *failover) arrived(frame []byte) {
	stream, seq, _, ok := readLetter(frame)
	if !ok || stream != 0 || isError(frame) {
		f.pair.stray(frame)
		return
	}
	f.ledger.Deliver(seq)
}
