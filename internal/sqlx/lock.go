package sqlx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another process serves from the data directory.
var ErrLocked = errors.New("data directory is in use by another gateway")

// Lock holds a lock file. The kernel lets go of it when the process dies, however it dies, so none is ever stale.
type Lock struct{ f *os.File }

// Acquire takes dir for serving, and makes it when it is missing. It does not wait: ErrLocked when it is taken.
func Acquire(dir string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("sqlx: lock: %w", err)
	}
	l, err := tryLock(filepath.Join(dir, "gateway.lock"))
	if err != nil {
		return nil, fmt.Errorf("sqlx: lock %s: %w", dir, err)
	}
	return l, nil
}

// Release lets go. The file stays: removing it would let two processes hold locks on two files of one name.
func (l *Lock) Release() { _ = l.f.Close() }

func tryLock(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil {
		return &Lock{f: f}, nil
	}
	_ = f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, ErrLocked
	}
	return nil, err
}

func waitLock(ctx context.Context, path string) (*Lock, error) {
	for {
		l, err := tryLock(path)
		if !errors.Is(err, ErrLocked) {
			return l, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
