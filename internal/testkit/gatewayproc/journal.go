package gatewayproc

import (
	"bytes"
	"os"
	"sync"
	"testing"
)

// journal keeps what the processes write, up to a bound: the newest is kept.
type journal struct {
	mu   sync.Mutex
	buf  []byte
	file *os.File // has all of it, if there is one
}

// keep has everything written to a file too, until the test ends.
func (j *journal) keep(t testing.TB, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	j.file = f
	t.Cleanup(func() { _ = f.Close() })
}

const journalLimit = 8 << 20

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file != nil {
		_, _ = j.file.Write(b) // for reading after a failure: the test does not depend on it
	}
	j.buf = append(j.buf, b...)
	if len(j.buf) > 2*journalLimit {
		j.buf = append([]byte(nil), j.buf[len(j.buf)-journalLimit:]...)
	}
	return len(b), nil
}

// tail returns the last lines, or all when n is 0.
func (j *journal) tail(n int) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := j.buf
	if n > 0 {
		for i := len(b); i > 0; {
			i = bytes.LastIndexByte(b[:i], '\n')
			if n--; n < 0 {
				return string(b[i+1:])
			}
			if i < 0 {
				break
			}
		}
	}
	return string(b)
}
