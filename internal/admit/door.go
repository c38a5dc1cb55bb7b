package admit

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrStay says that somebody was still there when the time was up.
var ErrStay = errors.New("admit: not all have left")

// Door counts those who are inside, for a service that ends: who comes when it is shut is sent away, and all others are
// waited for.
type Door struct {
	mu     sync.Mutex
	shut   bool // guarded by mu; nobody joins wg afterwards
	inside sync.WaitGroup
}

// Join lets somebody in, unless the door is shut.
func (d *Door) Join() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut {
		return false
	}
	d.inside.Add(1)
	return true
}

// Bring lets somebody in with one who is inside, whatever the door.
func (d *Door) Bring() { d.inside.Add(1) }

// Leave is for each who joined, or was brought.
func (d *Door) Leave() { d.inside.Done() }

// IsShut reports whether nobody is let in any more.
func (d *Door) IsShut() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shut
}

// Shut lets nobody in from now on. It reports whether the door was open.
func (d *Door) Shut() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	open := !d.shut
	d.shut = true
	return open
}

// Wait waits until all have left. When ctx ends first it has them thrown out, and waits for at most so much longer: then the
// error is ErrStay; before that it is ctx's. 0 is for as long as it takes.
func (d *Door) Wait(ctx context.Context, throwOut func(), longer time.Duration) error {
	gone := make(chan struct{})
	go func() {
		d.inside.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
	}
	throwOut()
	if longer == 0 {
		<-gone
		return ctx.Err()
	}
	late := time.NewTimer(longer)
	defer late.Stop()
	select {
	case <-gone:
		return ctx.Err()
	case <-late.C:
		return errors.Join(ctx.Err(), ErrStay)
	}
}
