package bosh

import (
	"crypto/sha1" //nolint:gosec // XEP-0124 §15.3 has no other
	"encoding/hex"
)

// key is one key of a sequence (XEP-0124 §15). The zero key stands for none: nobody knows what hashes to it.
type key [sha1.Size]byte

// parseKey reads a key as it is sent; case does not matter (XEP-0124 §15.3).
func parseKey(v []byte) (k key, ok bool) {
	if len(v) != 2*len(k) {
		return key{}, false
	}
	_, err := hex.Decode(k[:], v)
	return k, err == nil && k != key{}
}

// follows reports whether v is the key before k in the sequence. The hash is that of the key as it was sent.
func (k key) follows(v []byte) bool {
	return key(sha1.Sum(v)) == k //nolint:gosec // see above
}

// keyring is the expectation of the next request: nothing, or that its key hashes to want.
type keyring struct{ want key }

func (r keyring) used() bool { return r.want != key{} }

// accept checks the keys of a request that is next in order, and remembers what must follow. It reports false when the
// sequence is broken, or when keys appear in a session that began without.
func (r *keyring) accept(b *body) bool {
	if !r.used() {
		return true
	}
	if !b.hasKey || !r.want.follows(b.key) {
		return false
	}
	v := b.key
	if b.hasNewk {
		v = b.newkey
	}
	next, ok := parseKey(v)
	if ok {
		r.want = next
	}
	return ok
}
