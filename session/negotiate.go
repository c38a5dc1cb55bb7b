package session

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/amp"
	"holdfast/stanza"
)

const (
	nsRegisterFeature = "http://jabber.org/features/iq-register"
	nsSession         = "urn:ietf:params:xml:ns:xmpp-session"
	streamNS          = ` xmlns:stream='` + stanza.NSStream + `'`
)

// featuresAfterAuth is what a client may negotiate once it is authenticated: binding, XEP-0198, roster versions
// (RFC 6121 §2.6.1), pre-approval (§3.4.1), XEP-0079, and the session of RFC 3921, which does nothing but is asked for by
// old clients.
func featuresAfterAuth(rules bool) []byte {
	b := []byte(`<stream:features` + streamNS + `>` +
		`<bind xmlns='` + stanza.NSBind + `'/>` +
		`<session xmlns='` + nsSession + `'><optional/></session>` +
		`<sm xmlns='` + stanza.NSSM + `'/>` +
		`<ver xmlns='urn:xmpp:features:rosterver'/>` +
		`<sub xmlns='urn:xmpp:features:pre-approval'/>`)
	if rules {
		b = append(b, `<amp xmlns='`+amp.NSFeature+`'/>`...)
	}
	return append(b, `</stream:features>`...)
}

func (st *stream) featuresBeforeAuth() []byte {
	b := []byte(`<stream:features` + streamNS + `><mechanisms xmlns='` + stanza.NSSASL + `'>`)
	for _, m := range st.sv.auth.Mechanisms(st.peer.Secure) {
		b = append(b, "<mechanism>"+m+"</mechanism>"...)
	}
	b = append(b, "</mechanisms>"...)
	if st.sv.register {
		b = append(b, "<register xmlns='"+nsRegisterFeature+"'/>"...)
	}
	return append(b, "</stream:features>"...)
}

// handleBeforeAuth takes SASL (RFC 6120 §6.4) and registration (XEP-0077); any other stanza is refused
// (RFC 6120 §6.2).
func (st *stream) handleBeforeAuth(e *stanza.Element) {
	if e.Kind() == stanza.IQ && st.sv.register {
		if reply := st.registerStranger(e); reply != nil {
			st.control(reply)
			return
		}
	}
	if string(e.Space()) != stanza.NSSASL {
		st.failLocked(stanza.NotAuthorized)
		return
	}
	switch string(e.Name()) {
	case "auth":
		if st.exchange != nil {
			st.saslFailed("malformed-request")
			return
		}
		ex, err := st.sv.auth.Begin(e.Attr("mechanism"), st.domain.Domain(), st.peer.Addr, st.peer.Secure)
		if err != nil {
			st.saslFailed(saslCondition(err))
			return
		}
		st.exchange = ex
		st.saslStep(e)
	case "response":
		if st.exchange == nil {
			st.saslFailed("malformed-request")
			return
		}
		st.saslStep(e)
	case "abort":
		st.saslFailed("aborted")
	default:
		st.saslFailed("malformed-request")
	}
}

func (st *stream) saslStep(e *stanza.Element) {
	in, err := decodeSASL(e.Text())
	if err != nil {
		st.saslFailed("incorrect-encoding")
		return
	}
	out, done, err := st.exchange.Step(st.sv.ctx, in)
	if err != nil {
		st.saslFailed(saslCondition(err))
		return
	}
	if !done {
		st.control([]byte("<challenge xmlns='" + stanza.NSSASL + "'>" + base64.StdEncoding.EncodeToString(out) + "</challenge>"))
		return
	}
	st.user = st.exchange.User()
	st.exchange = nil
	st.log = st.log.With("user", st.user.String())
	st.state = authenticated
	st.authed.Store(true)
	st.sv.metrics.logins.WithLabelValues("success").Inc()
	if len(out) == 0 {
		st.control([]byte("<success xmlns='" + stanza.NSSASL + "'/>"))
		return
	}
	st.control([]byte("<success xmlns='" + stanza.NSSASL + "'>" + base64.StdEncoding.EncodeToString(out) + "</success>"))
}

// decodeSASL reads base64 data; "=" stands for no bytes at all (RFC 6120 §6.4.2).
func decodeSASL(s string) ([]byte, error) {
	if s == "=" || s == "" {
		return []byte{}, nil
	}
	if i := strings.IndexAny(s, "\r\n"); i >= 0 {
		return nil, base64.CorruptInputError(i) // the decoder would skip them (RFC 4648 §3.3)
	}
	return base64.StdEncoding.Strict().DecodeString(s)
}

func saslCondition(err error) string {
	var named interface{ Condition() string }
	if errors.As(err, &named) {
		return named.Condition()
	}
	return "temporary-auth-failure"
}

// saslFailed answers a failed exchange; a client that fails too often is let go (RFC 6120 §6.4.5).
func (st *stream) saslFailed(condition string) {
	st.exchange = nil
	st.tries++
	st.sv.metrics.logins.WithLabelValues(condition).Inc()
	st.control([]byte("<failure xmlns='" + stanza.NSSASL + "'><" + condition + "/></failure>"))
	if limit := st.sv.cfg.AuthTries; limit > 0 && st.tries >= limit {
		st.failLocked(stanza.PolicyViolation.WithText("too many failed authentication attempts"))
	}
}

// handleBeforeBind takes resource binding (RFC 6120 §7) and resumption (XEP-0198 §5).
func (st *stream) handleBeforeBind(e *stanza.Element) error {
	var err error
	switch {
	case e.Is(stanza.NSSM, "resume"):
		err = st.resume(e)
	case string(e.Space()) == stanza.NSSM:
		// Enabling needs a resource (§3), acknowledgements need enabling.
		st.control(smFailed("unexpected-request", nil))
	case e.Kind() == stanza.IQ:
		bind, ok := e.Find(stanza.NSBind, "bind")
		if !ok || e.Attr("type") != "set" {
			st.failLocked(stanza.NotAuthorized.WithText("a resource is to be bound first"))
			return nil
		}
		err = st.bind(e, bind)
	case e.Kind() != stanza.Other:
		st.failLocked(stanza.NotAuthorized.WithText("a resource is to be bound first"))
	default:
		st.failLocked(stanza.UnsupportedStanzaType)
	}
	if retryable(err) {
		return err
	}
	if err != nil {
		st.fault(err)
	}
	return nil
}

// bind gives the stream a full address. A session that has it already ends: the newcomer is more likely to be
// the one that the user looks at (RFC 6120 §7.7.2.2, the second option).
func (st *stream) bind(e *stanza.Element, bind stanza.Child) error {
	var req struct {
		Bind struct {
			Resource string `xml:"resource"`
		} `xml:"urn:ietf:params:xml:ns:xmpp-bind bind"`
	}
	if len(bind.Inner()) > 0 {
		if err := e.Decode(&req); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
	}
	resource := req.Bind.Resource
	if resource == "" {
		resource = secret()[:12]
	}
	if exists, err := st.sv.accounts.Exists(st.sv.ctx, st.user); err != nil || !exists {
		if err == nil {
			err = stanza.NotAuthorized.WithText("the account was removed")
		}
		return err
	}
	addr, err := st.user.WithResource(resource)
	if err != nil {
		st.control(bareError(e, mstanza.Error{Type: mstanza.Modify, Condition: mstanza.BadRequest}))
		return nil
	}
	s, err := st.sv.open(st, addr)
	if err != nil {
		var refusal mstanza.Error
		if errors.As(err, &refusal) {
			st.control(bareError(e, refusal))
			return nil
		}
		return err
	}
	st.log = s.log
	st.state = bound
	st.promise([]byte("<iq xmlns='"+stanza.NSClient+"' type='result' id='"+escaped(e.Attr("id"))+"'><bind xmlns='"+
		stanza.NSBind+"'><jid>"+escaped(addr.String())+"</jid></bind></iq>"), 0)
	st.session.Store(s)
	st.transport.Wake() // for what was routed to the address meanwhile
	return nil
}

// open makes a session for a stream, in place of an older one with the same address.
func (sv *Service) open(st *stream, addr stanza.Addr) (*Session, error) {
	s := &Session{
		sv: sv, ord: sv.ords.Add(1), addr: addr, created: time.Now(), stream: st,
		log: st.log.With("resource", addr.Resource()),
	}
	for {
		var old, waiting *Session
		var count int
		var err error
		sv.router.Locked(addr.Bare(), func(t Table) {
			if !sv.here(addr.Bare()) {
				err = ErrUnlocated // another node was quicker
				return
			}
			for _, other := range t.Sessions() {
				if other.addr == addr {
					old = other
				}
				other.mu.Lock()
				if other.stream == nil && (waiting == nil || other.ord < waiting.ord) {
					waiting = other
				}
				other.mu.Unlock()
			}
			count = len(t.Sessions())
			if old == nil && (sv.cfg.SessionsPerUser == 0 || count < sv.cfg.SessionsPerUser) {
				s.mu.Lock()
				err = s.noteLocked()
				s.mu.Unlock()
				if err == nil {
					t.Add(s)
					sv.add(s)
				}
			}
		})
		switch {
		case err != nil:
			return nil, err
		case old != nil:
			sv.terminate(old, stanza.Conflict.WithText("another session has this resource now"))
			continue
		case sv.cfg.SessionsPerUser > 0 && count >= sv.cfg.SessionsPerUser:
			if waiting != nil {
				// A client that was lost more often than it came back: its oldest self makes room.
				sv.terminate(waiting, stanza.Conflict)
				continue
			}
			return nil, mstanza.Error{Type: mstanza.Wait, Condition: mstanza.ResourceConstraint}
		}
		break
	}
	sv.metrics.opened.Inc()
	s.log.Info("session bound", "address", st.peer.Addr, "transport", st.peer.Kind)
	return s, nil
}

// bareError is the error answer to an IQ of a client that has no address yet.
func bareError(e *stanza.Element, cond mstanza.Error) []byte {
	return []byte("<iq xmlns='" + stanza.NSClient + "' type='error' id='" + escaped(e.Attr("id")) + "'><error type='" + string(cond.Type) +
		"'><" + string(cond.Condition) + " xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>")
}

func escaped(s string) string { return string(stanza.AppendEscaped(nil, s)) }
