package boshclient

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
)

// keys is a sequence of keys (XEP-0124 §15): each is the hash of the one to be sent after it.
type keys struct {
	length int
	left   []string // in the order of their making, so that the last is the next to send
}

func hash(s string) string {
	sum := sha1.Sum([]byte(s)) // the XEP's choice
	return hex.EncodeToString(sum[:])
}

// start makes a sequence and returns what announces it.
func (k *keys) start() (newKey string) {
	k.left = nil
	key := rand.Text()
	for range k.length {
		key = hash(key)
		k.left = append(k.left, key)
	}
	newKey = k.left[len(k.left)-1]
	k.left = k.left[:len(k.left)-1]
	return newKey
}

// attributes are those of the next request. The last key of a sequence goes with the announcement of the next one.
func (k *keys) attributes() string {
	if k.length == 0 {
		return ""
	}
	key := k.left[len(k.left)-1]
	k.left = k.left[:len(k.left)-1]
	s := " key='" + key + "'"
	if len(k.left) == 0 {
		s += " newkey='" + k.start() + "'"
	}
	return s
}
