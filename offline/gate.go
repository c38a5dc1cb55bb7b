package offline

import (
	"context"
	"sync"
)

// gate counts the bytes of writes that are not yet committed: back-pressure where the store cannot keep up. Nobody
// waits while going in, for callers hold locks that others need; who may wait does so in room, before.
type gate struct {
	max int64 // static, 0 for no limit

	mu    sync.Mutex
	used  int64
	freed chan struct{} // closed when used shrinks; nil while nobody waits
	done  bool
}

// enter lets n in while there is room, whatever n is, or says ErrBusy. So who was told of room gets in unless others
// were faster.
func (g *gate) enter(n int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.done:
		return ErrClosed
	case !g.roomLocked():
		return ErrBusy
	}
	g.used += n
	return nil
}

// pass lets n in, room or not.
func (g *gate) pass(n int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.done {
		return ErrClosed
	}
	g.used += n
	return nil
}

// room waits until there is room.
func (g *gate) room(ctx context.Context) error {
	for {
		g.mu.Lock()
		if g.done {
			g.mu.Unlock()
			return ErrClosed
		}
		if g.roomLocked() {
			g.mu.Unlock()
			return nil
		}
		if g.freed == nil {
			g.freed = make(chan struct{})
		}
		freed := g.freed
		g.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (g *gate) roomLocked() bool { return g.max == 0 || g.used < g.max }

// leave gives n back.
func (g *gate) leave(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used -= n
	g.wakeLocked()
}

// close lets nobody in any more.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done = true
	g.wakeLocked()
}

func (g *gate) inside() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.used
}

func (g *gate) wakeLocked() {
	if g.freed != nil {
		close(g.freed)
		g.freed = nil
	}
}
