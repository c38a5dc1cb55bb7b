package bench

import "cmp"

// Counts say what became of the messages of a scenario.
type Counts struct {
	Sent       int // handed to the sender's connection
	Delivered  int // distinct ones that reached the recipient
	Lost       int // sent and not delivered by the end of the scenario's patience
	Repeated   int // deliveries of a message that had been delivered before
	OutOfOrder int // deliveries after a later message of the same stream
	Unknown    int // deliveries of a message that this scenario did not send, or not to this user
	Errors     int // error stanzas that came instead
	Unacked    int // stanzas that an XEP-0198 acknowledgement never covered

	Odd string // the first unknown or error message, as an example
}

// Clean reports whether every message came exactly once, in order, and was acknowledged where that was asked for.
func (c Counts) Clean() bool {
	return c.Sent == c.Delivered && c.Lost+c.Repeated+c.OutOfOrder+c.Unknown+c.Errors+c.Unacked == 0
}

// Add sums up.
func (c *Counts) Add(o Counts) {
	c.Sent += o.Sent
	c.Delivered += o.Delivered
	c.Lost += o.Lost
	c.Repeated += o.Repeated
	c.OutOfOrder += o.OutOfOrder
	c.Unknown += o.Unknown
	c.Errors += o.Errors
	c.Unacked += o.Unacked
	c.Odd = cmp.Or(c.Odd, o.Odd)
}

// Ledger keeps the messages of one stream, from one sender to one recipient, which are numbered from 0.
type Ledger struct {
	sent  uint64
	next  uint64 // one more than the highest number delivered
	seen  []uint64
	count Counts
}

// Send takes the next number.
func (l *Ledger) Send() uint64 {
	l.sent++
	return l.sent - 1
}

// Deliver notes the arrival of a number and reports whether it is the first one of that message.
func (l *Ledger) Deliver(seq uint64) bool {
	if seq >= l.sent {
		l.count.Unknown++
		return false
	}
	word, bit := seq/64, uint64(1)<<(seq%64)
	for uint64(len(l.seen)) <= word {
		l.seen = append(l.seen, 0)
	}
	if l.seen[word]&bit != 0 {
		l.count.Repeated++
		return false
	}
	l.seen[word] |= bit
	l.count.Delivered++
	if seq < l.next {
		l.count.OutOfOrder++
	} else {
		l.next = seq + 1
	}
	return true
}

// Outstanding is how many messages have been sent and not delivered.
func (l *Ledger) Outstanding() int { return int(l.sent) - l.count.Delivered }

// Counts closes the account: what is outstanding counts as lost.
func (l *Ledger) Counts() Counts {
	c := l.count
	c.Sent = int(l.sent)
	c.Lost = l.Outstanding()
	return c
}
