package session

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// Flexible retrieval of offline messages (XEP-0013). A session that asks what is in the mailbox has chosen to read it by
// itself: until it ends, the mailbox is not poured out over it, nor over another session of its user (§2.2). Nothing
// leaves the mailbox for having been shown. A node is a stanza id, whose order is that of the mailbox.
//
// What is shown goes through the outbox in pages, like a mailbox that drains (drain.go), and the answer comes behind it.
// A shown message has no stanza id there: it is no place where the message is, only a look at it.

const (
	nsOffline = stanza.NSOffline
	nsRSM     = "http://jabber.org/protocol/rsm"
)

const (
	// maxHeaders bounds one list of headers; the client asks for the others with XEP-0059.
	maxHeaders = 500
	// headerPage is how many messages are in memory while headers are listed.
	headerPage = 50
	// maxNodes bounds what one request may name.
	maxNodes = 256
	// maxShows bounds the requests of a session that wait to be shown what they asked for.
	maxShows = 8
)

var forbidden = mstanza.Error{Type: mstanza.Auth, Condition: mstanza.Forbidden}

// retrieves reports whether a request is about the mailbox of whom it is for, which is nobody else's business (§2.3).
func retrieves(payload stanza.Child) bool {
	return string(payload.Space()) == nsOffline ||
		(payload.Is(nsDiscoInfo, "query") || payload.Is(nsDiscoItems, "query")) && payload.Attr("node") == nsOffline
}

// choose notes that the session reads its mailbox by itself. What of it is on its way to a session of the user already
// stays there, the rest is not sent.
func (s *Session) choose() error {
	err := errNoReply // the session has ended, or moved on
	s.sv.router.Locked(s.addr.Bare(), func(t Table) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.ended {
			return
		}
		if err = nil; s.chosen {
			return
		}
		s.chosen = true
		if err = s.noteLocked(); err != nil {
			s.chosen = false
			return
		}
		if d := t.Draining(); d == s {
			s.paging = false
			t.SetDraining(nil)
		} else if d != nil {
			d.mu.Lock() // several are locked only under the user's lock
			d.paging = false
			d.mu.Unlock()
			t.SetDraining(nil)
		}
	})
	return err
}

// chosenLocked reports whether a session of the user reads the mailbox by itself.
func chosenLocked(t Table) bool {
	return slices.ContainsFunc(t.Sessions(), func(s *Session) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.chosen && !s.ended
	})
}

// leaveMailboxLocked follows the end of a session, under the user's lock: what it has left in the mailbox goes to another
// one that is available.
func (sv *Service) leaveMailboxLocked(t Table, s *Session) {
	s.mu.Lock()
	chosen := s.chosen
	s.shows = nil
	s.mu.Unlock()
	if !chosen {
		return
	}
	for _, r := range t.Receivers(nil) {
		sv.drainLocked(t, r)
		return
	}
}

// mailboxInfo says how many messages there are (§2.2).
func mailboxInfo(s *Session) ([]byte, error) {
	if err := s.choose(); err != nil {
		return nil, err
	}
	n, err := s.sv.mailbox.Count(s.addr.Bare())
	if err != nil {
		return nil, err
	}
	return []byte("<query xmlns='" + nsDiscoInfo + "' node='" + nsOffline + "'><identity category='automation' type='message-list'/>" +
		"<feature var='" + nsOffline + "'/><feature var='" + nsRSM + "'/><x xmlns='jabber:x:data' type='result'>" +
		"<field var='FORM_TYPE' type='hidden'><value>" + nsOffline + "</value></field>" +
		"<field var='number_of_messages'><value>" + strconv.Itoa(n) + "</value></field></x></query>"), nil
}

// resultSet is what is understood of XEP-0059.
type resultSet struct {
	Max    string  `xml:"http://jabber.org/protocol/rsm max"`
	After  string  `xml:"http://jabber.org/protocol/rsm after"`
	Before *string `xml:"http://jabber.org/protocol/rsm before"`
	Index  *string `xml:"http://jabber.org/protocol/rsm index"`
}

// bounds says which part of the mailbox is asked for.
func (r *resultSet) bounds() (after stanza.ID, most int, err error) {
	most = maxHeaders
	if r == nil {
		return after, most, nil
	}
	if r.Before != nil || r.Index != nil {
		return after, 0, mstanza.Error{Type: mstanza.Cancel, Condition: mstanza.FeatureNotImplemented} // XEP-0059 §2.3, §2.4
	}
	if r.Max != "" {
		n, err := strconv.Atoi(r.Max)
		if err != nil || n < 0 {
			return after, 0, badRequest
		}
		most = min(most, n)
	}
	if r.After != "" {
		if after, err = stanza.ParseID(r.After); err != nil {
			return after, 0, errNoNode
		}
	}
	return after, most, nil
}

// mailboxHeaders lists the messages (§2.3), in parts where there are many.
func mailboxHeaders(s *Session, q stanza.Child) ([]byte, error) {
	var ask struct {
		Set *resultSet `xml:"http://jabber.org/protocol/rsm set"`
	}
	if err := q.Decode(&ask); err != nil {
		return nil, badRequest
	}
	after, most, err := ask.Set.bounds()
	if err != nil {
		return nil, err
	}
	if err := s.choose(); err != nil {
		return nil, err
	}
	user := s.addr.Bare()
	own := escaped(user.String())
	var b strings.Builder
	b.WriteString("<query xmlns='" + nsDiscoItems + "' node='" + nsOffline + "'>")
	begin, n, more := after, 0, true
	var first stanza.ID
	for more && n < most {
		var page []*stanza.Stanza
		if page, more, err = s.sv.mailbox.Peek(user, after, min(headerPage, most-n), pageBytes); err != nil {
			return nil, err
		}
		for _, m := range page {
			if n++; n == 1 {
				first = m.ID
			}
			after = m.ID
			b.WriteString("<item jid='" + own + "' node='" + m.ID.String() + "' name='" + escaped(m.From.String()) + "'/>")
		}
	}
	if ask.Set != nil || more {
		count, err := s.sv.mailbox.Count(user)
		if err != nil {
			return nil, err
		}
		b.WriteString("<set xmlns='" + nsRSM + "'>")
		if n > 0 {
			b.WriteString("<first")
			if begin.IsZero() {
				b.WriteString(" index='0'")
			}
			b.WriteString(">" + first.String() + "</first><last>" + after.String() + "</last>")
		}
		b.WriteString("<count>" + strconv.Itoa(count) + "</count></set>")
	}
	b.WriteString("</query>")
	return []byte(b.String()), nil
}

// retrieval is an <offline/> request.
type retrieval struct {
	Items []struct {
		Action string `xml:"action,attr"`
		Node   string `xml:"node,attr"`
	} `xml:"http://jabber.org/protocol/offline item"`
	Fetch *struct{} `xml:"http://jabber.org/protocol/offline fetch"`
	Purge *struct{} `xml:"http://jabber.org/protocol/offline purge"`
}

// mailboxQuery shows or removes messages (§2.4 to §2.7).
func mailboxQuery(s *Session, st *stanza.Stanza, payload stanza.Child) ([]byte, error) {
	if st.To != s.addr.Bare() {
		return nil, serviceUnavailable // the domain has no mailbox
	}
	var r retrieval
	if err := payload.Decode(&r); err != nil {
		return nil, badRequest
	}
	action, all, other := "view", r.Fetch, r.Purge
	if isSet(st) {
		action, all, other = "remove", r.Purge, r.Fetch
	}
	if other != nil || (all != nil) == (len(r.Items) > 0) {
		return nil, badRequest
	}
	if len(r.Items) > maxNodes {
		return nil, policyViolation
	}
	ids := make([]stanza.ID, 0, len(r.Items))
	for _, it := range r.Items {
		if it.Action != action {
			return nil, badRequest
		}
		id, err := stanza.ParseID(it.Node)
		if err != nil {
			return nil, errNoNode
		}
		ids = append(ids, id)
	}
	for _, id := range ids { // all of them, before anything is done with one
		if m, err := s.look(id); err != nil {
			return nil, err
		} else if m == nil {
			return nil, errNoNode
		}
	}
	switch {
	case isSet(st):
		return nil, s.discard(ids)
	case all != nil:
		if err := s.choose(); err != nil { // §2.6
			return nil, err
		}
	}
	return nil, s.show(&show{request: st, ids: ids, all: all != nil})
}

// look returns one message of the mailbox, nil when it is not there.
func (s *Session) look(id stanza.ID) (*stanza.Stanza, error) {
	if id.IsZero() {
		return nil, nil
	}
	page, _, err := s.sv.mailbox.Peek(s.addr.Bare(), before(id), 1, 1)
	if err != nil || len(page) == 0 || page[0].ID != id {
		return nil, err
	}
	return page[0], nil
}

// before is the id right below one that is not zero.
func before(id stanza.ID) stanza.ID {
	for i := len(id) - 1; i >= 0; i-- {
		id[i]--
		if id[i] != 0xff {
			break
		}
	}
	return id
}

// discard takes messages out of the mailbox for good, without ids all of them: under the user's lock, so that the journal
// has it in the order in which the mailbox saw it.
func (s *Session) discard(ids []stanza.ID) error {
	sv, user := s.sv, s.addr.Bare()
	err := errNoReply
	sv.router.Locked(user, func(Table) {
		s.mu.Lock()
		ended := s.ended
		s.mu.Unlock()
		if ended {
			return
		}
		if err = sv.journal.IDs(journal.KindUnstored, user, ids); err != nil {
			return
		}
		if len(ids) == 0 {
			err = sv.mailbox.Purge(user)
		} else {
			err = sv.mailbox.Discard(user, ids...)
		}
	})
	return err
}

// show is a request that is being shown messages.
type show struct {
	request *stanza.Stanza
	ids     []stanza.ID // those still to be shown
	all     bool        // or the whole mailbox
	after   stanza.ID   // behind this one
}

// show puts a request behind those that are not answered yet.
func (s *Session) show(x *show) error {
	s.mu.Lock()
	full := len(s.shows) >= maxShows
	if !full {
		s.shows = append(s.shows, x)
	}
	s.mu.Unlock()
	if full {
		return policyViolation
	}
	s.sv.showMore(s)
	return errNoReply
}

// showMore shows as much as there is room for.
func (sv *Service) showMore(s *Session) {
	sv.router.Locked(s.addr.Bare(), func(Table) {
		for {
			s.mu.Lock()
			count, bytes := s.pageRoomLocked()
			if s.ended || s.spilling || len(s.shows) == 0 || count <= 0 {
				s.mu.Unlock()
				return // an acknowledgement goes on
			}
			x := s.shows[0]
			s.mu.Unlock()
			more, err := sv.showPage(s, x, count, bytes)
			if errors.Is(err, errNoRoom) {
				return
			}
			if err != nil {
				s.log.Error("mailbox not shown", "error", err)
				sv.retryShow(s)
				return
			}
			if more {
				continue
			}
			if err := s.send(nil, stanza.Result(x.request, nil)); err != nil {
				s.log.Error("request not answered", "error", err)
				sv.retryShow(s)
				return
			}
			s.mu.Lock()
			if len(s.shows) > 0 {
				s.shows = s.shows[1:]
			}
			s.mu.Unlock()
		}
	})
}

// showPage shows some messages, and reports whether there are others to come.
func (sv *Service) showPage(s *Session, x *show, count, bytes int) (more bool, err error) {
	if x.all {
		page, more, err := sv.mailbox.Peek(s.addr.Bare(), x.after, count, bytes)
		if err != nil {
			return true, err
		}
		for _, m := range page {
			if err := sv.showOne(s, m); err != nil {
				return true, err
			}
			x.after = m.ID
		}
		return more, nil
	}
	if len(x.ids) == 0 {
		return false, nil
	}
	m, err := s.look(x.ids[0])
	if err == nil && m != nil { // else it was removed meanwhile
		err = sv.showOne(s, m)
	}
	if err != nil {
		return true, err
	}
	x.ids = x.ids[1:]
	return len(x.ids) > 0, nil
}

// errNoRoom says that the client has to acknowledge something first.
var errNoRoom = errors.New("session: no room in the outbox")

// showOne puts a message into the outbox as the answer to a request (§2.4).
func (sv *Service) showOne(s *Session, m *stanza.Stanza) error {
	node := "<offline xmlns='" + nsOffline + "'><item node='" + m.ID.String() + "'/></offline>"
	st := m.Rewrite(stanza.Edit{From: m.From, To: m.To, Append: []byte(node)})
	st.ID = stanza.ID{}
	s.mu.Lock()
	full := s.out.n > 0 && s.overLocked(len(st.Raw()))
	s.mu.Unlock()
	if full {
		return errNoRoom
	}
	return s.send(nil, st)
}

// onlyShown reports whether a message in an outbox is in the mailbox, which it was only shown from.
func onlyShown(st *stanza.Stanza) bool {
	return st.Payloads().Has(stanza.Retrieved) && st.ID.IsZero() && st.Kind() == stanza.Message
}

func (sv *Service) retryShow(s *Session) {
	time.AfterFunc(drainRetry, func() {
		if sv.ctx.Err() != nil {
			return
		}
		sv.enter()
		defer sv.leave()
		sv.showMore(s)
	})
}
