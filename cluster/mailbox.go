package cluster

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"holdfast/stanza"
)

const (
	readAtOnce = 64
	readBlock  = 250 * time.Millisecond // Close waits for it
	trimEvery  = 50 * time.Millisecond
	tellEvery  = 10 * time.Second
	// settleBytes of messages are carried out before the journal is waited for.
	settleBytes = 4 << 20
)

// readMailbox carries out what others send, in order.
func (n *Node) readMailbox() {
	key := n.keys.Node(n.id, "mailbox")
	last := "0"
	unsettled := 0
	var told time.Time // when an error was last logged
	for n.ctx.Err() == nil {
		got, err := n.rdb.XRead(n.ctx, &redis.XReadArgs{Streams: []string{key, last}, Count: readAtOnce, Block: readBlock}).Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			if n.ctx.Err() == nil {
				if time.Since(told) > tellEvery {
					n.log.Warn("mailbox not read, trying on", "error", err)
					told = time.Now()
				}
				n.sleep(50 * time.Millisecond)
			}
			continue
		}
		for _, stream := range got {
			for _, entry := range stream.Messages {
				if unsettled += len(blobOf(entry)); unsettled > settleBytes {
					// No more than this is on its way into the journal.
					if n.journal.Settle(n.ctx) != nil {
						n.sleep(sendRetry)
						break
					}
					unsettled = 0
				}
				if err := n.carryOut(entry, ""); err != nil {
					if n.ctx.Err() == nil {
						n.log.Error("message of another node not carried out", "error", err)
						n.setFenced() // to go on would lose it
					}
					return
				}
				last = entry.ID
				n.mu.Lock()
				n.arrived = last
				n.mu.Unlock()
			}
		}
		select {
		case n.read <- struct{}{}:
		default:
		}
	}
}

// carryOut takes one entry of a mailbox; of is the dead node whose mailbox it was, "" for the own.
func (n *Node) carryOut(entry redis.XMessage, of string) error {
	from, _ := entry.Values["f"].(string)
	if of == "" && n.repeated(from, entry) {
		return nil
	}
	blob := blobOf(entry)
	link := from
	if of != "" {
		link += "/" + of
	}
	rest := []byte(blob)
	for len(rest) > 0 {
		var m Message
		var err error
		if m, rest, err = cut(rest); err != nil {
			n.log.Error("mailbox entry not readable", "from", from, "entry", entry.ID, "error", err)
			return nil
		}
		n.metrics.received.Inc()
		switch {
		case m.Op < FirstOp:
			if of == "" {
				n.own(from, m)
			}
		case of != "" && m.Seq == 0:
			// It was for that node alone.
		default:
			if err := n.recv.Receive(n.ctx, link, m); err != nil {
				return fmt.Errorf("cluster: %w", err)
			}
		}
	}
	return nil
}

// repeated reports whether an entry of the own mailbox came before: the sender did not hear that it had arrived. What is
// journaled would be recognised, what may be lost would not.
func (n *Node) repeated(from string, entry redis.XMessage) bool {
	text, _ := entry.Values["n"].(string)
	number, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return false
	}
	if number <= n.entries[from] {
		return true
	}
	n.entries[from] = number
	return false
}

func blobOf(entry redis.XMessage) string {
	blob, _ := entry.Values["d"].(string)
	return blob
}

// own takes the package's own messages.
func (n *Node) own(from string, m Message) {
	switch m.Op {
	case opSync:
		n.passedOn(false, false, func() {
			n.homes.awaitPins(n.ctx)
			n.answer(from, string(m.Payload), "")
		})
	case opStraight:
		n.askedStraight(from, m)
	case opTrace:
		m.Term = max(m.Term, TermPassed)
		n.trace(m)
	case opAnswered:
		id, what, _ := strings.Cut(string(m.Payload), " ")
		n.answered(id, what)
	case opBuried:
		dead := string(m.Payload)
		n.divert(dead)
		if from != n.id && n.strike(dead) { // the heir has struck it out
			n.run(func() { n.recv.Gone(dead) })
		}
	case opCall, opTaken, opUnknown, opAnswer:
		n.called(from, m)
	}
}

// passedOn calls f when every other mailbox has what was forwarded to it before and, with parked, what was parked here
// is carried out. patient also waits for what has to go elsewhere, as somebody works off the mailbox of a dead node:
// those who do that wait for each other, and so must not.
func (n *Node) passedOn(parked, patient bool, f func()) {
	n.mu.Lock()
	links := make([]*link, 0, len(n.links))
	for to, l := range n.links {
		if parked || to != n.id {
			links = append(links, l)
		}
	}
	n.mu.Unlock()
	left := make(chan struct{}, len(links))
	for _, l := range links {
		l.whenSent(patient, func() { left <- struct{}{} })
	}
	n.run(func() {
		for range links {
			select {
			case <-left:
			case <-n.ctx.Done():
				return
			}
		}
		f()
	})
}

// Checkpoint returns when everything that was forwarded before is in other mailboxes, so that the journal may forget
// it.
func (n *Node) Checkpoint(ctx context.Context) error { return n.awaitPassedOn(ctx, true) }

func (n *Node) awaitPassedOn(ctx context.Context, patient bool) error {
	done := make(chan struct{})
	n.passedOn(true, patient, func() { close(done) })
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-n.ctx.Done():
		return n.ctx.Err()
	}
}

// trim shortens the mailbox by what has been carried out and is safe.
func (n *Node) trim() {
	key := n.keys.Node(n.id, "mailbox")
	trimmed := "0"
	var told time.Time // when an error was last logged
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.read:
		}
		for {
			if !n.sleep(trimEvery) {
				return
			}
			n.mu.Lock()
			upTo := n.arrived
			n.mu.Unlock()
			if upTo == trimmed {
				break
			}
			err := n.journal.Settle(n.ctx)
			if err == nil {
				err = n.rdb.XTrimMinID(n.ctx, key, after(upTo)).Err()
			}
			if err == nil {
				trimmed = upTo
				break
			}
			if n.ctx.Err() == nil && time.Since(told) > tellEvery {
				n.log.Warn("mailbox not trimmed, trying on", "error", err)
				told = time.Now()
			}
		}
	}
}

// after is the least id of a stream greater than id.
func after(id string) string {
	ms, seq, _ := strings.Cut(id, "-")
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil {
		return id
	}
	return ms + "-" + strconv.FormatUint(n+1, 10)
}

// noteSealed has what is left for a dead and buried node diverted: by the mailbox, behind what its heir sent here.
func (n *Node) noteSealed(node string) {
	n.run(func() {
		var blob []byte
		blob = (&Message{Op: opBuried, Payload: []byte(node)}).append(blob)
		for {
			err := n.rdb.XAdd(n.ctx, &redis.XAddArgs{
				Stream: n.keys.Node(n.id, "mailbox"), NoMkStream: true, Values: []any{"f", n.id, "d", blob},
			}).Err()
			if err == nil || n.ctx.Err() != nil {
				return
			}
			if errors.Is(err, redis.Nil) {
				n.setFenced()
				return
			}
			n.sleep(sendRetry)
		}
	})
}

// divert closes the link to a node that is dead and buried. It runs in the reader, or before that begins.
func (n *Node) divert(node string) {
	delete(n.entries, node)
	n.mu.Lock()
	l := n.links[node]
	n.mu.Unlock()
	if l == nil {
		n.homes.buried(node)
		return
	}
	seen, err := n.tomb(n.ctx, node, n.id)
	if err != nil {
		return // it ends
	}
	l.divert(seen, func(user stanza.Addr, m Message, o Origin) {
		if err := n.recv.Reroute(n.ctx, user, m, o); err != nil && n.ctx.Err() == nil {
			n.log.Error("message for a dead node not carried out", "error", err)
			n.setFenced()
		}
	})
	// The link stays, closed: a new one would count from the beginning, and what it has for the dead node would pass for
	// what that one took long ago.
}

// tomb reads how far the messages of from had been taken by a dead node, from what its heir left. It asks until Redis
// answers.
func (n *Node) tomb(ctx context.Context, dead, from string) (uint32, error) {
	for {
		v, err := n.rdb.HGet(ctx, n.keys.Node(dead, "tomb"), from).Uint64()
		switch {
		case err == nil:
			return uint32(v), nil
		case errors.Is(err, redis.Nil):
			return 0, nil
		case ctx.Err() != nil:
			return 0, ctx.Err()
		}
		n.sleep(sendRetry)
	}
}
