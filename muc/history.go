package muc

import (
	"math"
	"strconv"
	"time"

	"holdfast/stanza"
)

const (
	maxHistoryBytes     = 256 << 10
	defaultHistoryCount = 25 // messages for those who do not say how many they want
)

// entry is a message that is told again to those who enter.
type entry struct {
	st      *stanza.Stanza // as it was sent to the occupants
	at      time.Time
	size    int  // of st when it was added, by which the history counts it: st grows when it is first told
	delayed bool // st has its <delay/> already
}

// told returns the message with its <delay/> (§7.2.13), which is added when it is first needed.
func (e *entry) told(room stanza.Addr) *stanza.Stanza {
	if !e.delayed {
		e.st = e.st.Rewrite(stanza.Edit{From: e.st.From, Append: stanza.DelayChild(room, e.at, "")})
		e.delayed = true
	}
	return e.st
}

// history is the last messages of a room.
type history struct {
	all   []entry
	first int // all before it are gone
	bytes int // sizes of those that are there
}

func (h *history) entries() []entry { return h.all[h.first:] }

// add appends a message and lets go of the oldest beyond the limits.
func (h *history) add(e entry, l *limits) {
	if l.History == 0 {
		return
	}
	e.size = len(e.st.Raw())
	h.all = append(h.all, e)
	h.bytes += e.size
	h.trim(l)
	if h.first > 0 && h.first >= len(h.entries()) {
		n := copy(h.all, h.entries())
		clear(h.all[n:])
		h.all, h.first = h.all[:n], 0
	}
}

// trim lets go of the oldest messages beyond the limits.
func (h *history) trim(l *limits) {
	for len(h.entries()) > l.History || h.bytes > l.HistoryBytes {
		h.bytes -= h.all[h.first].size
		h.all[h.first] = entry{}
		h.first++
	}
}

// wanted is how much of the history somebody who enters asks for (§7.2.14).
type wanted struct {
	count, chars int
	since        time.Time
}

// want reads <history/>. seconds count back from the newest message, not from now: a room that is brought back from
// its journal gives the same answer again. What cannot be read is as if it were not there.
func (r *Room) want(x stanza.Child) wanted {
	limit := r.maxHistory()
	w := wanted{count: defaultHistoryCount, chars: math.MaxInt}
	var request struct {
		History *struct {
			MaxChars   string `xml:"maxchars,attr"`
			MaxStanzas string `xml:"maxstanzas,attr"`
			Seconds    string `xml:"seconds,attr"`
			Since      string `xml:"since,attr"`
		} `xml:"http://jabber.org/protocol/muc history"`
	}
	if len(x.Inner()) > 0 && x.Decode(&request) == nil && request.History != nil {
		h := request.History
		if h.Since != "" || h.Seconds != "" || h.MaxChars != "" {
			w.count = limit
		}
		if n, err := strconv.Atoi(h.MaxStanzas); err == nil && n >= 0 {
			w.count = n
		}
		if n, err := strconv.Atoi(h.MaxChars); err == nil && n >= 0 {
			w.chars = n
		}
		entries := r.history.entries()
		if n, err := strconv.Atoi(h.Seconds); err == nil && n >= 0 && n < 1<<31 && len(entries) > 0 {
			w.since = entries[len(entries)-1].at.Add(-time.Duration(n) * time.Second)
		}
		if at, err := time.Parse(time.RFC3339, h.Since); err == nil && at.After(w.since) {
			w.since = at
		}
	}
	w.count = min(w.count, limit)
	return w
}

// tellHistory sends what somebody who enters wants of the history, oldest first.
func (r *Room) tellHistory(to stanza.Addr, w wanted) {
	entries := r.history.entries()
	from := len(entries)
	for from > 0 && len(entries)-from < w.count {
		e := &entries[from-1]
		w.chars -= len(e.told(r.addr).Raw())
		if w.chars < 0 || e.at.Before(w.since) {
			break
		}
		from--
	}
	for i := from; i < len(entries); i++ {
		st := entries[i].told(r.addr)
		r.send(st, st.From, to)
	}
}

var noSubject = stanza.New(stanza.Message, "groupchat", "", stanza.Addr{}, stanza.Addr{}, []byte("<subject/>"))

// tellSubject ends what is sent to somebody who enters (§7.2.15).
func (r *Room) tellSubject(to stanza.Addr) {
	if r.subject.st == nil {
		r.send(noSubject, r.addr, to)
		return
	}
	st := r.subject.told(r.addr)
	r.send(st, st.From, to)
}
