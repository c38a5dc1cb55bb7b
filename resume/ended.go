package resume

import (
	"sync"
	"time"

	"holdfast/stanza"
)

// endedSession is a session that is over, and the count that its client is told (XEP-0198 §5, <failed h/>).
type endedSession struct {
	token   string
	user    stanza.Addr
	handled uint32
	at      time.Time
}

// maxEnded bounds the sessions that are over and remembered in memory; older ones are in the checkpoint store.
const maxEnded = 10_000

// recallTime is how long the checkpoint store may take to find one. Tests give it more.
var recallTime = time.Second

// ended remembers sessions that are over.
type ended struct {
	keep time.Duration // static; 0 remembers nothing

	mu      sync.Mutex
	byToken map[string]endedSession // since the last checkpoint, and the newest before
	order   []string                // of byToken, oldest first
	fresh   []endedSession          // not yet in the checkpoint store
}

func newEnded(keep time.Duration) *ended {
	return &ended{keep: keep, byToken: make(map[string]endedSession)}
}

func (m *ended) remember(e endedSession) {
	if m.keep == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.order) >= maxEnded {
		delete(m.byToken, m.order[0])
		m.order = m.order[1:]
	}
	m.byToken[e.token] = e
	m.order = append(m.order, e.token)
	m.fresh = append(m.fresh, e)
}

// recall looks into the memory only; when it has the session, known is true.
func (m *ended) recall(token string, user stanza.Addr) (h uint32, ok, known bool) {
	m.mu.Lock()
	e, known := m.byToken[token]
	m.mu.Unlock()
	return e.handled, known && e.user == user && time.Since(e.at) <= m.keep, known
}

// take returns what the checkpoint store does not have.
func (m *ended) take() []endedSession {
	m.mu.Lock()
	defer m.mu.Unlock()
	fresh := m.fresh
	m.fresh = nil
	return fresh
}

// putBack undoes a take whose checkpoint failed.
func (m *ended) putBack(fresh []endedSession) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fresh = append(fresh, m.fresh...)
}
