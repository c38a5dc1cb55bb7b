package bosh

import (
	"crypto/rand"
	"encoding/base64"
	"math"
	"net/http"
	"strconv"
	"time"

	"holdfast/internal/admit"
	"holdfast/session"
	"holdfast/stanza"
)

const (
	verMajor, verMinor = 1, 11 // of XEP-0124
	waitUnsaid         = 60 * time.Second
)

// create begins a session (XEP-0124 §7).
func (s *Server) create(c *call) {
	b := &c.body
	t := s.settings(b)
	if t == nil || b.terminates() {
		c.refuse(badRequest, len(b.ver) == 0)
		return
	}
	if !s.door.Join() {
		s.met.refused.WithLabelValues(refusedDraining).Inc()
		c.reject(http.StatusServiceUnavailable, systemShutdown)
		return
	}
	if reason := s.gate.Enter(c.addr); reason != "" {
		s.door.Leave()
		s.met.refused.WithLabelValues(string(reason)).Inc()
		status := http.StatusServiceUnavailable
		if reason == admit.Address {
			status = http.StatusTooManyRequests
		}
		c.reject(status, policyViolation)
		return
	}
	t.srv, t.addr, t.peer, t.born = s, c.addr, c.peer, s.watch.time()
	t.touched, t.lastNew = t.born, t.born
	t.sid = s.newSID()
	t.due.Store(never)
	w := c.hold(t)
	t.mu.Lock()
	t.makeSlots()
	t.next, t.newest, t.created = b.rid, b.rid, b.rid
	t.answered, t.proven, t.dropped = b.rid-1, b.rid-1, b.rid-1
	t.slots[b.rid&uint64(len(t.slots)-1)] = slot{rid: b.rid, state: waiting, live: w, hurry: true}
	t.at(b.rid).key, _ = parseKey(b.newkey)
	t.handling = true
	t.stream = s.streams.New(t, t.peer)
	s.add(t)
	t.mu.Unlock()
	t.tooLate()
	t.begin(b)
}

// tooLate ends a session that Drain or Close could not see.
func (t *transport) tooLate() {
	if t.srv.door.IsShut() {
		t.Finish(session.Restarting)
	}
}

// begin opens the stream for the request that asked for the session.
func (t *transport) begin(b *body) {
	t.in.Lock()
	defer t.in.Unlock()
	defer t.recovered()
	version := string(b.version)
	if version == "" {
		version = "1.0" // old clients do not say (XEP-0206 §3)
	}
	t.stream.Open(session.Open{To: b.elem.Attr("to"), From: b.elem.Attr("from"), Version: version, Lang: t.lang})
	t.mu.Lock()
	defer t.mu.Unlock()
	t.handling = false
	if !t.over {
		t.advance(b, 0, 0)
	}
}

// settings reads what the client asks for; nil when that is malformed.
func (s *Server) settings(b *body) *transport {
	t := &transport{hold: 1, wait: waitUnsaid, content: textXML, legacy: len(b.ver) == 0, lang: b.elem.Attr("xml:lang")}
	if b.wait != nil {
		n, ok := number(b.wait)
		if !ok {
			return nil
		}
		t.wait = time.Duration(min(n, math.MaxInt32)) * time.Second
	}
	if s.cfg.MaxWait > 0 {
		t.wait = min(t.wait, s.cfg.MaxWait)
	}
	if b.hold != nil {
		n, ok := number(b.hold)
		if !ok {
			return nil
		}
		t.hold = int(min(n, mostHeld))
	}
	if s.cfg.MaxHold > 0 {
		t.hold = min(t.hold, s.cfg.MaxHold)
	}
	t.requests = uint64(t.hold) + 1
	t.inactivity = s.cfg.Inactivity
	if t.polls() && t.inactivity > 0 {
		t.inactivity += 2 * s.cfg.Polling // XEP-0124 §12
	}
	if len(b.ver) > 0 {
		if _, _, ok := version(b.ver); !ok {
			return nil
		}
	}
	if b.content != nil {
		v, ok := contentType(b.elem.Attr("content"))
		if !ok {
			return nil
		}
		t.content = v
	}
	if b.hasAck {
		t.acks = string(b.ack) == "1"
	}
	if b.hasNewk {
		k, ok := parseKey(b.newkey)
		if !ok {
			return nil
		}
		t.keys.want = k
	}
	if len(t.lang) > 64 || b.rid+uint64(len(t.slots)) > maxRID {
		return nil
	}
	t.ver = verOf(b.ver)
	return t
}

// verOf is the lower of the client's version and ours (XEP-0124 §7.2).
func verOf(v []byte) string {
	major, minor, ok := version(v)
	if !ok || major > verMajor || major == verMajor && minor > verMinor {
		major, minor = verMajor, verMinor
	}
	return strconv.FormatUint(major, 10) + "." + strconv.FormatUint(minor, 10)
}

// newSID makes what nobody can guess (XEP-0124 §18.3).
func (s *Server) newSID() string {
	var secret [24]byte
	_, _ = rand.Read(secret[:]) // it does not fail
	sid := base64.RawURLEncoding.EncodeToString(secret[:])
	if s.cfg.Node != "" {
		sid = s.cfg.Node + "." + sid
	}
	return sid
}

// appendCreation appends what the first response says (XEP-0124 §7.2, XEP-0206 §4).
func (t *transport) appendCreation(dst []byte) []byte {
	h := t.said()
	text := func(name, value string) {
		if value == "" {
			return
		}
		dst = append(append(append(dst, ' '), name...), "='"...)
		dst = append(stanza.AppendEscaped(dst, value), '\'')
	}
	num := func(name string, n uint64) { text(name, strconv.FormatUint(n, 10)) }
	seconds := func(name string, d time.Duration) {
		if d > 0 {
			num(name, uint64(d/time.Second))
		}
	}
	text("sid", t.sid)
	num("wait", uint64(t.wait/time.Second))
	num("requests", t.requests)
	num("hold", uint64(t.hold))
	seconds("inactivity", t.inactivity)
	seconds("maxpause", t.srv.cfg.MaxPause)
	seconds("polling", t.srv.cfg.Polling)
	text("ver", t.ver)
	text("charsets", "UTF-8")
	if t.acks {
		num("ack", t.created)
	}
	text("from", h.From)
	text("authid", h.ID)
	text("xml:lang", h.Lang)
	text("xmpp:version", "1.0")
	text("xmpp:restartlogic", "true")
	text("xmlns:xmpp", nsXBOSH)
	text("xmlns:stream", stanza.NSStream)
	return dst
}
