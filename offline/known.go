package offline

import (
	"context"
	"hash/maphash"
	"sync"
)

// known is a set of recipients, by hash: of those with mail, or of those who chose a limit. Who is not in it has none. Each recipient counts once, so that
// two with the same hash do not take each other out. Over its bound it gives up, and every answer is "maybe".
type known struct {
	max  int // static: recipients, 0 for no limit
	seed maphash.Seed

	mu    sync.Mutex
	users map[uint64]uint32 // nil when given up
	n     int               // recipients in users
}

// usersPage is how many names are read at a time.
const usersPage = 1000

// loadKnown reads the set from the Backend, where list is the names after one, in pages.
func loadKnown(
	ctx context.Context, limit int, list func(ctx context.Context, after string, n int) ([]string, error),
) (*known, error) {
	k := &known{max: limit, seed: maphash.MakeSeed(), users: make(map[uint64]uint32)}
	for after := ""; ; {
		names, err := list(ctx, after, usersPage)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			k.add(name)
		}
		if len(names) < usersPage || k.users == nil {
			return k, nil
		}
		after = names[len(names)-1]
	}
}

// givenUp is a set that knows nothing.
func givenUp() *known { return &known{seed: maphash.MakeSeed()} }

// without reports whether name certainly is not in it.
func (k *known) without(name string) bool {
	h := maphash.String(k.seed, name)
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.users != nil && k.users[h] == 0
}

// add enters one who is not in it: whose mailbox is no longer empty.
func (k *known) add(name string) {
	h := maphash.String(k.seed, name)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.users == nil {
		return
	}
	if k.max > 0 && k.n >= k.max {
		k.users = nil
		return
	}
	k.n++
	k.users[h]++
}

// remove takes one out: whose mailbox became empty.
func (k *known) remove(name string) {
	h := maphash.String(k.seed, name)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.users == nil {
		return
	}
	k.n--
	if k.users[h]--; k.users[h] == 0 {
		delete(k.users, h)
	}
}
