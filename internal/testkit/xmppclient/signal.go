package xmppclient

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// Signal says that something changed, to everybody who waits. The zero value is ready.
type Signal struct {
	mu      sync.Mutex
	changed chan struct{}
}

// Notify has every Await look again.
func (s *Signal) Notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// Changed returns a channel that the next Notify closes.
func (s *Signal) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// Await returns when cond holds, or with the error of ctx.
func (s *Signal) Await(ctx context.Context, cond func() bool) error {
	for {
		changed := s.Changed()
		if cond() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Faults collects where a server broke the rules. The zero value is ready.
type Faults struct {
	mu  sync.Mutex
	all []string
}

// Add keeps a fault, once if it is said again at every try.
func (f *Faults) Add(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := fmt.Sprintf(format, args...); len(f.all) < 100 && !slices.Contains(f.all, s) {
		f.all = append(f.all, s)
	}
}

// List returns them.
func (f *Faults) List() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.all)
}
