// Package fakexmpp is just enough of an XMPP server to test a load generator with: RFC 7395 framing or BOSH, SASL PLAIN and
// SCRAM-SHA-256, bind, XEP-0198 with resumption, messages to sessions and to a mailbox of who is away, the own
// presence, and rooms (XEP-0045) that everybody may enter. It trusts its clients, keeps everything in memory, and can be told to lose or repeat messages.
//
// Goroutines: one for each connection, or each request of BOSH, the HTTP server's. mu guards everything that is shared.
package fakexmpp

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"sync"

	"github.com/coder/websocket"
)

// Server is an http.Handler for WebSocket connections.
type Server struct {
	Domain   string
	Password func(user string) (string, bool)
	// Copies says how often to deliver the nth message (from 0), of which a room's has one for each occupant; nil for once.
	Copies func(n int) int

	mu       sync.Mutex
	sessions map[string]*session // by full JID
	byID     map[string]*session // by XEP-0198 id
	mailbox  map[string][]string // by bare JID
	rooms    map[string][]occupant
	messages int
}

// session is what survives a connection when stream management is on. Server.mu guards it.
type session struct {
	jid      string
	conn     sink // nil while the client is away
	sm       bool
	id       string
	handled  int
	acked    int
	out      []string // sent or to be sent, not acknowledged
	sinceAsk int
}

// sink takes what is said to a client. Who cannot take it is gone, which whoever reads from the client notices.
type sink interface{ write(text string) }

type webSocket struct{ *websocket.Conn }

func (w webSocket) write(text string) {
	_ = w.Write(context.Background(), websocket.MessageText, []byte(text)) // the reader notices
}

// stream is one connection; it belongs to its reader.
type stream struct {
	server  *Server
	conn    sink
	bosh    bool
	user    string
	scram   exchange
	session *session
}

var (
	attribute = regexp.MustCompile(`\s([a-z]+)=['"]([^'"]*)['"]`)
	element   = regexp.MustCompile(`^<([a-z]+)`)
)

func attrs(el string) map[string]string {
	head, _, _ := bytes.Cut([]byte(el), []byte(">"))
	all := make(map[string]string)
	for _, m := range attribute.FindAllSubmatch(head, -1) {
		if _, twice := all[string(m[1])]; !twice {
			all[string(m[1])] = string(m[2])
		}
	}
	return all
}

func between(s, from, to string) string {
	_, s, _ = cut(s, from)
	s, _, _ = cut(s, to)
	return s
}

func cut(s, sep string) (string, string, bool) {
	a, b, ok := bytes.Cut([]byte(s), []byte(sep))
	return string(a), string(b), ok
}

// ServeHTTP runs one connection.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"xmpp"}})
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	st := &stream{server: s, conn: webSocket{conn}}
	defer st.gone()
	for {
		_, frame, err := conn.Read(context.Background())
		if err != nil {
			return
		}
		if !st.handle(string(frame)) {
			conn.Close(websocket.StatusNormalClosure, "")
			return
		}
	}
}

func (st *stream) send(format string, args ...any) {
	st.conn.write(fmt.Sprintf(format, args...))
}

// handle takes one element and reports whether the stream goes on.
func (st *stream) handle(el string) bool {
	name := element.FindStringSubmatch(el)
	if name == nil {
		return false
	}
	switch name[1] {
	case "open":
		st.open()
	case "close":
		st.end()
		st.send("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>")
		return false
	case "auth", "response":
		st.authenticate(el)
	case "iq":
		st.bind(el)
	case "enable":
		st.enable()
	case "resume":
		st.resume(attrs(el))
	case "r":
		st.server.mu.Lock()
		h := st.session.handled
		st.server.mu.Unlock()
		st.send(`<a xmlns="urn:xmpp:sm:3" h="%d"/>`, h)
	case "a":
		h, _ := strconv.Atoi(attrs(el)["h"])
		st.server.mu.Lock()
		st.session.trim(h)
		st.server.mu.Unlock()
	case "message":
		st.message(el)
	case "presence":
		st.presence(el)
	}
	return true
}

func (st *stream) open() {
	if !st.bosh {
		st.send(`<open xmlns="urn:ietf:params:xml:ns:xmpp-framing" id="1" from="%s" version="1.0"/>`, st.server.Domain)
	}
	if st.user == "" {
		st.send(`<stream:features xmlns:stream="http://etherx.jabber.org/streams"><mechanisms ` +
			`xmlns="urn:ietf:params:xml:ns:xmpp-sasl"><mechanism>SCRAM-SHA-256</mechanism>` +
			`<mechanism>PLAIN</mechanism></mechanisms></stream:features>`)
		return
	}
	st.send(`<stream:features xmlns:stream="http://etherx.jabber.org/streams">` +
		`<bind xmlns="urn:ietf:params:xml:ns:xmpp-bind"/><sm xmlns="urn:xmpp:sm:3"/></stream:features>`)
}

func (st *stream) bind(el string) {
	s := st.server
	jid := st.user + "@" + s.Domain + "/" + between(el, "<resource>", "</resource>")
	s.mu.Lock()
	if s.sessions == nil {
		s.sessions, s.byID, s.mailbox = map[string]*session{}, map[string]*session{}, map[string][]string{}
		s.rooms = map[string][]occupant{}
	}
	st.session = &session{jid: jid, conn: st.conn}
	s.sessions[jid] = st.session
	s.mu.Unlock()
	st.send(`<iq xmlns="jabber:client" type="result" id="%s"><bind xmlns="urn:ietf:params:xml:ns:xmpp-bind">`+
		`<jid>%s</jid></bind></iq>`, attrs(el)["id"], jid)
}

func (st *stream) enable() {
	s := st.server
	s.mu.Lock()
	st.session.sm, st.session.id = true, "sm-"+strconv.Itoa(len(s.byID))
	s.byID[st.session.id] = st.session
	s.mu.Unlock()
	st.send(`<enabled xmlns="urn:xmpp:sm:3" id="%s" resume="true"/>`, st.session.id)
}

func (st *stream) resume(a map[string]string) {
	s := st.server
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.byID[a["previd"]]
	if old == nil {
		st.send(`<failed xmlns="urn:xmpp:sm:3"/>`)
		return
	}
	h, _ := strconv.Atoi(a["h"])
	old.trim(h)
	old.conn, st.session = st.conn, old
	st.send(`<resumed xmlns="urn:xmpp:sm:3" previd="%s" h="%d"/>`, old.id, old.handled)
	for _, el := range old.out {
		st.conn.write(el)
	}
	st.conn.write(`<r xmlns="urn:xmpp:sm:3"/>`)
}

// trim takes an acknowledgement of the first h stanzas.
func (ss *session) trim(h int) {
	if n := h - ss.acked; n >= 0 && n <= len(ss.out) {
		ss.acked, ss.out = h, ss.out[n:]
	}
}

// deliverLocked sends a stanza to a session, or keeps it there while the client is away.
func (ss *session) deliverLocked(el string) {
	if ss.sm {
		ss.out = append(ss.out, el)
	}
	if ss.conn == nil {
		return
	}
	ss.conn.write(el)
	if ss.sinceAsk++; ss.sm && ss.sinceAsk%5 == 0 {
		ss.conn.write(`<r xmlns="urn:xmpp:sm:3"/>`)
	}
}

func (st *stream) message(el string) {
	s := st.server
	s.mu.Lock()
	defer s.mu.Unlock()
	st.session.handled++
	to := attrs(el)["to"]
	if s.hosts(to) {
		s.sayLocked(st.session, to, el)
		return
	}
	el = "<message from='" + st.session.jid + "'" + el[len("<message"):]
	for range s.copiesLocked() {
		if dest := s.sessions[to]; dest != nil {
			dest.deliverLocked(el)
		} else {
			bare, _, _ := cut(to, "/")
			s.mailbox[bare] = append(s.mailbox[bare], el)
		}
	}
}

// copiesLocked is how often to deliver the next message.
func (s *Server) copiesLocked() int {
	n := s.messages
	s.messages++
	if s.Copies == nil {
		return 1
	}
	return s.Copies(n)
}

func (st *stream) presence(el string) {
	s := st.server
	s.mu.Lock()
	defer s.mu.Unlock()
	st.session.handled++
	if s.hosts(attrs(el)["to"]) {
		s.enterOrLeaveLocked(st.session, el)
		return
	}
	jid := st.session.jid
	st.session.deliverLocked(fmt.Sprintf(`<presence xmlns="jabber:client" from="%s" to="%s"/>`, jid, jid))
	bare, _, _ := cut(jid, "/")
	waiting := s.mailbox[bare]
	delete(s.mailbox, bare)
	for _, el := range waiting {
		st.session.deliverLocked(el)
	}
}

// end forgets the session, as <close/> asks.
func (st *stream) end() {
	s := st.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.session != nil && s.sessions[st.session.jid] == st.session {
		delete(s.sessions, st.session.jid)
		delete(s.byID, st.session.id)
		s.leaveLocked(st.session, "")
	}
}

// gone is the end of the connection: without stream management it is the end of the session.
func (st *stream) gone() {
	s := st.server
	s.mu.Lock()
	resumable := st.session != nil && st.session.sm
	if resumable && st.session.conn == st.conn {
		st.session.conn = nil
	}
	s.mu.Unlock()
	if !resumable {
		st.end()
	}
}
