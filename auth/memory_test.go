package auth

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/stanza"
)

// memStore is a Store for tests in virtual time, and the second backend of the contract suite.
type memStore struct {
	mu       sync.Mutex
	accounts map[stanza.Addr]Account
	log      []memChange
	seq      int64
	loads    int
	guests   map[stanza.Addr]time.Time
	fail     error  // when set, every method fails with it
	read     func() // when set, called once by Load, between reading and returning
}

type memChange struct {
	Change
	at       time.Time
	pending  bool
	claimant string
	until    time.Time
}

func newMemStore() *memStore {
	return &memStore{accounts: make(map[stanza.Addr]Account), guests: make(map[stanza.Addr]time.Time)}
}

func (s *memStore) broken(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func (s *memStore) loaded() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loads
}

func (s *memStore) changedLocked(user stanza.Addr, pending bool) int64 {
	s.seq++
	s.log = append(s.log, memChange{Change: Change{s.seq, user}, at: time.Now(), pending: pending})
	return s.seq
}

func (s *memStore) Load(_ context.Context, user stanza.Addr, mechanisms ...string) (Account, error) {
	a, err := s.load(user, mechanisms)
	s.mu.Lock()
	f := s.read
	s.read = nil
	s.mu.Unlock()
	if f != nil {
		f()
	}
	return a, err
}

func (s *memStore) load(user stanza.Addr, mechanisms []string) (Account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loads++
	a, ok := s.accounts[user]
	if s.fail != nil || !ok {
		return Account{}, cmpErr(s.fail, ErrNotFound)
	}
	var creds []Credential
	for _, c := range a.Credentials {
		if slices.Contains(mechanisms, c.Mechanism) {
			creds = append(creds, c)
		}
	}
	a.Credentials = creds
	a.Removing = slices.ContainsFunc(s.log, func(c memChange) bool { return c.pending && c.Addr == user })
	return a, nil
}

func (s *memStore) Create(_ context.Context, accounts []Account) ([]error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, s.fail
	}
	errs := make([]error, len(accounts))
	for i, a := range accounts {
		if _, ok := s.accounts[a.Addr]; ok {
			errs[i] = ErrExists
			continue
		}
		a.Version, a.Created, a.Disabled = s.changedLocked(a.Addr, false), time.Now().Truncate(time.Second), false
		s.accounts[a.Addr] = a
	}
	return errs, nil
}

func (s *memStore) Update(_ context.Context, a Account) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.accounts[a.Addr]
	if s.fail != nil || !ok {
		return cmpErr(s.fail, ErrNotFound)
	}
	if len(a.Credentials) == 0 {
		a.Credentials = old.Credentials
	}
	a.Created, a.Version = old.Created, s.changedLocked(a.Addr, false)
	s.accounts[a.Addr] = a
	return nil
}

func (s *memStore) Remove(_ context.Context, user stanza.Addr) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.accounts[user]; s.fail != nil || !ok {
		return 0, cmpErr(s.fail, ErrNotFound)
	}
	delete(s.accounts, user)
	delete(s.guests, user)
	return s.changedLocked(user, true), nil
}

func (s *memStore) List(_ context.Context, after stanza.Addr, limit int) ([]Account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Account
	for _, a := range s.accounts {
		if a.Addr.String() > after.String() {
			a.Credentials = nil
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b Account) int { return strings.Compare(a.Addr.String(), b.Addr.String()) })
	return list[:min(limit, len(list))], s.fail
}

func (s *memStore) Guest(_ context.Context, user stanza.Addr, limit int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, exists := s.accounts[user]
	_, guest := s.guests[user]
	switch {
	case s.fail != nil:
		return s.fail
	case guest:
	case limit > 0 && len(s.guests) >= limit:
		return ErrGuests
	case exists:
		return ErrExists
	default:
		s.accounts[user] = Account{Addr: user, Created: time.Now().Truncate(time.Second), Version: s.changedLocked(user, false)}
	}
	s.guests[user] = time.Now()
	return nil
}

func (s *memStore) IdleGuests(_ context.Context, before time.Time, limit int) (idle []stanza.Addr, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for user, seen := range s.guests {
		if seen.Unix() < before.Unix() {
			idle = append(idle, user)
		}
	}
	slices.SortFunc(idle, func(a, b stanza.Addr) int { return s.guests[a].Compare(s.guests[b]) })
	return idle[:min(limit, len(idle))], s.fail
}

func (s *memStore) Secret(context.Context) ([]byte, error) {
	return []byte("the secret of a test"), nil
}

func (s *memStore) Changes(_ context.Context, after int64, limit int) ([]Change, error) {
	return s.entries(limit, func(c memChange) bool { return c.Seq > after })
}

func (s *memStore) Pending(_ context.Context, limit int) ([]Change, error) {
	return s.entries(limit, func(c memChange) bool { return c.pending })
}

func (s *memStore) entries(limit int, want func(memChange) bool) ([]Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Change
	for _, c := range s.log {
		if want(c) && len(list) < limit {
			list = append(list, c.Change)
		}
	}
	return list, s.fail
}

func (s *memStore) Last(context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seq, s.fail
}

func (s *memStore) Claim(_ context.Context, seq int64, claimant string, lease time.Duration) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.log {
		c := &s.log[i]
		if c.Seq == seq && c.pending && (c.claimant == "" || c.claimant == claimant || time.Now().After(c.until)) {
			c.claimant, c.until = claimant, time.Now().Add(lease)
			return true, s.fail
		}
	}
	return false, s.fail
}

func (s *memStore) Handled(_ context.Context, seq int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.log {
		if s.log[i].Seq != seq {
			continue
		}
		s.log[i].pending = false
		if user := s.log[i].Addr; s.accounts[user].Addr == user {
			s.changedLocked(user, false)
		}
		break
	}
	return s.fail
}

func (s *memStore) Prune(_ context.Context, before time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = slices.DeleteFunc(s.log, func(c memChange) bool { return !c.pending && c.at.Before(before) })
	return s.fail
}

func cmpErr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}
