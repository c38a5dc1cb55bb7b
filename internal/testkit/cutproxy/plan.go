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

	// The others are for the test to carry out, on its servers.

	// Kill: the target dies and comes back after the event's duration.
	Kill
	// Pause: the target stands still for the event's duration.
	Pause
	// Drain: the target is asked to go, and comes back after the event's duration.
	Drain
	// StoreKill: what the servers keep their state in dies and comes back after the event's duration.
	StoreKill
	// Kinds is how many there are.
	Kinds
)

func (k Kind) String() string {
	return [...]string{"cut", "stall", "half-open", "slow", "kill", "pause", "drain", "store kill"}[k]
}

// Event is one thing to go wrong.
type Event struct {
	Kind   Kind
	Target int           // which client, or of the test's own kinds which server, counted from 0
	For    time.Duration // how long it lasts
	Rate   int           // bytes a second of a slowness
	Pause  time.Duration // before it happens
}

func (e Event) String() string {
	who := "client"
	if e.Kind >= Kill {
		who = "server"
	}
	return fmt.Sprintf("%v of %s %d for %v after %v", e.Kind, who, e.Target, e.For, e.Pause)
}

// Script says what a plan is made of.
type Script struct {
	Seed    uint64
	Clients int
	Servers int           // 0 for one
	Count   map[Kind]int  // events of each kind
	Pause   time.Duration // the mean pause between two
	Hold    time.Duration // the longest stall or slowness
	Down    time.Duration // the longest time that a server stays away
	Freeze  time.Duration // the shortest time that a paused one stands still, and half of the longest
	Rate    int           // the bound of a slowness
}

// Plan draws a schedule in random order. The same script gives the same plan.
func Plan(s Script) []Event {
	rng := rand.New(rand.NewPCG(s.Seed, 0x9e3779b97f4a7c15)) // not random in earnest: a schedule is to be repeatable
	var events []Event
	for k := Cut; k < Kinds; k++ {
		for range s.Count[k] {
			events = append(events, Event{Kind: k})
		}
	}
	rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	for i := range events {
		e := &events[i]
		e.Target = rng.IntN(s.Clients)
		if e.Kind >= Kill {
			e.Target = rng.IntN(max(s.Servers, 1))
		}
		e.Pause = s.Pause/2 + time.Duration(rng.Int64N(int64(s.Pause)+1))
		switch e.Kind {
		case Stall, Slow:
			e.For = s.Hold/4 + time.Duration(rng.Int64N(int64(s.Hold)*3/4+1))
			e.Rate = s.Rate
		case Kill, Drain, StoreKill:
			e.For = time.Duration(rng.Int64N(int64(s.Down) + 1))
		case Pause:
			e.For = s.Freeze + time.Duration(rng.Int64N(int64(s.Freeze)+1))
		}
	}
	return events
}
