// Package tally counts the messages of a test: which were sent, which of those the sender saw acknowledged, and how
// they arrived. From that it says how many were lost, repeated or out of order. A Tally may be used by many
// goroutines.
package tally

import (
	"fmt"
	"sort"
	"strings"
	"sync"
)

// Stream is one sender's messages to one recipient; they are numbered from 1.
type Stream struct{ From, To string }

// Counts is the sum over all streams.
type Counts struct {
	Sent         int // handed to the sender's client
	Acknowledged int // acknowledged to the sender (XEP-0198)
	Delivered    int // different messages that arrived
	Lost         int // acknowledged, but never arrived
	Repeated     int // arrivals of what had arrived before
	OutOfOrder   int // first arrivals after one of a higher number
	Unknown      int // arrivals of what was never sent, and other faults
}

func (c Counts) String() string {
	return fmt.Sprintf("sent %d, acknowledged %d, delivered %d, lost %d, repeated %d, out of order %d",
		c.Sent, c.Acknowledged, c.Delivered, c.Lost, c.Repeated, c.OutOfOrder)
}

// Clean says that nothing went wrong.
func (c Counts) Clean() bool { return c.Lost+c.Repeated+c.OutOfOrder+c.Unknown == 0 }

// Complete says that everything that was sent was acknowledged and arrived.
func (c Counts) Complete() bool { return c.Acknowledged == c.Sent && c.Delivered == c.Sent }

type stream struct {
	sent    int
	acked   map[int]bool
	arrived map[int]bool
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
		st = &stream{acked: map[int]bool{}, arrived: map[int]bool{}}
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
	t.streamLocked(s).acked[n] = true
}

// Arrive says that message n arrived.
func (t *Tally) Arrive(s Stream, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.streamLocked(s)
	switch {
	case n < 1 || n > st.sent:
		st.counts.Unknown++
		t.faultLocked("%s to %s: %d arrived but was never sent", s.From, s.To, n)
	case st.arrived[n]:
		st.counts.Repeated++
		t.faultLocked("%s to %s: %d arrived again after %d", s.From, s.To, n, st.highest)
	case n < st.highest:
		st.counts.OutOfOrder++
		t.faultLocked("%s to %s: %d arrived after %d", s.From, s.To, n, st.highest)
	}
	st.arrived[n] = true
	st.highest = max(st.highest, n)
}

// Fault counts something else that went wrong. Faults tells the first ones.
func (t *Tally) Fault(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.others++
	t.faultLocked(format, args...)
}

func (t *Tally) faultLocked(format string, args ...any) {
	if len(t.faults) < 30 {
		t.faults = append(t.faults, fmt.Sprintf(format, args...))
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
		for n := range st.acked {
			if !st.arrived[n] {
				c.Lost++
			}
		}
	}
	return c
}

// Faults tells the first things that went wrong, and what is missing, a line each.
func (t *Tally) Faults() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := append([]string(nil), t.faults...)
	for s, st := range t.streams {
		for _, m := range []struct {
			what string
			in   map[int]bool
		}{{"not acknowledged", st.acked}, {"not delivered", st.arrived}} {
			if missing := gaps(m.in, st.sent); missing != "" {
				lines = append(lines, fmt.Sprintf("%s to %s: %s: %s of %d", s.From, s.To, m.what, missing, st.sent))
			}
		}
	}
	return strings.Join(lines, "\n")
}

// gaps lists the numbers up to n that are not in a set, as ranges.
func gaps(in map[int]bool, n int) string {
	var ranges []string
	for i := 1; i <= n; i++ {
		if in[i] {
			continue
		}
		from := i
		for i < n && !in[i+1] {
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
