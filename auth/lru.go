package auth

import "sync"

// lru is a bounded table that forgets what was not used for the longest time. max 0 is no bound.
type lru[K comparable, V any] struct {
	max int

	mu   sync.Mutex
	m    map[K]*lruNode[K, V] // guarded by mu
	root lruNode[K, V]        // ring, most recently used first; guarded by mu
}

type lruNode[K comparable, V any] struct {
	prev, next *lruNode[K, V]
	key        K
	value      V
}

func newLRU[K comparable, V any](maxEntries int) *lru[K, V] {
	l := &lru[K, V]{max: maxEntries, m: make(map[K]*lruNode[K, V])}
	l.root.prev, l.root.next = &l.root, &l.root
	return l
}

func (l *lru[K, V]) get(k K) (v V, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.m[k]
	if n == nil {
		return v, false
	}
	l.frontLocked(n)
	return n.value, true
}

func (l *lru[K, V]) put(k K, v V) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*l.slotLocked(k) = v
}

// putIf puts unless ok says no. No removal comes between the question and the putting.
func (l *lru[K, V]) putIf(k K, v V, ok func() bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ok() {
		*l.slotLocked(k) = v
	}
}

// change runs f on the entry, which is made when it is missing.
func (l *lru[K, V]) change(k K, f func(v *V)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l.slotLocked(k))
}

func (l *lru[K, V]) remove(k K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.m[k]; n != nil {
		l.dropLocked(n)
	}
}

func (l *lru[K, V]) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.m = make(map[K]*lruNode[K, V])
	l.root.prev, l.root.next = &l.root, &l.root
}

func (l *lru[K, V]) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.m)
}

func (l *lru[K, V]) slotLocked(k K) *V {
	n := l.m[k]
	if n == nil {
		if l.max > 0 && len(l.m) >= l.max {
			l.dropLocked(l.root.prev)
		}
		n = &lruNode[K, V]{key: k}
		n.prev, n.next = n, n
		l.m[k] = n
	}
	l.frontLocked(n)
	return &n.value
}

func (l *lru[K, V]) frontLocked(n *lruNode[K, V]) {
	n.prev.next, n.next.prev = n.next, n.prev
	n.prev, n.next = &l.root, l.root.next
	n.prev.next, n.next.prev = n, n
}

func (l *lru[K, V]) dropLocked(n *lruNode[K, V]) {
	n.prev.next, n.next.prev = n.next, n.prev
	delete(l.m, n.key)
}
