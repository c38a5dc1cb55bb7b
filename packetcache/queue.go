package packetcache

import "container/heap"

// never is the deadline of what has none.
const never = 1<<63 - 1

// inList is entry.at of an entry in queue's list.
const inList = -1

// queue orders entries by deadline. Since all new deadlines are "now plus the same timeout", they arrive in order and
// a list takes them at constant cost; the few that do not (restored ones, back-offs) go to a heap beside it.
type queue struct {
	head, tail *entry
	heap       byDeadline
	n          int
}

func (q *queue) push(e *entry) {
	if q.tail != nil && e.deadline < q.tail.deadline {
		q.pushEarly(e)
		return
	}
	q.n++
	e.in, e.at = q, inList
	e.prev, e.next = q.tail, nil
	if q.tail != nil {
		q.tail.next = e
	} else {
		q.head = e
	}
	q.tail = e
}

// pushEarly is push for an entry whose deadline is not of the ordinary kind: kept out of the list, it cannot make
// those that follow it fall out of order.
func (q *queue) pushEarly(e *entry) {
	q.n++
	e.in = q
	heap.Push(&q.heap, e)
}

func (q *queue) remove(e *entry) {
	q.n--
	e.in = nil
	if e.at != inList {
		heap.Remove(&q.heap, e.at)
		return
	}
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		q.head = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		q.tail = e.prev
	}
	e.prev, e.next = nil, nil
}

// first returns the entry with the earliest deadline, nil when there is none.
func (q *queue) first() *entry {
	if len(q.heap) == 0 {
		return q.head
	}
	if q.head != nil && before(q.head, q.heap[0]) {
		return q.head
	}
	return q.heap[0]
}

// deadline is that of first.
func (q *queue) deadline() int64 {
	if e := q.first(); e != nil {
		return e.deadline
	}
	return never
}

// before orders by deadline and, where that is the same, by age.
func before(a, b *entry) bool {
	if a.deadline != b.deadline {
		return a.deadline < b.deadline
	}
	return a.id.Compare(b.id) < 0
}

type byDeadline []*entry

func (h byDeadline) Len() int           { return len(h) }
func (h byDeadline) Less(i, j int) bool { return before(h[i], h[j]) }

func (h byDeadline) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *byDeadline) Push(x any) {
	e := x.(*entry)
	e.at = len(*h)
	*h = append(*h, e)
}

func (h *byDeadline) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
