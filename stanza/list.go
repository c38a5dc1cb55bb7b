package stanza

// inline is how many items a list holds in itself.
const inline = 8

// list is a slice whose first items need no allocation. It has no pointers into itself, so that a struct that holds
// one can live on the Go stack and can be moved.
type list[T any] struct {
	n     int
	first [inline]T
	more  []T
}

func (l *list[T]) at(i int) *T {
	if i < inline {
		return &l.first[i]
	}
	return &l.more[i-inline]
}

func (l *list[T]) last() *T { return l.at(l.n - 1) }

func (l *list[T]) push(v T) {
	if l.n < inline {
		l.first[l.n] = v
	} else {
		l.more = append(l.more, v)
	}
	l.n++
}

// truncate drops all but the first n.
func (l *list[T]) truncate(n int) {
	l.n = n
	l.more = l.more[:max(0, n-inline)]
}
