package packetcache

// This file is the cache's bookkeeping: what is in which index, list and sum. All of it needs Cache.mu.

func (c *Cache) newLocked() *entry {
	e := c.free
	if e == nil {
		return new(entry)
	}
	c.free = e.next
	c.freeN--
	e.next = nil
	return e
}

func (c *Cache) freeLocked(e *entry) {
	if c.freeN == maxFree {
		return
	}
	*e = entry{next: c.free}
	c.free = e
	c.freeN++
}

// enterLocked takes e in as one that awaits a receipt.
func (c *Cache) enterLocked(e *entry) {
	e.size = int64(len(e.st.Raw()) + len(e.msgID) + overhead)
	c.open++
	c.bytes += e.size
	c.fullLocked()
	c.indexLocked(e)
}

// leaveLocked undoes the sums of enterLocked.
func (c *Cache) leaveLocked(e *entry) {
	c.open--
	c.bytes -= e.size
	c.fullLocked()
}

func (c *Cache) indexLocked(e *entry) {
	c.byID[e.id] = e
	k := e.key()
	if c.byUser != nil {
		c.linkUserLocked(e, k.recipient)
	}
	e.hash = c.byKey.hash(k)
	first := c.byKey.find(k, e.hash)
	if first == nil {
		c.byKey.add(e)
		return
	}
	if first.group == nil {
		new(group).add(first)
	}
	first.group.add(e)
}

func (c *Cache) unindexLocked(e *entry) {
	delete(c.byID, e.id)
	if c.byUser != nil {
		c.unlinkUserLocked(e, e.key().recipient)
	}
	g := e.group
	if g == nil {
		c.byKey.remove(e)
		return
	}
	oldest := g.head == e
	g.remove(e)
	switch {
	case g.head == nil:
		c.byKey.remove(e)
	case oldest:
		c.byKey.replace(e, g.head)
	}
}

// removeLocked makes the cache, and with the next Checkpoint the store, forget e.
func (c *Cache) removeLocked(e *entry) {
	c.unindexLocked(e)
	c.dirty.remove(e)
	if e.written {
		c.gone = append(c.gone, e.id)
	}
}

// closeLocked ends e. It reports whether there is, or may be now or in a moment, a copy in the
// mailbox.
func (c *Cache) closeLocked(e *entry, how outcome, now int64) (offline bool) {
	c.removeLocked(e)
	switch e.state {
	case late:
		e.in.remove(e)
		if how.proof() {
			c.counts.outcomes[outcomeLate]++
		}
		c.freeLocked(e)
		return true
	case running:
		// Run knows in a moment what came of the action, and counts it.
		e.closed = how
		c.leaveLocked(e)
		return e.before || e.doing == Offline
	default:
		e.in.remove(e)
		c.leaveLocked(e)
		c.counts.end(how, now-e.opened)
		offline = e.before
		c.freeLocked(e)
		return offline
	}
}

// lateLocked makes a tombstone of e, which is in no queue.
func (c *Cache) lateLocked(e *entry, deadline int64) {
	c.leaveLocked(e)
	e.state, e.st, e.deadline = late, nil, deadline
	e.sent() // out of the mailbox, some day
	c.late.push(e)
	c.dirty.push(e)
	c.trimLateLocked()
}

// trimLateLocked forgets the oldest tombstones over PACKETCACHE_LATE_ENTRIES: a receipt for them finds nothing, and
// the message is repeated at worst.
func (c *Cache) trimLateLocked() {
	for c.cfg.LateEntries > 0 && c.late.n > c.cfg.LateEntries {
		c.closeLocked(c.late.first(), outcomeClosed, 0)
	}
}

func (c *Cache) overLocked() bool {
	return c.cfg.Entries > 0 && c.open > c.cfg.Entries || c.cfg.Bytes > 0 && c.bytes > c.cfg.Bytes
}

// fullLocked keeps full, and those who wait in Room, up to date.
func (c *Cache) fullLocked() {
	over := c.overLocked()
	if over == c.full.Load() {
		return
	}
	c.full.Store(over)
	if !over && c.room != nil {
		close(c.room)
		c.room = nil
	}
}

// wakeLocked reports whether Run must look again because of a new deadline or a passed cap.
func (c *Cache) wakeLocked(deadline int64) bool {
	if !c.sleeping || deadline >= c.wakeAt && !c.full.Load() {
		return false
	}
	c.sleeping = false // nobody else needs to
	return true
}

func (c *Cache) wakeRun() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// dirtyList is what the next Checkpoint writes, in the order in which it changed.
type dirtyList struct {
	head, tail *entry
	n          int
}

func (l *dirtyList) push(e *entry) {
	if e.dirty {
		return
	}
	e.dirty = true
	l.n++
	e.dirtyPrev, e.dirtyNext = l.tail, nil
	if l.tail != nil {
		l.tail.dirtyNext = e
	} else {
		l.head = e
	}
	l.tail = e
}

func (l *dirtyList) remove(e *entry) {
	if !e.dirty {
		return
	}
	e.dirty = false
	l.n--
	if e.dirtyPrev != nil {
		e.dirtyPrev.dirtyNext = e.dirtyNext
	} else {
		l.head = e.dirtyNext
	}
	if e.dirtyNext != nil {
		e.dirtyNext.dirtyPrev = e.dirtyPrev
	} else {
		l.tail = e.dirtyPrev
	}
	e.dirtyPrev, e.dirtyNext = nil, nil
}
