//go:build unix && !linux

package wal

import (
	"os"

	"golang.org/x/sys/unix"
)

func populate([]byte) error { return nil }

func allocate(*os.File, int64) (bool, error) { return false, nil }

// flushRange puts data on stable storage. Only File.Sync reaches the platter on darwin (F_FULLFSYNC).
func flushRange(f *os.File, data []byte) error {
	if err := unix.Msync(data, unix.MS_SYNC); err != nil {
		return err
	}
	return f.Sync()
}
