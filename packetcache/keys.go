package packetcache

import (
	"hash/maphash"
	"math/bits"

	"holdfast/stanza"
)

// key is what a receipt tells of the message that it is for.
type key struct {
	sender, recipient stanza.Addr // bare
	msgID             string
}

func keyOf(sender, recipient stanza.Addr, msgID string) key {
	if recipient.IsZero() { // no 'to' is the account itself, RFC 6120 §10.3
		recipient = sender
	}
	return key{sender: sender.Bare(), recipient: recipient.Bare(), msgID: msgID}
}

// keyTable finds entries by key. It is a hash table whose links are in the entries: a key, three strings, is hashed
// once for its entry's life (a map does it for every operation), and nothing is allocated for it. Of a group only the
// oldest is in the table.
type keyTable struct {
	seed    maphash.Seed // clients choose the ids: without it they could choose them to collide
	buckets []*entry     // linked by hashNext; a power of two of them
	n       int
}

const minBuckets = 64

func newKeyTable() keyTable {
	return keyTable{seed: maphash.MakeSeed(), buckets: make([]*entry, minBuckets)}
}

func (t *keyTable) hash(k key) uint64 {
	h := maphash.String(t.seed, k.msgID)
	h = bits.RotateLeft64(h, 21) ^ maphash.String(t.seed, k.sender.String())
	return bits.RotateLeft64(h, 21) ^ maphash.String(t.seed, k.recipient.String())
}

func (t *keyTable) bucket(hash uint64) **entry { return &t.buckets[hash&uint64(len(t.buckets)-1)] }

func (t *keyTable) find(k key, hash uint64) *entry {
	for e := *t.bucket(hash); e != nil; e = e.hashNext {
		if e.hash == hash && e.key() == k {
			return e
		}
	}
	return nil
}

// add puts in e, which has its hash and whose key is not there.
func (t *keyTable) add(e *entry) {
	if t.n == len(t.buckets) {
		t.resize(2 * len(t.buckets))
	}
	t.n++
	at := t.bucket(e.hash)
	e.hashNext, *at = *at, e
}

func (t *keyTable) remove(e *entry) {
	t.n--
	t.swap(e, e.hashNext)
	if len(t.buckets) > minBuckets && t.n < len(t.buckets)/8 {
		t.resize(len(t.buckets) / 2)
	}
}

// replace puts next, which has the same key, in the place of e.
func (t *keyTable) replace(e, next *entry) {
	next.hashNext = e.hashNext
	t.swap(e, next)
}

func (t *keyTable) swap(e, with *entry) {
	at := t.bucket(e.hash)
	for *at != e {
		at = &(*at).hashNext
	}
	*at, e.hashNext = with, nil
}

func (t *keyTable) resize(n int) {
	old := t.buckets
	t.buckets = make([]*entry, n)
	for _, e := range old {
		for e != nil {
			next := e.hashNext
			at := t.bucket(e.hash)
			e.hashNext, *at = *at, e
			e = next
		}
	}
}
