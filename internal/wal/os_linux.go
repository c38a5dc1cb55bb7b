package wal

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// populateStep bounds how long the address space is locked against others.
const populateStep = 1 << 20

// populate makes every page writable now, so that neither a page fault nor a SIGBUS waits for an Append.
func populate(data []byte) error {
	for len(data) > 0 {
		n := min(len(data), populateStep)
		switch err := unix.Madvise(data[:n], unix.MADV_POPULATE_WRITE); {
		case err == nil:
			data = data[n:]
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
			return nil // Linux before 5.14
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		default:
			return err
		}
	}
	return nil
}

// allocate reserves the blocks of a file. It reports false where the file system cannot.
func allocate(f *os.File, size int64) (bool, error) {
	for {
		switch err := unix.Fallocate(int(f.Fd()), 0, 0, size); {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return false, nil
		default:
			return false, err
		}
	}
}

// flushRange puts data, whole pages of a mapping of f, on stable storage. On Linux MS_SYNC is an fdatasync of just
// this range, so pages that were made writable ahead of the log's end stay so.
func flushRange(_ *os.File, data []byte) error {
	return unix.Msync(data, unix.MS_SYNC)
}

func readBootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}
