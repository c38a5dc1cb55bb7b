package packetcache

import "holdfast/stanza"

// Receipt closes what the receipt for msgID proves, sent by from (any resource of the recipient) to the message's
// sender. closed has the stanza ids of the messages that are proven now; it is empty for a receipt that no message
// waits for. offline says that one of them went to offline storage, is on its way there, or may have gone there before a
// restart: the caller removes the copies of closed from the mailbox, where there are any.
func (c *Cache) Receipt(from, to stanza.Addr, msgID string) (closed []stanza.ID, offline bool) {
	return c.receive(from, to, msgID, outcomeReceipt)
}

// Marker is Receipt for a chat marker (XEP-0333).
func (c *Cache) Marker(from, to stanza.Addr, msgID string) (closed []stanza.ID, offline bool) {
	return c.receive(from, to, msgID, outcomeMarker)
}

func (c *Cache) receive(from, to stanza.Addr, msgID string, how outcome) (closed []stanza.ID, offline bool) {
	k := keyOf(to, from, msgID)
	if to.IsZero() { // a message without 'to' is to its sender's own account, RFC 6120 §10.3
		k.sender = k.recipient
	}
	hash := c.byKey.hash(k) // the seed never changes
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey.find(k, hash)
	if e == nil {
		return nil, false
	}
	now := c.now()
	if e.group == nil {
		closed = []stanza.ID{e.id}
		return closed, c.closeLocked(e, how, now)
	}
	for _, e := range e.group.received(from.Resource(), nil) {
		closed = append(closed, e.id)
		if c.closeLocked(e, how, now) {
			offline = true
		}
	}
	return closed, offline
}

// Proved closes the entry of a message that the recipient's client acknowledged (XEP-0198), where that is proof enough.
// It reports whether there was one, and as Receipt whether the message may have a copy in the mailbox.
func (c *Cache) Proved(id stanza.ID) (closed, offline bool) { return c.close(id, outcomeAck) }

// Close closes the entry of a message for any other reason: the journal says that it was closed, or what awaited the
// receipt is moot. It reports what Proved does.
func (c *Cache) Close(id stanza.ID) (closed, offline bool) { return c.close(id, outcomeClosed) }

func (c *Cache) close(id stanza.ID, how outcome) (closed, offline bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byID[id]
	if e == nil {
		return false, false
	}
	return true, c.closeLocked(e, how, c.now())
}
