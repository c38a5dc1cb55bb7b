package stanza

import (
	"hash/maphash"
	"sync/atomic"
)

// The cache of parsed addresses: a fixed table of buckets with a few ways each, read and written without locks. An
// entry is immutable; a bucket that is full forgets one of its entries for a new one. So it is bounded by
// construction, and what a client makes it forget costs others only one parse.
const (
	addrBuckets = 1 << 12
	addrWays    = 4
	// addrCacheLen is the longest spelling worth keeping: it bounds the cache's memory to a few MiB.
	addrCacheLen = 192
)

type addrEntry struct {
	key  string // as it was written
	addr Addr
}

type addrBucket struct {
	ways [addrWays]atomic.Pointer[addrEntry]
	next atomic.Uint32 // the way to give up next
}

type addrTable struct {
	seed    maphash.Seed
	buckets [addrBuckets]addrBucket
}

var addrs = addrTable{seed: maphash.MakeSeed()}

func (t *addrTable) slot(s string) *addrBucket {
	return &t.buckets[maphash.String(t.seed, s)%addrBuckets]
}

func (t *addrTable) slotBytes(b []byte) *addrBucket {
	return &t.buckets[maphash.Bytes(t.seed, b)%addrBuckets]
}

func (k *addrBucket) find(s string) (Addr, bool) {
	for i := range k.ways {
		if e := k.ways[i].Load(); e != nil && e.key == s {
			return e.addr, true
		}
	}
	return Addr{}, false
}

func (k *addrBucket) findBytes(b []byte) (Addr, bool) {
	for i := range k.ways {
		if e := k.ways[i].Load(); e != nil && e.key == string(b) {
			return e.addr, true
		}
	}
	return Addr{}, false
}

// parse parses s, which belongs to the cache from now on, and remembers it where that is worth it.
func (k *addrBucket) parse(s string) (Addr, error) {
	a, err := parseAddr(s)
	if err != nil {
		return Addr{}, err
	}
	if len(s) <= addrCacheLen && len(a.full) <= addrCacheLen {
		k.ways[(k.next.Add(1)-1)%addrWays].Store(&addrEntry{key: s, addr: a})
	}
	return a, nil
}
