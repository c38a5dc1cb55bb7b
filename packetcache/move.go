package packetcache

import (
	"slices"

	"holdfast/stanza"
)

// In a cluster the entries of a recipient are where the recipient is served, and go along when that changes.

func (c *Cache) linkUserLocked(e *entry, user stanza.Addr) {
	first := c.byUser[user]
	e.userPrev, e.userNext = nil, first
	if first != nil {
		first.userPrev = e
	}
	c.byUser[user] = e
}

func (c *Cache) unlinkUserLocked(e *entry, user stanza.Addr) {
	switch {
	case e.userPrev != nil:
		e.userPrev.userNext = e.userNext
	case e.userNext != nil:
		c.byUser[user] = e.userNext
	default:
		delete(c.byUser, user)
	}
	if e.userNext != nil {
		e.userNext.userPrev = e.userPrev
	}
	e.userPrev, e.userNext = nil, nil
}

// TakeOut forgets all entries for messages to user, those that await a late receipt included, and returns them, oldest
// first: another node restores them. What an action does for one of them at this moment has no effect here any more.
func (c *Cache) TakeOut(user stanza.Addr) []Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Entry
	now, wall := c.now(), c.wall()
	for e := c.byUser[user.Bare()]; e != nil; {
		next := e.userNext
		out = append(out, e.entry(now, wall))
		c.closeLocked(e, outcomeClosed, now)
		e = next
	}
	slices.Reverse(out)
	return out
}

// Holds reports whether messages to user await a receipt and are not in offline storage.
func (c *Cache) Holds(user stanza.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.byUser[user.Bare()]; e != nil; e = e.userNext {
		if e.state != late {
			return true
		}
	}
	return false
}
