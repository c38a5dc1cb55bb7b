package resume

import "time"

// pace says when the next small batch may be written. Each write is a command, whatever is in it; many of them in a
// second cost more than a moment's wait for others to go along. A few may follow each other at once, so that a message
// in quiet times is as fast as Redis.
type pace struct {
	every time.Duration // a write on average; 0 for no pace
	next  time.Time     // when the next would be due were they all this far apart
}

// ahead is how many writes may come before they would be due.
const ahead = 4

func newPace(rate int) pace {
	if rate == 0 {
		return pace{}
	}
	return pace{every: time.Second / time.Duration(rate)}
}

// wait is how long a small batch has to wait at this time.
func (p *pace) wait(now time.Time) time.Duration {
	if !p.next.After(now) {
		return 0
	}
	return p.next.Sub(now) - ahead*p.every
}

// took notes a write, a large one too.
func (p *pace) took(now time.Time) {
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(p.every)
	if most := now.Add((ahead + 1) * p.every); p.next.After(most) {
		p.next = most
	}
}
