package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/stanza"
)

// Accounts is the users of this gateway: a Store with the hashing of passwords before it and caches above it.
type Accounts struct {
	// static
	store    Store
	hasher   *hasher
	secret   []byte // of the Store: makes the credentials of unknown users
	cacheAge time.Duration
	opened   time.Time
	log      *slog.Logger

	creds *lru[credKey, record]
	known *lru[stanza.Addr, bool]
	hits  [2]atomic.Uint64 // of creds and known
	miss  [2]atomic.Uint64

	// epoch is increased before anything is taken out of a cache. What was read in one epoch is not put into a
	// cache in another: it may be what was just taken out.
	epoch  atomic.Uint64
	looked atomic.Int64 // when the log of changes was looked into, in nanoseconds since opened

	lookMu sync.Mutex
	seen   int64 // Seq of the last change seen; guarded by lookMu

	removals removals
}

type credKey struct {
	user      stanza.Addr
	mechanism string
}

// record is what a login needs of an account. version 0 is a user who does not exist, or has no credential for the
// mechanism; cred is fake then.
type record struct {
	version  int64
	disabled bool
	cred     Credential
}

func (r record) known() bool { return r.version != 0 }

// OpenAccounts makes Accounts of a Store.
func OpenAccounts(ctx context.Context, cfg Config, store Store, log *slog.Logger) (*Accounts, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	a := &Accounts{
		store: store, hasher: newHasher(cfg), cacheAge: cfg.CacheAge, opened: time.Now(), log: log,
		creds: newLRU[credKey, record](cfg.Cache),
		known: newLRU[stanza.Addr, bool](cfg.Cache),
	}
	a.removals.init()
	var err error
	if a.secret, err = store.Secret(ctx); err != nil {
		return nil, err
	}
	if a.seen, err = store.Last(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// Create adds an account. Errors: ErrExists, ErrPassword, or the store's.
func (a *Accounts) Create(ctx context.Context, user stanza.Addr, password string) error {
	if err := bareUser(user); err != nil {
		return err
	}
	creds, err := a.hasher.credentials(ctx, password)
	if err != nil {
		return err
	}
	if err := a.removals.wait(ctx); err != nil {
		return err
	}
	errs, err := a.store.Create(ctx, []Account{{Addr: user, Credentials: creds}})
	if err != nil {
		return err
	}
	a.forget(user)
	return errs[0]
}

// SetPassword gives an account another password. Errors: ErrNotFound, ErrPassword, or the store's.
func (a *Accounts) SetPassword(ctx context.Context, user stanza.Addr, password string) error {
	creds, err := a.hasher.credentials(ctx, password)
	if err != nil {
		return err
	}
	return a.update(ctx, user, func(acct *Account) { acct.Credentials = creds })
}

// SetDisabled lets a user log in no more, or again. It does not end sessions.
func (a *Accounts) SetDisabled(ctx context.Context, user stanza.Addr, disabled bool) error {
	return a.update(ctx, user, func(acct *Account) { acct.Disabled = disabled })
}

func (a *Accounts) update(ctx context.Context, user stanza.Addr, change func(*Account)) error {
	acct, err := a.store.Load(ctx, user)
	if err != nil {
		return err
	}
	change(&acct)
	if err := a.store.Update(ctx, acct); err != nil {
		return err
	}
	a.forget(user)
	return nil
}

// Remove removes an account, or says ErrNotFound. What other rooms have of the user goes in Watch, in this process or
// in that of a gateway. Until then nobody can use an account of that name, though it may be made anew.
func (a *Accounts) Remove(ctx context.Context, user stanza.Addr) error {
	seq, err := a.store.Remove(ctx, user)
	if err != nil {
		return err
	}
	a.forget(user)
	a.removals.add(seq)
	return nil
}

// Exists reports whether there is such an account that can be used. It is asked for every stanza to somebody who is not
// online, and answers from a cache that is at most Config.CacheAge behind other processes.
func (a *Accounts) Exists(ctx context.Context, user stanza.Addr) (bool, error) {
	user = user.Bare()
	if user.Local() == "" {
		return false, nil
	}
	if err := a.look(ctx); err != nil {
		return false, err
	}
	if known, ok := a.known.get(user); ok {
		a.hits[1].Add(1)
		return known, nil
	}
	a.miss[1].Add(1)
	epoch := a.epoch.Load()
	acct, err := a.store.Load(ctx, user)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	known := err == nil && !acct.Removing
	a.known.putIf(user, known, func() bool { return a.epoch.Load() == epoch })
	return known, nil
}

// usable says errRemoving of an account that was made just now, while what an earlier one of its name had is still
// being removed.
func (a *Accounts) usable(ctx context.Context, user stanza.Addr) error {
	acct, err := a.store.Load(ctx, user)
	if err == nil && acct.Removing {
		err = errRemoving
	}
	return err
}

// List returns up to limit accounts after the given address in byte order, without credentials.
func (a *Accounts) List(ctx context.Context, after stanza.Addr, limit int) ([]Account, error) {
	return a.store.List(ctx, after, limit)
}

// NewAccount is an account to import.
type NewAccount struct {
	Addr     stanza.Addr
	Password string
}

// Import adds many accounts in one transaction, after hashing the passwords on all cores. The slice says for each
// what Create would have said; the other error is the store's, and nothing was added then.
func (a *Accounts) Import(ctx context.Context, accounts []NewAccount) ([]error, error) {
	errs := make([]error, len(accounts))
	hashed := make([]Account, len(accounts))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(accounts)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(accounts); i = int(next.Add(1)) - 1 {
				hashed[i].Addr = accounts[i].Addr
				if errs[i] = bareUser(accounts[i].Addr); errs[i] == nil {
					hashed[i].Credentials, errs[i] = a.hasher.credentials(ctx, accounts[i].Password)
				}
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := a.removals.wait(ctx); err != nil {
		return nil, err
	}
	var good []Account
	var at []int
	for i, acct := range hashed {
		if errs[i] == nil {
			good, at = append(good, acct), append(at, i)
		}
	}
	stored, err := a.store.Create(ctx, good)
	if err != nil {
		return nil, err
	}
	for i, err := range stored {
		errs[at[i]] = err
		a.forget(good[i].Addr)
	}
	return errs, nil
}

// load returns what a login of user with f needs; for an unknown user all the same.
func (a *Accounts) load(ctx context.Context, user stanza.Addr, f *family) (record, error) {
	if err := a.look(ctx); err != nil {
		return record{}, err
	}
	key := credKey{user, f.name}
	if r, ok := a.creds.get(key); ok {
		a.hits[0].Add(1)
		return r, nil
	}
	a.miss[0].Add(1)
	epoch := a.epoch.Load()
	acct, err := a.store.Load(ctx, user, f.name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return record{}, err
	}
	// Made in any case, so that it takes as long.
	r := record{cred: a.hasher.fake(f, a.secret, user)}
	if err == nil && !acct.Removing && len(acct.Credentials) == 1 && whole(f, acct.Credentials[0]) {
		r = record{version: acct.Version, disabled: acct.Disabled, cred: acct.Credentials[0]}
	}
	a.creds.putIf(key, r, func() bool { return a.epoch.Load() == epoch })
	return r, nil
}

// whole reports whether c is as long as it must be: SCRAM cuts keys by length.
func whole(f *family, c Credential) bool {
	return len(c.StoredKey) == f.size && len(c.ServerKey) == f.size && len(c.Salt) > 0 && c.Iterations > 0
}

func bareUser(user stanza.Addr) error {
	if user.Local() == "" || !user.IsBare() {
		return fmt.Errorf("auth: not a user's bare address")
	}
	return nil
}
