package packetcache

import (
	"context"
	"maps"
	"slices"
	"sync"

	"holdfast/stanza"
)

// Store is where a Checkpoint puts what still awaits a receipt, and what went offline and may get a late one. It
// holds Entry values by their stanza id; one without a Stanza is of the latter kind.
type Store interface {
	// Load calls yield for every entry, in the order of deadline, then id. An error of yield ends it and is returned.
	Load(ctx context.Context, yield func(Entry) error) error
	// Apply removes the ids of del and then puts the entries of put, replacing those with the same id: all of it or,
	// when it returns an error, nothing. An id to remove that is not there is no error.
	Apply(ctx context.Context, put []Entry, del []stanza.ID) error
}

// Memory is a Store that lasts as long as the process: for tests, and where the journal alone is enough.
type Memory struct {
	mu      sync.Mutex
	entries map[stanza.ID]Entry // guarded by mu
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory { return &Memory{entries: make(map[stanza.ID]Entry)} }

// Load implements Store.
func (m *Memory) Load(_ context.Context, yield func(Entry) error) error {
	m.mu.Lock()
	all := slices.Collect(maps.Values(m.entries))
	m.mu.Unlock()
	slices.SortFunc(all, func(a, b Entry) int {
		if c := a.Deadline.Compare(b.Deadline); c != 0 {
			return c
		}
		return a.ID.Compare(b.ID)
	})
	for _, e := range all {
		if err := yield(e); err != nil {
			return err
		}
	}
	return nil
}

// Apply implements Store.
func (m *Memory) Apply(ctx context.Context, put []Entry, del []stanza.ID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range del {
		delete(m.entries, id)
	}
	for _, e := range put {
		m.entries[e.ID] = e
	}
	return nil
}
