package session

import "sync"

// waiting holds the transports that have something to write which may not go out yet (see Sendable).
type waiting struct {
	mu   sync.Mutex
	list []Transport
}

// park has a transport woken when more may be sent than up to place.
func (sv *Service) park(t Transport, pos uint64) {
	sv.parked.mu.Lock()
	sv.parked.list = append(sv.parked.list, t)
	sv.parked.mu.Unlock()
	if sv.journal.Sendable() >= pos {
		sv.unpark() // it came between
	}
}

// unpark wakes all that wait.
func (sv *Service) unpark() {
	sv.parked.mu.Lock()
	list := sv.parked.list
	sv.parked.list = nil
	sv.parked.mu.Unlock()
	for _, t := range list {
		t.Wake()
	}
}
