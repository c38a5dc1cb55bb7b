package wal

import (
	"fmt"
	"os"
)

// Config holds the settings of a journal.
type Config struct {
	Segment int64 `env:"JOURNAL_SEGMENT" desc:"size of a journal segment file in bytes, also the limit of one record; 4096 to 1073741824, rounded up to whole pages"`
	Bytes   int64 `env:"JOURNAL_BYTES" desc:"disk space of the journal in bytes; when it is used up, stanzas wait for a checkpoint. At least two segments, 0 for no limit"`
}

const (
	minSegment = 4 << 10
	maxSegment = 1 << 30 // offsets in a segment leave bit 31 of a tag alone
)

// DefaultConfig returns the settings that hold when nothing is set.
func DefaultConfig() Config {
	return Config{Segment: 8 << 20, Bytes: 256 << 20}
}

// Validate reports the first setting that cannot be used, by its variable's name.
func (c Config) Validate() error {
	if c.Segment < minSegment || c.Segment > maxSegment {
		return fmt.Errorf("JOURNAL_SEGMENT: %d is not between %d and %d bytes", c.Segment, minSegment, maxSegment)
	}
	if c.Bytes != 0 && c.Bytes < 2*c.segment() {
		return fmt.Errorf("JOURNAL_BYTES: %d is neither 0 nor at least two segments (%d bytes)", c.Bytes, 2*c.segment())
	}
	return nil
}

// segment is the size of the files: whole pages, because that is what is mapped and flushed.
func (c Config) segment() int64 {
	page := int64(os.Getpagesize())
	return (c.Segment + page - 1) / page * page
}
