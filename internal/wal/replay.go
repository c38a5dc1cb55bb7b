package wal

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// Info says what Open found.
type Info struct {
	// Fresh: there was no journal. Then CleanShutdown and SameBoot are true, since nothing can be missing.
	Fresh bool
	// CleanShutdown: the journal was closed by Close.
	CleanShutdown bool
	// SameBoot: the machine has not gone down since the journal was used last. If it has, without a clean shutdown,
	// what was appended after the last Sync may be missing.
	SameBoot bool
	Segments int   // that were read
	Records  int   // given to replay
	Bytes    int64 // their payload
	// Boundary is where this process begins: Free(Boundary) drops all that was replayed.
	Boundary int64
	// Damage counts records that are missing, nil if none are.
	Damage *DamageError
}

// found is what a directory holds.
type found struct {
	live     []*segment // with records or damage, oldest first
	empty    []*segment // part of the log, but nothing in them
	spares   []*segment
	bytes    int64 // of all files
	nextBase int64 // behind every name in use
	prevBase int64 // the last of live
	prevEnd  int64
}

// segmentFile is a file of the log as Open reads it.
type segmentFile struct {
	path    string
	base    int64 // by its name
	length  int64
	header  prepared // zero if !known
	known   bool     // the first half of the header checks and says the same base
	unused  bool     // not part of the log
	blank   bool     // there is no header
	act     activation
	active  bool // the second half checks
	readErr error
}

// replay reads the directory and gives fn the records. It removes only files that are not part of the log.
func (l *Log) replay(fn func(kind uint8, payload []byte) error) (found, error) {
	f := found{prevBase: noneBefore}
	files, err := l.readDir(&f)
	if err != nil {
		return f, err
	}
	l.info = Info{Fresh: len(files) == 0, CleanShutdown: true, SameBoot: true}
	var buf []byte
	ends := make(map[int64]int64, len(files)) // base -> where the records end
	for _, file := range files {
		if buf, err = file.read(buf); err != nil {
			return f, err
		}
		w := walk{end: int(file.length)} // of which nothing can be read
		if file.known {
			w, err = walkRecords(buf, file.header.epoch, fn)
		}
		if err != nil {
			return f, fmt.Errorf("replay: %w", err)
		}
		l.info.Segments++
		l.info.Records += w.records
		l.info.Bytes += w.bytes
		l.info.CleanShutdown = w.clean
		l.info.SameBoot = file.header.boot == l.boot

		damaged := l.inspect(file, w)
		end := file.base + int64(w.end)
		l.inspectBefore(file, files[0].base, ends)
		ends[file.base] = end
		s := &segment{prepared: file.header, path: file.path, end: w.end}
		s.base, s.size = file.base, file.length
		if w.records == 0 && !damaged {
			f.empty = append(f.empty, s)
			continue
		}
		f.live = append(f.live, s)
		f.prevBase, f.prevEnd = file.base, end
	}
	return f, nil
}

// inspect counts what is missing in a segment.
func (l *Log) inspect(file *segmentFile, w walk) (damaged bool) {
	d := l.info.Damage
	switch {
	case !file.known:
		d = d.add(file.base, file.length)
	case !file.active && w.records > 0:
		d = d.add(file.base, segmentHeader)
	}
	if w.gaps > 0 {
		d = d.add(file.base+int64(w.gap), w.lost)
		d.Gaps += w.gaps - 1
	}
	if file.readErr != nil {
		l.log.Error("journal segment cannot be read", "segment", file.path, "error", file.readErr)
		d = d.add(file.base+int64(w.end), 0)
	}
	damaged = !file.known || w.gaps > 0 || file.readErr != nil || (!file.active && w.records > 0)
	l.info.Damage = d
	return damaged
}

// inspectBefore counts what is missing between a segment and the one it says it follows.
func (l *Log) inspectBefore(file *segmentFile, oldest int64, ends map[int64]int64) {
	a := file.act
	if !file.active || a.prevBase < oldest {
		return // there was none, or it was freed
	}
	switch end, seen := ends[a.prevBase]; {
	case !seen:
		l.info.Damage = l.info.Damage.add(a.prevBase, a.prevEnd-a.prevBase)
	case end < a.prevEnd:
		l.info.Damage = l.info.Damage.add(end, a.prevEnd-end)
	}
}

// readDir lists the files that are part of the log, oldest first. The others become spares or are removed.
func (l *Log) readDir(f *found) ([]*segmentFile, error) {
	if err := os.Remove(l.join(preparing)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	var files []*segmentFile
	var first, last int64
	for _, entry := range entries {
		base, ok := parseName(entry.Name())
		if !ok {
			continue
		}
		file, err := readHeader(l.join(entry.Name()), base)
		if err != nil {
			return nil, err
		}
		f.nextBase = max(f.nextBase, base+max(file.length, file.header.size))
		if file.active && !file.unused {
			first, last = max(first, file.act.first), max(last, file.base)
		}
		files = append(files, file)
	}
	slices.SortFunc(files, func(a, b *segmentFile) int { return cmp.Compare(a.base, b.base) })
	live := files[:0]
	for _, file := range files {
		// Behind last without a header: prepared, but the power went before that was on the disk. Below first: freed
		// before the newest segment began, though a power cut undid it.
		unused := file.unused || file.blank && file.base > last
		if !unused && file.base >= first {
			f.bytes += file.length
			live = append(live, file)
			continue
		}
		if len(f.spares) <= maxSpares && file.length == l.size {
			f.bytes += file.length
			f.spares = append(f.spares, &segment{prepared: prepared{base: file.base, size: l.size}, path: file.path})
			continue
		}
		if err := os.Remove(file.path); err != nil {
			return nil, err
		}
	}
	return live, nil
}

// readHeader finds out whether a file is part of the log.
func readHeader(path string, base int64) (*segmentFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	file := &segmentFile{path: path, base: base, length: st.Size()}
	header := make([]byte, segmentHeader)
	if _, err := io.ReadFull(f, header); err != nil {
		file.readErr = err
		return file, nil
	}
	p, ok := decodePrepared(header)
	switch {
	case !ok:
		file.blank = allZero(header)
	case p.base != base:
		file.unused = true // a power cut while it was used again
	case allZero(header[preparedSize:]):
		file.unused = true // prepared, or freed
	default:
		file.header, file.known = p, true
		file.act, file.active = decodeActivation(header, p.epoch)
	}
	return file, nil
}

// read returns the file's bytes, in buf if it is large enough.
func (file *segmentFile) read(buf []byte) ([]byte, error) {
	if !file.known {
		return buf[:0], nil
	}
	f, err := os.Open(file.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size := int(min(file.header.size, file.length))
	buf = slices.Grow(buf[:0], size)[:size]
	n, err := io.ReadFull(f, buf)
	if err != nil {
		file.readErr = err
	}
	return buf[:n], nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
