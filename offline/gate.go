package offline

import (
	"context"
	"sync"
)

// gate bounds the bytes of writes that are not yet committed: back-pressure where the store cannot keep up.
type gate struct {
	max int64 // static, 0 for no limit

	mu    sync.Mutex
	used  int64
	freed chan struct{} // closed when used shrinks; nil while nobody waits
	done  bool
}

// enter waits until n fits, or nothing else is inside.
func (g *gate) enter(ctx context.Context, n int64) error {
	for {
		g.mu.Lock()
		if g.done {
			g.mu.Unlock()
			return ErrClosed
		}
		if g.max == 0 || g.used == 0 || g.used+n <= g.max {
			g.used += n
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
