package bench

import (
	"cmp"
	"time"
)

// OfflineConfig is messages to users who are not there (XEP-0160), and their delivery at the next login.
type OfflineConfig struct {
	First      int // account to begin with: the senders, then as many recipients
	Recipients int // each with a sender of its own, 50 when 0
	Messages   int // for each, 100 when 0
	Window     int // stanzas of a sender that are not acknowledged, 25 when 0
	Body       int // bytes, 100 when 0
	Mechanism  Mechanism
	Node, Back int // of a cluster: where the senders are, and where the recipients log in
}

// OfflineResult is what storing and draining took.
type OfflineResult struct {
	Counts
	Messages int
	Store    Effort        // from the first message to the last acknowledgement, until the server was quiet
	Drain    Effort        // from the recipients' presence to the last message and acknowledgement, until it was quiet
	Stored   time.Duration // of Store, until the last acknowledgement
	Drained  time.Duration // of Drain, until the last message
	LeftOver int           // messages that came again at the login after
}

// Offline runs the scenario.
func Offline(t *Target, cfg OfflineConfig) (*OfflineResult, error) {
	cfg.Recipients, cfg.Messages = cmp.Or(cfg.Recipients, 50), cmp.Or(cfg.Messages, 100)
	cfg.Window, cfg.Body = cmp.Or(cfg.Window, 25), cmp.Or(cfg.Body, 100)
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	defer l.close()
	o := &mailbags{
		cfg: cfg, target: t, loop: l,
		ledgers: make([]Ledger, cfg.Recipients),
		result:  &OfflineResult{Messages: cfg.Recipients * cfg.Messages},
	}
	if err := o.store(); err != nil {
		return nil, err
	}
	if err := o.drain(); err != nil {
		return nil, err
	}
	if err := o.again(); err != nil {
		return nil, err
	}
	for i := range o.ledgers {
		o.result.Counts.Add(o.ledgers[i].Counts())
	}
	return o.result, nil
}

type mailbags struct {
	cfg     OfflineConfig
	target  *Target
	loop    *loop
	ledgers []Ledger
	result  *OfflineResult
}

// store has every sender write to its recipient, with a window that acknowledgements move on.
func (o *mailbags) store() error {
	how := profile{mechanism: o.cfg.Mechanism, sm: true, presence: true, ackEvery: 5}
	senders, err := o.target.gather(o.loop, o.cfg.First, o.cfg.Recipients, how)
	if err != nil {
		return err
	}
	if err := senders.at(o.cfg.Node, senders.clients...); err != nil {
		return err
	}
	if err := senders.login(32); err != nil {
		return err
	}
	defer func() { o.result.Counts.Add(senders.odd) }()
	defer senders.logout()
	senders.acknowledged(5 * time.Second)
	if err := o.loop.settle(o.target.PIDs, 2*time.Second); err != nil {
		return err
	}
	m, err := o.target.meter()
	if err != nil {
		return err
	}
	for i, sender := range senders.clients {
		recipient := o.target.Accounts[o.cfg.First+o.cfg.Recipients+i]
		letter := xmppLetter(recipient.Name+"@"+o.target.Domain, i, o.cfg.Body, false)
		left := o.cfg.Messages
		more := func() {
			for ; left > 0 && int(sender.sent-sender.acked) < o.cfg.Window; left-- {
				sender.say(letter.fill(o.ledgers[i].Send(), o.loop.now()))
			}
		}
		sender.onAck = more
		more()
	}
	sent := func() bool {
		for i := range o.ledgers {
			if int(o.ledgers[i].sent) < o.cfg.Messages {
				return false
			}
		}
		return true
	}
	if err := senders.until(30*time.Second, "storing offline messages", sent); err != nil {
		return err
	}
	o.result.Unacked = senders.acknowledged(10 * time.Second)
	o.result.Stored = time.Since(m.started)
	if err := o.loop.settle(o.target.PIDs, 2*time.Second); err != nil {
		return err
	}
	o.result.Store, err = m.read()
	return err
}

// drain logs the recipients in without presence, so that what is measured begins with the delivery.
func (o *mailbags) drain() error {
	recipients, err := o.recipients(profile{mechanism: o.cfg.Mechanism, sm: true, ackEvery: 5})
	if err != nil {
		return err
	}
	defer func() { o.result.Counts.Add(recipients.odd) }()
	defer recipients.logout()
	m, err := o.target.meter()
	if err != nil {
		return err
	}
	through := 0
	for i, one := range recipients.clients {
		got := 0
		one.onMessage = func(f []byte) {
			if !o.deliver(recipients, i, f) {
				return
			}
			if got++; got == o.cfg.Messages {
				through++
				one.ack()
			}
		}
		one.say(framePresence)
	}
	// Messages that never come make this run out of patience; the ledgers say so.
	_ = recipients.until(20*time.Second, "offline delivery", func() bool { return through == len(recipients.clients) })
	o.result.Drained = time.Since(m.started)
	o.result.Unacked += recipients.acknowledged(5 * time.Second)
	if err := o.loop.settle(o.target.PIDs, 2*time.Second); err != nil {
		return err
	}
	if o.result.Drain, err = m.read(); err != nil {
		return err
	}
	return recipients.err
}

// again logs the recipients in once more: nothing may be left for them.
func (o *mailbags) again() error {
	recipients, err := o.recipients(profile{mechanism: o.cfg.Mechanism, sm: true, ackEvery: 5})
	if err != nil {
		return err
	}
	defer func() { o.result.Counts.Add(recipients.odd) }()
	defer recipients.logout()
	for i, one := range recipients.clients {
		one.onMessage = func(f []byte) {
			o.result.LeftOver++
			o.deliver(recipients, i, f)
		}
		one.say(framePresence)
	}
	return o.loop.runFor(500 * time.Millisecond)
}

func (o *mailbags) recipients(how profile) (*crowd, error) {
	recipients, err := o.target.gather(o.loop, o.cfg.First+o.cfg.Recipients, o.cfg.Recipients, how)
	if err != nil {
		return nil, err
	}
	if err := recipients.at(o.cfg.Back, recipients.clients...); err != nil {
		return nil, err
	}
	if err := recipients.login(32); err != nil {
		return nil, err
	}
	return recipients, o.loop.settle(o.target.PIDs, 2*time.Second)
}

func (o *mailbags) deliver(recipients *crowd, i int, f []byte) (first bool) {
	stream, seq, _, ok := readLetter(f)
	if !ok || stream != i || isError(f) {
		recipients.stray(f)
		return false
	}
	return o.ledgers[i].Deliver(seq)
}
