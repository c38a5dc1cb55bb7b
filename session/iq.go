package session

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/amp"
	"holdfast/stanza"
)

// iqKey names a request by its payload (RFC 6120 §8.2.3).
type iqKey struct{ space, name string }

// iqHandler answers one kind of request to the gateway or to the sender's own account: with content for the result,
// or with an error, of which a mellium stanza.Error is told to the client.
type iqHandler func(s *Session, st *stanza.Stanza, payload stanza.Child) ([]byte, error)

const (
	nsDiscoInfo  = "http://jabber.org/protocol/disco#info"
	nsDiscoItems = "http://jabber.org/protocol/disco#items"
	nsPing       = "urn:xmpp:ping"
	nsVersion    = "jabber:iq:version"
	nsTime       = "urn:xmpp:time"
	nsRegister   = "jabber:iq:register"
)

// handlers is the table of what the gateway answers itself. Anything else is service-unavailable (RFC 6120 §8.4).
func (sv *Service) handlers() map[iqKey]iqHandler {
	return map[iqKey]iqHandler{
		{nsDiscoInfo, "query"}:     discoInfo,
		{nsDiscoItems, "query"}:    discoItems,
		{nsPing, "ping"}:           ping,
		{nsVersion, "query"}:       version,
		{nsTime, "time"}:           entityTime,
		{nsSession, "session"}:     legacySession,
		{stanza.NSRoster, "query"}: rosterQuery,
		{nsRegister, "query"}:      registerQuery,
		{nsOffline, "offline"}:     mailboxQuery,

		{nsMsgOffline, "msgoffline"}: ownLimitQuery,
	}
}

// iq takes an IQ of the client (RFC 6121 §8.5).
func (s *Session) iq(e *stanza.Element, to stanza.Addr) error {
	sv := s.sv
	typ := string(e.TypeRaw())
	if len(e.IDRaw()) == 0 {
		return s.refuse(e, badRequest) // RFC 6120 §8.1.3
	}
	own := to.IsZero() || to == s.addr.Bare()
	target := to
	if to.IsZero() {
		target = s.addr.Bare()
	}
	st := e.Rewrite(stanza.Edit{From: s.addr, To: target})
	switch typ {
	case "get", "set":
		if e.NumChildren() != 1 {
			return s.reply(st, badRequest) // RFC 6120 §8.2.3 rule 4
		}
	case "result", "error":
		if own || to.Local() == "" {
			s.answered(st)
			return nil
		}
	default:
		return s.reply(st, badRequest)
	}
	switch {
	case sv.hosts(target):
		return s.iqHosted(st)
	case !sv.Local(target):
		return s.reply(st, remoteServerNotFound)
	case own, to.Local() == "" && to.IsBare():
		return s.serve(st)
	case to.IsBare() && (typ == "get" || typ == "set") && retrieves(st.Child(0)):
		return s.reply(st, forbidden) // whether there is such an account or not
	case to.IsFull():
		ok, err := sv.routeDirect(to, s, st)
		if err != nil || ok {
			return err
		}
		if typ == "get" || typ == "set" {
			return s.reply(st, serviceUnavailable)
		}
		return nil
	}
	if sv.cluster == nil {
		return sv.account(s, st)
	}
	if s.nowhere == target {
		return s.reply(st, serviceUnavailable)
	}
	if err := sv.forward(s, target, opAccount, st); !errors.Is(err, errHere) {
		return err
	}
	return sv.account(s, st)
}

// iqHosted takes an IQ for the Host or who is hosted there.
func (s *Session) iqHosted(st *stanza.Stanza) error {
	if st.To.Local() != "" {
		return s.sv.sendHosted(s, st)
	}
	if typ := string(st.TypeRaw()); typ != "get" && typ != "set" {
		return nil
	}
	inner, err := s.sv.host.Answer(s.sv.ctx, st)
	return s.answer(st, inner, err)
}

// account answers a request to another user's bare address on that user's behalf (RFC 6121 §8.5.2.1.3): who may see
// the user's presence learns that there is an account, nobody else learns anything (XEP-0030 §8).
func (sv *Service) account(from *Session, st *stanza.Stanza) error {
	typ := string(st.TypeRaw())
	if typ == "result" || typ == "error" {
		return nil
	}
	payload := st.Child(0)
	if typ == "get" && payload.Is(nsDiscoInfo, "query") && payload.Attr("node") == "" {
		may, err := sv.maySee(st.From.Bare(), st.To)
		if err != nil {
			return err
		}
		if may {
			return sv.tellSender(from, stanza.Result(st, accountInfo))
		}
	}
	return from.reply(st, serviceUnavailable)
}

// serve answers what the gateway itself was asked.
func (s *Session) serve(st *stanza.Stanza) error {
	payload := st.Child(0)
	h, ok := s.sv.iqs[iqKey{string(payload.Space()), string(payload.Name())}]
	if !ok {
		return s.reply(st, serviceUnavailable)
	}
	inner, err := h(s, st, payload)
	return s.answer(st, inner, err)
}

// answer sends what a request came to.
func (s *Session) answer(st *stanza.Stanza, inner []byte, err error) error {
	if errors.Is(err, errNoReply) {
		return nil
	}
	if err != nil {
		if cond, ok := stanzaError(err); ok {
			return s.reply(st, cond)
		}
		s.log.Error("request not answered", "namespace", string(st.Child(0).Space()), "error", err)
		return s.reply(st, internalServerError)
	}
	return s.send(nil, stanza.Result(st, inner))
}

// errNoReply says that a handler answered by itself.
var errNoReply = errors.New("session: answered already")

func stanzaError(err error) (cond mstanza.Error, ok bool) {
	ok = errors.As(err, &cond)
	return cond, ok
}

func isSet(st *stanza.Stanza) bool { return string(st.TypeRaw()) == "set" }

var notAllowed = mstanza.Error{Type: mstanza.Cancel, Condition: mstanza.NotAllowed}

// ping is XEP-0199.
func ping(_ *Session, st *stanza.Stanza, _ stanza.Child) ([]byte, error) {
	if isSet(st) {
		return nil, badRequest
	}
	return nil, nil
}

// legacySession is the session establishment of RFC 3921 §3, which means nothing any more (RFC 6121 §1.4).
func legacySession(*Session, *stanza.Stanza, stanza.Child) ([]byte, error) { return nil, nil }

// version is XEP-0092.
func version(s *Session, st *stanza.Stanza, _ stanza.Child) ([]byte, error) {
	if isSet(st) {
		return nil, notAllowed
	}
	return []byte("<query xmlns='" + nsVersion + "'><name>Holdfast</name><version>" + escaped(s.sv.version) + "</version></query>"), nil
}

// entityTime is XEP-0202.
func entityTime(_ *Session, st *stanza.Stanza, _ stanza.Child) ([]byte, error) {
	if isSet(st) {
		return nil, notAllowed
	}
	now := time.Now()
	return []byte("<time xmlns='" + nsTime + "'><tzo>" + tzo(now) + "</tzo><utc>" +
		now.UTC().Format("2006-01-02T15:04:05.000Z") + "</utc></time>"), nil
}

// tzo is the numeric offset from UTC (XEP-0082 §3.2).
func tzo(t time.Time) string {
	_, offset := t.Zone()
	sign := '+'
	if offset < 0 {
		sign, offset = '-', -offset
	}
	return fmt.Sprintf("%c%02d:%02d", sign, offset/3600, offset/60%60)
}

// What XEP-0030 answers for the domain and for an account.
var (
	domainFeatures = []string{
		nsDiscoInfo, nsDiscoItems, nsPing, nsVersion, nsTime, nsOffline, stanza.NSStanzaID, stanza.NSDelay,
		stanza.NSRoster, "urn:xmpp:features:pre-approval",
	}
	accountFeatures = []string{nsDiscoInfo, stanza.NSStanzaID}
	accountInfo     = info(registered, accountFeatures)
	// ownInfo is what an account's user is told who may choose a limit.
	ownInfo = info(registered, append(slices.Clone(accountFeatures), nsMsgOffline))
)

const registered = "category='account' type='registered'"

func info(identity string, features []string) []byte {
	var b strings.Builder
	b.WriteString("<query xmlns='" + nsDiscoInfo + "'><identity " + identity + "/>")
	for _, f := range features {
		b.WriteString("<feature var='" + f + "'/>")
	}
	b.WriteString("</query>")
	return []byte(b.String())
}

func discoInfo(s *Session, st *stanza.Stanza, q stanza.Child) ([]byte, error) {
	switch {
	case isSet(st):
		return nil, badRequest
	case q.Attr("node") == amp.NS && st.To.Local() == "" && s.sv.cfg.AMP:
		return ampInfo, nil
	case q.Attr("node") == nsOffline && st.To == s.addr.Bare():
		return mailboxInfo(s)
	case q.Attr("node") != "":
		return nil, errNoNode
	case st.To.Local() != "" && s.sv.mailbox.MayChoose():
		return ownInfo, nil
	case st.To.Local() != "":
		return accountInfo, nil
	}
	return s.sv.domainInfo, nil
}

// domainInfoOf is what the domain answers, by what is switched on.
func domainInfoOf(stores, registers, rules bool) []byte {
	features := slices.Clone(domainFeatures)
	if stores {
		features = append(features, nsMsgOffline) // XEP-0160 §4
	}
	if registers {
		features = append(features, nsRegister)
	}
	if rules {
		features = append(features, amp.NS)
	}
	return info("category='server' type='im' name='Holdfast'", features)
}

func discoItems(s *Session, st *stanza.Stanza, q stanza.Child) ([]byte, error) {
	if isSet(st) {
		return nil, badRequest
	}
	if q.Attr("node") == nsOffline && st.To == s.addr.Bare() {
		return mailboxHeaders(s, q)
	}
	if q.Attr("node") != "" {
		return nil, errNoNode
	}
	if host := s.sv.host; host != nil && st.To.Local() == "" {
		if addr, ok := host.Under(st.To.Domain()); ok {
			return []byte("<query xmlns='" + nsDiscoItems + "'><item jid='" + escaped(addr.String()) + "'/></query>"), nil
		}
	}
	return []byte("<query xmlns='" + nsDiscoItems + "'/>"), nil
}
