package roster

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/stanza"
)

// memory is a Store without a disk, which can be told to fail.
type memory struct {
	mu    sync.Mutex
	users map[string]stored
	loads int
	saves int
	fail  error // what the next call returns
	torn  bool  // the next Save does its work although it fails
}

type stored struct {
	version, floor uint64
	rows           map[string]Row
}

func newMemory() *memory { return &memory{users: make(map[string]stored)} }

func (m *memory) failing() error {
	err := m.fail
	m.fail = nil
	return err
}

func (m *memory) Load(_ context.Context, user string) (Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loads++
	if err := m.failing(); err != nil {
		return Record{}, err
	}
	s := m.users[user]
	return Record{Version: s.version, Floor: s.floor, Rows: slices.Collect(maps.Values(s.rows))}, nil
}

func (m *memory) Save(_ context.Context, user string, d Delta) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saves++
	err := m.failing()
	if err != nil && !m.torn {
		return err
	}
	s := m.users[user]
	rows := maps.Clone(s.rows)
	if rows == nil {
		rows = make(map[string]Row)
	}
	for _, r := range d.Put {
		rows[r.Contact] = r
	}
	for _, c := range d.Delete {
		delete(rows, c)
	}
	m.users[user] = stored{version: d.Version, floor: d.Floor, rows: rows}
	return err
}

func (m *memory) Remove(_ context.Context, user string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failing(); err != nil {
		return err
	}
	delete(m.users, user)
	return nil
}

var errDisk = errors.New("disk on fire")

var (
	romeo    = stanza.MustParseAddr("romeo@example.net")
	juliet   = stanza.MustParseAddr("juliet@example.com")
	mercutio = stanza.MustParseAddr("mercutio@example.org")
)

func newService(t testing.TB, cfg Config, store Store) *Service {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return New(cfg, store, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// itemOf looks an item up, also one that is not part of the roster.
func itemOf(t testing.TB, s *Service, user, contact stanza.Addr) (Item, bool) {
	t.Helper()
	e := must(s.read(t.Context(), user))(t).find(contact)
	if e == nil {
		return Item{}, false
	}
	return e.Item, e.listed
}
