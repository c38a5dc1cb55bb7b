// Package tally counts the messages of a test: which were sent, which of those the sender saw acknowledged, how they
// arrived, and which came back. From that it says how many were lost, repeated or out of order. A Tally may be used by many
// goroutines.
package tally

import (
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"
)

// Stream is one sender's messages to one recipient; they are numbered from 1.
type Stream struct{ From, To string }

// Counts is the sum over all streams.
type Counts struct {
	Sent         int // handed to the sender's client
	Acknowledged int // acknowledged to the sender (XEP-0198)
	Delivered    int // different messages that arrived
	Bounced      int // different messages that came back to the sender with an error, and did not arrive
	Lost         int // acknowledged, but neither arrived nor came back
	Repeated     int // arrivals of what had arrived before
	OutOfOrder   int // first arrivals after one of a higher number
	Unknown      int // arrivals of what was never sent, and other faults
}

func (c Counts) String() string {
	return fmt.Sprintf("sent %d, acknowledged %d, delivered %d, bounced %d, lost %d, repeated %d, out of order %d, other faults %d",
		c.Sent, c.Acknowledged, c.Delivered, c.Bounced, c.Lost, c.Repeated, c.OutOfOrder, c.Unknown)
}

// Clean says that nothing went wrong.
func (c Counts) Clean() bool { return c.Lost+c.Repeated+c.OutOfOrder+c.Unknown == 0 }

// Complete says that everything that was sent was acknowledged, and arrived or came back.
func (c Counts) Complete() bool {
	return c.Acknowledged == c.Sent && c.Delivered+c.Bounced == c.Sent
}

type stream struct {
	sent    int
	acked   map[int]time.Time
	arrived map[int]time.Time
	bounced map[int]time.Time
	highest int
	counts  Counts // Repeated, OutOfOrder, Unknown
}

// Tally is the count. The zero value is ready.
type Tally struct {
	mu      sync.Mutex
	streams map[Stream]*stream
	faults  []string
	others  int
}

func (t *Tally) streamLocked(s Stream) *stream {
	if t.streams == nil {
		t.streams = map[Stream]*stream{}
	}
	st := t.streams[s]
	if st == nil {
		st = &stream{acked: map[int]time.Time{}, arrived: map[int]time.Time{}, bounced: map[int]time.Time{}}
		t.streams[s] = st
	}
	return st
}

// Send counts the next message of a stream and returns its number.
func (t *Tally) Send(s Stream) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.streamLocked(s)
	st.sent++
	return st.sent
}

// Acknowledge says that the sender saw message n acknowledged.
func (t *Tally) Acknowledge(s Stream, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.streamLocked(s).acked[n] = time.Now()
}

// Arrive says that message n arrived.
func (t *Tally) Arrive(s Stream, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.streamLocked(s)
	first, again := st.arrived[n]
	back, bounced := st.bounced[n]
	switch {
	case n < 1 || n > st.sent:
		st.counts.Unknown++
		t.faultLocked("%s to %s: %d arrived but was never sent", s.From, s.To, n)
	case again:
		st.counts.Repeated++
		t.faultLocked("%s to %s: %d arrived again after %d; it had arrived at %s", s.From, s.To, n, st.highest, clock(first))
	case bounced:
		st.counts.Repeated++
		t.faultLocked("%s to %s: %d arrived, and had come back to the sender at %s", s.From, s.To, n, clock(back))
	case n < st.highest:
		st.counts.OutOfOrder++
		t.faultLocked("%s to %s: %d arrived after %d, which had arrived at %s", s.From, s.To, n, st.highest, clock(st.arrived[st.highest]))
	}
	if !again {
		st.arrived[n] = time.Now()
	}
	st.highest = max(st.highest, n)
}

// Bounce says that message n came back to its sender with an error.
func (t *Tally) Bounce(s Stream, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.streamLocked(s)
	_, again := st.bounced[n]
	there, arrived := st.arrived[n]
	switch {
	case n < 1 || n > st.sent:
		st.counts.Unknown++
		t.faultLocked("%s to %s: %d came back but was never sent", s.From, s.To, n)
	case again:
		st.counts.Repeated++
		t.faultLocked("%s to %s: %d came back again", s.From, s.To, n)
	case arrived:
		st.counts.Repeated++
		t.faultLocked("%s to %s: %d came back, and had arrived at %s", s.From, s.To, n, clock(there))
	}
	st.bounced[n] = time.Now()
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }

// Fault counts something else that went wrong. Faults tells the first ones.
func (t *Tally) Fault(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.others++
	t.faultLocked(format, args...)
}

func (t *Tally) faultLocked(format string, args ...any) {
	if len(t.faults) < 30 {
		t.faults = append(t.faults, clock(time.Now())+" "+fmt.Sprintf(format, args...))
	}
}

// Counts sums up.
func (t *Tally) Counts() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := Counts{Unknown: t.others}
	for _, st := range t.streams {
		c.Sent += st.sent
		c.Acknowledged += len(st.acked)
		c.Repeated += st.counts.Repeated
		c.OutOfOrder += st.counts.OutOfOrder
		c.Unknown += st.counts.Unknown
		for n := range st.arrived {
			if n >= 1 && n <= st.sent {
				c.Delivered++
			}
		}
		for n := range st.bounced {
			if _, arrived := st.arrived[n]; !arrived && n >= 1 && n <= st.sent {
				c.Bounced++
			}
		}
		for n := range st.acked {
			if !st.accounted(n) {
				c.Lost++
			}
		}
	}
	return c
}

func (st *stream) accounted(n int) bool {
	_, arrived := st.arrived[n]
	_, bounced := st.bounced[n]
	return arrived || bounced
}

// Faults tells the first things that went wrong, and what is missing, a line each.
func (t *Tally) Faults() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := append([]string(nil), t.faults...)
	for s, st := range t.streams {
		acked := func(n int) bool { _, ok := st.acked[n]; return ok }
		if missing := gaps(acked, st.sent); missing != "" {
			lines = append(lines, fmt.Sprintf("%s to %s: not acknowledged: %s of %d", s.From, s.To, missing, st.sent))
		}
		if missing := gaps(st.accounted, st.sent); missing != "" {
			lines = append(lines, fmt.Sprintf("%s to %s: not delivered: %s of %d", s.From, s.To, missing, st.sent)+st.lost())
		}
	}
	return strings.Join(lines, "\n")
}

// lost tells when the first messages that are lost were acknowledged.
func (st *stream) lost() string {
	var when []string
	for n := 1; n <= st.sent && len(when) < 10; n++ {
		if at, acked := st.acked[n]; acked && !st.accounted(n) {
			when = append(when, fmt.Sprintf("%d at %s", n, clock(at)))
		}
	}
	if when == nil {
		return ""
	}
	return "; acknowledged were " + strings.Join(when, ", ")
}

// gaps lists the numbers up to n that are not in a set, as ranges.
func gaps(in func(int) bool, n int) string {
	var ranges []string
	for i := 1; i <= n; i++ {
		if in(i) {
			continue
		}
		from := i
		for i < n && !in(i+1) {
			i++
		}
		if from == i {
			ranges = append(ranges, fmt.Sprint(i))
		} else {
			ranges = append(ranges, fmt.Sprintf("%d-%d", from, i))
		}
	}
	if len(ranges) > 20 {
		ranges = append(ranges[:20], "...")
	}
	return strings.Join(ranges, ", ")
}

// Streams lists the streams in order.
func (t *Tally) Streams() []Stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []Stream
	for s := range t.streams {
		all = append(all, s)
	}
	sort.Slice(all, func(i, j int) bool {
		return all[i].From+"\x00"+all[i].To < all[j].From+"\x00"+all[j].To
	})
	return all
}
