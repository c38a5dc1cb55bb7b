package bench

import (
	"math/bits"
	"time"
)

// Histogram counts durations in buckets whose width is at most 1/64 of their value, as HDR histograms do.
// The zero Histogram is empty and ready.
type Histogram struct {
	counts [64 * subBuckets]uint64
	total  uint64
	max    time.Duration
}

const (
	subBits    = 6
	subBuckets = 1 << subBits
)

// bucketOf maps nanoseconds to a bucket: values below 2*subBuckets have one each, above them every power of two is
// cut into subBuckets.
func bucketOf(ns uint64) int {
	if ns < subBuckets {
		return int(ns)
	}
	shift := bits.Len64(ns) - subBits - 1
	return (shift+1)<<subBits + int(ns>>shift) - subBuckets
}

// upperOf is the largest number of nanoseconds that falls into bucket i.
func upperOf(i int) uint64 {
	if i < subBuckets {
		return uint64(i)
	}
	shift := i>>subBits - 1
	return (uint64(i&(subBuckets-1))+subBuckets+1)<<shift - 1
}

// Record counts d; what is below zero counts as zero.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	h.counts[bucketOf(uint64(d))]++
	h.total++
	h.max = max(h.max, d)
}

// Count is how many durations were recorded.
func (h *Histogram) Count() uint64 { return h.total }

// Max is the longest recorded duration, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile is the duration that a share q (0 to 1) of the recorded ones does not exceed, at most 1/64 too long;
// zero when nothing was recorded.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.total == 0 {
		return 0
	}
	rank := min(uint64(q*float64(h.total))+1, h.total)
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen >= rank {
			return min(time.Duration(upperOf(i)), h.max)
		}
	}
	return h.max
}

// Add counts everything that other counted.
func (h *Histogram) Add(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
	h.max = max(h.max, other.max)
}

// Reset empties h.
func (h *Histogram) Reset() { *h = Histogram{} }
