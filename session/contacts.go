package session

import (
	"hash/maphash"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

// Roster requests and pushes (RFC 6121 §2).

// rosterQuery answers <query xmlns='jabber:iq:roster'/>. A request about anybody else's roster does not come here
// (§2.1.5): only those to the own account or the domain do.
func rosterQuery(s *Session, st *stanza.Stanza, q stanza.Child) ([]byte, error) {
	if st.To != s.addr.Bare() {
		return nil, serviceUnavailable
	}
	if isSet(st) {
		return nil, s.rosterSet(q)
	}
	return s.rosterGet(st, q)
}

// rosterGet is §2.2, with versions §2.6.
func (s *Session) rosterGet(st *stanza.Stanza, q stanza.Child) ([]byte, error) {
	// The answer is in the outbox before anything that changes the roster can be pushed.
	defer s.sv.rosterTurn(s.addr)()
	versioned := q.HasAttr("ver")
	items, version, delta, err := s.sv.roster.Items(s.sv.ctx, s.addr.Bare(), q.Attr("ver"), versioned)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	if !s.interested {
		s.interested = true
		err = s.noteLocked()
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if delta {
		// An empty result, then the changes as pushes (§2.6.3).
		if err := s.send(nil, stanza.Result(st, nil)); err != nil {
			return nil, err
		}
		for _, c := range items {
			if err := s.pushItem(c); err != nil {
				return nil, err
			}
		}
		return nil, errNoReply
	}
	b := []byte("<query xmlns='" + stanza.NSRoster + "'")
	if versioned {
		b = append(b, " ver='"+escaped(version)+"'"...)
	}
	b = append(b, '>')
	for _, c := range items {
		b = c.appendTo(b)
	}
	if err := s.send(nil, stanza.Result(st, append(b, "</query>"...))); err != nil {
		return nil, err
	}
	return nil, errNoReply
}

func (c *Contact) appendTo(b []byte) []byte {
	b = append(b, "<item jid='"...)
	b = stanza.AppendEscaped(b, c.Addr.String())
	b = append(b, "' subscription='"+c.Subscription+"'"...)
	if c.Name != "" {
		b = append(b, " name='"...)
		b = append(stanza.AppendEscaped(b, c.Name), '\'')
	}
	if c.Ask {
		b = append(b, " ask='subscribe'"...)
	}
	if c.Approved {
		b = append(b, " approved='true'"...)
	}
	b = append(b, '>')
	for _, g := range c.Groups {
		b = append(b, "<group>"...)
		b = append(stanza.AppendEscaped(b, g), "</group>"...)
	}
	return append(b, "</item>"...)
}

// push tells a user's sessions that know the roster of a change (§2.1.6).
func (sv *Service) push(user stanza.Addr, c Contact) {
	sv.router.Each(user, func(s *Session) {
		s.mu.Lock()
		interested := s.interested
		s.mu.Unlock()
		if !interested {
			return
		}
		if err := s.pushItem(c); err != nil {
			s.log.Error("roster push not delivered", "error", err)
		}
	})
}

func (s *Session) pushItem(c Contact) error {
	b := []byte("<query xmlns='" + stanza.NSRoster + "'")
	if c.Version != "" {
		b = append(b, " ver='"+escaped(c.Version)+"'"...)
	}
	b = append(c.appendTo(append(b, '>')), "</query>"...)
	return s.send(nil, stanza.New(stanza.IQ, "set", "push-"+secret()[:8], s.addr.Bare(), s.addr, b))
}

// rosterSet is §2.3 to §2.5.
func (s *Session) rosterSet(q stanza.Child) error {
	var req struct {
		Items []struct {
			JID          string   `xml:"jid,attr"`
			Name         string   `xml:"name,attr"`
			Subscription string   `xml:"subscription,attr"`
			Groups       []string `xml:"jabber:iq:roster group"`
		} `xml:"jabber:iq:roster item"`
	}
	if err := q.Decode(&req); err != nil || len(req.Items) != 1 {
		return badRequest // §2.3.3: one item at a time
	}
	item := req.Items[0]
	contact, err := stanza.ParseAddr(item.JID)
	if err != nil {
		return mstanza.Error{Type: mstanza.Modify, Condition: mstanza.JIDMalformed}
	}
	sv, user := s.sv, s.addr.Bare()
	if item.Subscription == "remove" {
		return sv.removeContact(user, contact.Bare())
	}
	defer sv.rosterTurn(user)()
	c, err := sv.roster.Set(sv.ctx, user, Contact{Addr: contact.Bare(), Name: item.Name, Groups: item.Groups})
	if err != nil {
		return err
	}
	sv.push(user, c)
	return nil
}

// removeContact is §2.5.
func (sv *Service) removeContact(user, contact stanza.Addr) error {
	done := sv.rosterTurn(user)
	c, parting, err := sv.roster.Remove(sv.ctx, user, contact)
	if err == nil {
		sv.push(user, c)
	}
	done()
	if err != nil {
		return err
	}
	return sv.part(user, contact, parting)
}

// rosterTurn keeps a user's roster changes and their pushes in one order, since a push carries a version. It returns
// what ends the turn. No two turns are taken at once.
func (sv *Service) rosterTurn(user stanza.Addr) (done func()) {
	mu := &sv.turns[maphash.String(sv.seed, user.Bare().String())%uint64(len(sv.turns))]
	mu.Lock()
	return mu.Unlock
}

// part sends a contact what it is owed when it leaves a roster (§2.5.2).
func (sv *Service) part(user, contact stanza.Addr, p Parting) error {
	if !sv.Local(contact) {
		return nil
	}
	if p.Unavailable {
		sv.hide(user, contact)
	}
	if p.Unsubscribe {
		if err := sv.arrives(contact, user, stanza.New(stanza.Presence, "unsubscribe", "", user, contact, nil)); err != nil {
			return err
		}
	}
	if p.Unsubscribed {
		return sv.arrives(contact, user, stanza.New(stanza.Presence, "unsubscribed", "", user, contact, nil))
	}
	return nil
}
