package session

import (
	"errors"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// XEP-0077: In-Band Registration.

type registration struct {
	Username *string   `xml:"jabber:iq:register username"`
	Password *string   `xml:"jabber:iq:register password"`
	Remove   *struct{} `xml:"jabber:iq:register remove"`
}

const registerForm = "<query xmlns='" + nsRegister + "'><instructions>Choose a name and a password.</instructions><username/><password/></query>"

// registerStranger answers a registration before authentication (§3.1). It returns nil for anything else.
func (st *stream) registerStranger(e *stanza.Element) []byte {
	q, ok := e.Find(nsRegister, "query")
	if !ok {
		return nil
	}
	result := func(inner string) []byte {
		return []byte("<iq xmlns='" + stanza.NSClient + "' type='result' id='" + escaped(e.Attr("id")) + "' from='" +
			escaped(st.domain.String()) + "'>" + inner + "</iq>")
	}
	switch string(e.TypeRaw()) {
	case "get":
		return result(registerForm)
	case "set":
	default:
		return nil
	}
	var r registration
	if err := q.Decode(&r); err != nil {
		return bareError(e, badRequest)
	}
	if r.Remove != nil {
		return bareError(e, mstanza.Error{Type: mstanza.Auth, Condition: mstanza.NotAuthorized})
	}
	if r.Username == nil || r.Password == nil || *r.Username == "" || *r.Password == "" {
		return bareError(e, mstanza.Error{Type: mstanza.Modify, Condition: mstanza.NotAcceptable})
	}
	if err := st.sv.accounts.Register(st.sv.ctx, st.domain.Domain(), *r.Username, *r.Password, st.peer.Addr); err != nil {
		if cond, ok := stanzaError(err); ok {
			return bareError(e, cond)
		}
		st.log.Error("account not registered", "error", err)
		return bareError(e, mstanza.Error{Type: mstanza.Wait, Condition: mstanza.InternalServerError})
	}
	st.log.Info("account registered", "address", st.peer.Addr)
	return result("")
}

// registerQuery lets a user see, change the password of, or remove the own account (§3.1.2, §3.2, §3.3).
func registerQuery(s *Session, st *stanza.Stanza, q stanza.Child) ([]byte, error) {
	sv := s.sv
	if !sv.register {
		return nil, serviceUnavailable
	}
	user := s.addr.Bare()
	if !isSet(st) {
		return []byte("<query xmlns='" + nsRegister + "'><registered/><username>" + escaped(user.Local()) + "</username><password/></query>"), nil
	}
	var r registration
	if err := q.Decode(&r); err != nil {
		return nil, badRequest
	}
	if r.Remove != nil {
		return nil, s.removeAccount(st)
	}
	if r.Password == nil || *r.Password == "" || r.Username != nil && *r.Username != user.Local() {
		return nil, badRequest
	}
	return nil, sv.accounts.ChangePassword(sv.ctx, user, *r.Password)
}

// removeAccount ends the account (§3.2). What it leaves behind is UserRemoved's business.
func (s *Session) removeAccount(st *stanza.Stanza) error {
	s.mu.Lock()
	stream := s.stream
	s.mu.Unlock()
	if err := s.sv.accounts.Unregister(s.sv.ctx, s.addr.Bare()); err != nil {
		return err
	}
	if stream != nil {
		// Not through the outbox, which nothing is sent from once the session has ended.
		stream.control(stanza.Result(st, nil).Raw())
	}
	return errNoReply
}

// UserRemoved follows the removal of an account, by its user or by the operator: its sessions end with not-authorized
// (XEP-0077 §3.2), its contacts get what RFC 6121 §2.5.2 owes them, its roster is forgotten. It may be repeated.
func (sv *Service) UserRemoved(user stanza.Addr) error {
	sv.noteRemoved(user) // whoever serves the user: messages that wait here are for nobody
	if sv.cluster == nil {
		sv.enter()
		defer sv.leave()
		return sv.userRemoved(user)
	}
	if err := sv.cluster.Locate(sv.ctx, user, true); err != nil {
		return err
	}
	sv.enter()
	defer sv.leave()
	node, _, err := sv.cluster.Forward(user, Message{Op: opRemoved}, Origin{})
	if err == nil && node == sv.cluster.ID() {
		err = sv.userRemoved(user)
	}
	return err
}

func (sv *Service) userRemoved(user stanza.Addr) error {
	sv.noteRemoved(user)
	var all []*Session
	sv.router.Each(user, func(s *Session) { all = append(all, s) })
	for _, s := range all {
		sv.terminate(s, stanza.NotAuthorized.WithText("the account was removed"))
	}
	owed, err := sv.roster.Forget(sv.ctx, user)
	if err != nil {
		return errors.Join(ErrBusy, err) // it may be repeated
	}
	for contact, p := range owed {
		if err := sv.part(user, contact, p); err != nil {
			return err
		}
	}
	if sv.cluster == nil {
		return nil // the mailbox has a hook of its own
	}
	if err := sv.journal.IDs(journal.KindUnstored, user, nil); err != nil {
		return err
	}
	if err := sv.mailbox.Forget(user); err != nil {
		return errors.Join(ErrBusy, err)
	}
	return nil
}

// maxRemoved bounds what is remembered of removed accounts: messages to them live no longer than a receipt may take.
const maxRemoved = 10_000

func (sv *Service) noteRemoved(user stanza.Addr) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if sv.removed == nil || len(sv.removed) >= maxRemoved {
		sv.removed = make(map[stanza.Addr]stanza.ID)
	}
	sv.removed[user] = stanza.NewID()
}

// userGone reports whether there is nobody any more whom a message was meant for.
func (sv *Service) userGone(user stanza.Addr, id stanza.ID) (bool, error) {
	if sv.removedSince(user, id) {
		return true, nil
	}
	exists, err := sv.accounts.Exists(sv.ctx, user)
	return !exists, err
}

// removedSince reports whether a message was meant for an account that was removed after it came in. An account of the
// same name that was made since is somebody else's.
func (sv *Service) removedSince(user stanza.Addr, id stanza.ID) bool {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	at, ok := sv.removed[user]
	return ok && id.Compare(at) < 0
}
