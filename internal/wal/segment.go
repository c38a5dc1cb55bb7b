package wal

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	suffix     = ".wal"
	preparing  = "preparing.tmp" // becomes a segment by renaming
	lockName   = "lock"
	zeroStep   = 64 << 10
	fileMode   = 0o600
	dirMode    = 0o700
	nameDigits = 16
	noneBefore = -1
	maxSpares  = 1 // freed files kept beside the next segment; more would only hold memory
)

// disk is what tests replace to make a disk full or failing.
type disk struct {
	preallocate func(f *os.File, size int64) error
	flush       func(f *os.File, data []byte) error
	sync        func(f *os.File) error
}

// segment is one file of the log.
type segment struct {
	// static after the segment is published as next, until it is retired
	prepared
	path string
	file *os.File // nil for what an earlier process wrote
	data []byte   // the mapping, nil likewise

	blocks bool        // the file's blocks are on stable storage; owned by who prepares the segment
	named  atomic.Bool // so is its directory entry

	// guarded by Log.mu
	end    int   // where the records end; for the current segment Log.off says it
	synced int   // bytes from the start that are on stable storage
	pinned bool  // a flush uses the mapping: it must stay
	failed error // a flush failed: what it covered may be lost in a power cut, though the page cache says otherwise
}

func segmentName(base int64) string {
	return fmt.Sprintf("%0*x%s", nameDigits, base, suffix)
}

func parseName(name string) (base int64, ok bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != nameDigits {
		return 0, false
	}
	base, err := strconv.ParseInt(digits, 16, 64)
	return base, err == nil && base >= 0 && base < maxBase && segmentName(base) == name
}

// createFile makes a file of size bytes whose blocks exist and hold zeros. Zeros are written even where fallocate
// works: an extent that was never written would have to be converted, a journal commit of the file system, with each
// flush of new pages.
func createFile(path string, size int64, d disk) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return nil, err
	}
	err = d.preallocate(f, size)
	if err == nil {
		err = writeZeros(f, size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return f, nil
}

func preallocate(f *os.File, size int64) error {
	_, err := allocate(f, size)
	return err
}

func writeZeros(f *os.File, size int64) error {
	zeros := make([]byte, zeroStep)
	for off := int64(0); off < size; off += zeroStep {
		if _, err := f.WriteAt(zeros[:min(zeroStep, size-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// open maps the segment's file if it is not mapped yet.
func (s *segment) open() error {
	if s.data != nil {
		return nil
	}
	if s.file == nil {
		f, err := os.OpenFile(s.path, os.O_RDWR, fileMode)
		if err != nil {
			return err
		}
		s.file = f
	}
	data, err := unix.Mmap(int(s.file.Fd()), 0, int(s.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	s.data = data
	return nil
}

// release unmaps and closes; the file stays.
func (s *segment) release() error {
	var errs []error
	if s.data != nil {
		errs = append(errs, unix.Munmap(s.data))
		s.data = nil
	}
	if s.file != nil {
		errs = append(errs, s.file.Close())
		s.file = nil
	}
	return errors.Join(errs...)
}

// flush puts the mapped bytes [from, to) on stable storage.
func (s *segment) flush(d disk, from, to int) error {
	page := os.Getpagesize()
	from = from / page * page
	to = min((to+page-1)/page*page, len(s.data))
	return d.flush(s.file, s.data[from:to])
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockDir takes the directory for this process. The lock goes away with the file's descriptor, also in a crash.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrLocked
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// bootID names the running boot of this machine. Where it is not known each process counts as a boot of its own,
// which errs on the safe side.
func bootID() (id [16]byte) {
	s, err := readBootID()
	if err != nil || s == "" {
		rand.Read(id[:])
		return id
	}
	sum := sha256.Sum256([]byte(s))
	return [16]byte(sum[:])
}

func randomEpoch() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return newEpoch(binary.LittleEndian.Uint64(b[:]))
}
