package bench

import (
	"cmp"
	"time"
)

// ChatConfig is one-to-one chat: in each pair the first user writes to the second.
type ChatConfig struct {
	First    int           // account to begin with
	From, To int           // nodes of a cluster at which who writes and who is written to are
	Pairs    int           // how many pairs, 50 when 0
	Window   int           // messages of a pair that are on their way at a time, 8 when 0; ignored with Rate
	Rate     float64       // messages a second in all, evenly spaced; 0 for as many as the windows let through
	Body     int           // bytes of a body, 100 when 0
	SM       bool          // XEP-0198 on both sides
	AckEvery int           // <r/> after so many stanzas, 5 when 0
	Receipts bool          // XEP-0184: a message is done when its receipt is back
	Together int           // over HTTP: stanzas in one request at most, 1 when 0, as many as there are when negative
	Warmup   time.Duration // before anything is measured, 300 ms when 0
	Duration time.Duration // that is measured, 2 s when 0

	// Login is the mechanism, SCRAM-SHA-256 when empty.
	Login Mechanism
	// Mark, when set, is called at the beginning and at the end of what is measured.
	Mark func()
}

// ChatResult is what chat took.
type ChatResult struct {
	Counts
	Effort
	Done     int       // messages delivered (and receipted) in the time measured
	Requests int       // HTTP requests in the time measured
	Latency  Histogram // from the time a message was meant to be sent to its delivery, or its receipt's
}

// PerMessage is the server's CPU time for one delivered message, its receipt included when there are receipts.
func (r *ChatResult) PerMessage() time.Duration { return r.Per(r.Done) }

// chat is a running conversation of all pairs. All of it belongs to the loop.
type chat struct {
	cfg      ChatConfig
	crowd    *crowd
	pairs    []*pair
	running  bool
	measures bool
	done     int // messages that are through, in all
	result   *ChatResult
}

// pair is one stream of messages.
type pair struct {
	chat     *chat
	from, to *client
	ledger   Ledger
	receipts Ledger  // of the way back
	meant    []int64 // when the messages on their way were meant to be sent, by number modulo its length
	letter   *letter
	receipt  *receipt
}

// Chat runs the scenario.
func Chat(t *Target, cfg ChatConfig) (*ChatResult, error) {
	cfg.Pairs, cfg.Window = cmp.Or(cfg.Pairs, 50), cmp.Or(cfg.Window, 8)
	cfg.Body, cfg.AckEvery = cmp.Or(cfg.Body, 100), cmp.Or(cfg.AckEvery, 5)
	cfg.Together = cmp.Or(cfg.Together, 1)
	cfg.Warmup, cfg.Duration = cmp.Or(cfg.Warmup, 300*time.Millisecond), cmp.Or(cfg.Duration, 2*time.Second)
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	defer l.close()
	everybody, err := t.gather(l, cfg.First, 2*cfg.Pairs,
		profile{mechanism: cfg.Login, sm: cfg.SM, presence: true, ackEvery: cfg.AckEvery, together: cfg.Together})
	if err != nil {
		return nil, err
	}
	for i, one := range everybody.clients {
		node := cfg.From
		if i%2 == 1 {
			node = cfg.To
		}
		if err := everybody.at(node, one); err != nil {
			return nil, err
		}
	}
	if err := everybody.login(32); err != nil {
		return nil, err
	}
	defer everybody.logout()
	c := &chat{cfg: cfg, crowd: everybody, result: &ChatResult{}}
	for i := range cfg.Pairs {
		c.pairs = append(c.pairs, c.newPair(i, everybody.clients[2*i], everybody.clients[2*i+1]))
	}
	if err := c.run(); err != nil {
		return nil, err
	}
	c.result.Counts.Add(everybody.odd)
	for _, p := range c.pairs {
		counts := p.ledger.Counts()
		if cfg.Receipts {
			back := p.receipts.Counts()
			counts.Lost += back.Lost
			counts.Repeated += back.Repeated
			counts.OutOfOrder += back.OutOfOrder
			counts.Unknown += back.Unknown
		}
		c.result.Counts.Add(counts)
	}
	return c.result, nil
}

func (c *chat) newPair(i int, from, to *client) *pair {
	p := &pair{chat: c, from: from, to: to, meant: make([]int64, 1<<14)}
	switch t := c.crowd.target; {
	case t.Relay && to.to.http:
		p.letter = lineLetter(to.jid, i, c.cfg.Body)
	case t.Relay:
		p.letter = relayLetter(to.jid, i, c.cfg.Body)
	default:
		p.letter = xmppLetter(to.jid, i, c.cfg.Body, c.cfg.Receipts)
		p.receipt = newReceipt(from.jid)
	}
	to.onMessage = func(f []byte) { p.arrived(i, f) }
	from.onMessage = p.returned
	return p
}

// run warms up, measures and waits for what is still on its way.
func (c *chat) run() error {
	l := c.crowd.loop
	c.running = true
	if c.cfg.Rate > 0 {
		err := l.pace(c.cfg.Rate, func(i int, due int64) { c.pairs[i%len(c.pairs)].send(due) })
		if err != nil {
			return err
		}
	} else {
		for _, p := range c.pairs {
			for range c.cfg.Window {
				p.send(l.now())
			}
		}
	}
	if err := c.crowd.forTime(c.cfg.Warmup); err != nil {
		return err
	}
	if c.cfg.Mark != nil {
		c.cfg.Mark()
	}
	m, err := c.crowd.target.meter()
	if err != nil {
		return err
	}
	before, requests := c.done, l.requests
	c.measures = true
	if err := c.crowd.forTime(c.cfg.Duration); err != nil {
		return err
	}
	c.measures = false
	c.result.Done, c.result.Requests = c.done-before, l.requests-requests
	if c.result.Effort, err = m.read(); err != nil {
		return err
	}
	if c.cfg.Mark != nil {
		c.cfg.Mark()
	}
	c.running = false
	if err := l.every(0, nil); err != nil {
		return err
	}
	// A message that is lost makes this run out of patience; the ledgers say so.
	_ = c.crowd.until(lastPatience, "last deliveries", func() bool { return c.outstanding() == 0 })
	c.result.Unacked = c.crowd.acknowledged(lastPatience)
	return c.crowd.err
}

func (c *chat) outstanding() (n int) {
	for _, p := range c.pairs {
		n += p.ledger.Outstanding() + p.receipts.Outstanding()
	}
	return n
}

func (p *pair) send(meant int64) {
	seq := p.ledger.Send()
	p.meant[seq%uint64(len(p.meant))] = meant
	p.from.say(p.letter.fill(seq, meant))
}

// arrived takes a message at the recipient.
func (p *pair) arrived(stream int, f []byte) {
	got, seq, at, ok := readLetter(f)
	if !ok || got != stream || !p.from.target.Relay && isError(f) {
		p.chat.crowd.stray(f)
		return
	}
	if !p.ledger.Deliver(seq) {
		return
	}
	if !p.chat.cfg.Receipts || p.receipt == nil {
		p.through(at)
		return
	}
	for p.receipts.sent <= seq { // a receipt has its letter's number, also when letters were overtaken
		p.receipts.Send()
	}
	p.to.say(p.receipt.fill(seq))
}

// returned takes what comes back to the sender: receipts, or errors.
func (p *pair) returned(f []byte) {
	seq, ok := readReceipt(f)
	if !ok || isError(f) {
		p.chat.crowd.stray(f)
		return
	}
	if p.receipts.Deliver(seq) {
		p.through(p.meant[seq%uint64(len(p.meant))])
	}
}

func (p *pair) through(meant int64) {
	c := p.chat
	c.done++
	now := c.crowd.loop.now()
	if c.measures {
		c.result.Latency.Record(time.Duration(now - meant))
	}
	if c.running && c.cfg.Rate == 0 {
		p.send(now)
	}
}
