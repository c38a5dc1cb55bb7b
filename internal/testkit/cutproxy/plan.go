package cutproxy

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Kind is one way in which things go wrong.
type Kind uint8

const (
	// Cut resets the target's connections.
	Cut Kind = iota
	// Stall holds the target's connections back for the event's duration.
	Stall
	// HalfOpen makes the target's connections half-open.
	HalfOpen
	// Slow bounds the target's connections for the event's duration.
	Slow
	// Kill is for the test to carry out: the server dies and comes back.
	Kill
)

func (k Kind) String() string {
	return [...]string{"cut", "stall", "half-open", "slow", "kill"}[k]
}

// Event is one thing to go wrong.
type Event struct {
	Kind   Kind
	Target int           // which client, counted from 0
	For    time.Duration // of a stall or a slowness
	Rate   int           // bytes a second of a slowness
	Pause  time.Duration // before it happens
}

func (e Event) String() string {
	return fmt.Sprintf("%v of client %d for %v after %v", e.Kind, e.Target, e.For, e.Pause)
}

// Script says what a plan is made of.
type Script struct {
	Seed    uint64
	Clients int
	Count   map[Kind]int  // events of each kind
	Pause   time.Duration // the mean pause between two
	Hold    time.Duration // the longest stall or slowness
	Rate    int           // the bound of a slowness
}

// Plan draws a schedule in random order. The same script gives the same plan.
func Plan(s Script) []Event {
	rng := rand.New(rand.NewPCG(s.Seed, 0x9e3779b97f4a7c15)) // not random in earnest: a schedule is to be repeatable
	var events []Event
	for k := Cut; k <= Kill; k++ {
		for range s.Count[k] {
			events = append(events, Event{Kind: k})
		}
	}
	rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	for i := range events {
		e := &events[i]
		e.Target = rng.IntN(s.Clients)
		e.Pause = s.Pause/2 + time.Duration(rng.Int64N(int64(s.Pause)+1))
		if e.Kind == Stall || e.Kind == Slow {
			e.For = s.Hold/4 + time.Duration(rng.Int64N(int64(s.Hold)*3/4+1))
			e.Rate = s.Rate
		}
	}
	return events
}
