package bench

import (
	"bytes"
	"cmp"
	"fmt"
	"time"
)

// RoomConfig is rooms (XEP-0045): in each of them one occupant writes, and all of them get it.
type RoomConfig struct {
	First     int           // account to begin with
	Rooms     int           // 10 when 0
	Occupants int           // of each room, who writes included, 20 when 0
	Window    int           // messages of a room that are on their way at a time, 4 when 0; ignored with Rate
	Rate      float64       // messages a second in all, evenly spaced; 0 for as many as the windows let through
	Body      int           // bytes of a body, 100 when 0
	SM        bool          // XEP-0198 for everybody
	AckEvery  int           // <r/> after so many stanzas, 5 when 0
	Warmup    time.Duration // before anything is measured, 300 ms when 0
	Duration  time.Duration // that is measured, 2 s when 0

	// Host is where the rooms are, conference. before the domain when empty.
	Host string
	// Login is the mechanism, SCRAM-SHA-256 when empty.
	Login Mechanism
}

// RoomResult is what the rooms took. Its Counts are of copies: each occupant is to get each message once, in order.
type RoomResult struct {
	Counts
	Effort
	Done    int       // messages that all occupants had got, in the time measured
	Copies  int       // messages that an occupant got, in the time measured
	Latency Histogram // from the time a message was meant to be sent until the last occupant had it
}

// PerCopy is the server's CPU time for one delivered copy.
func (r *RoomResult) PerCopy() time.Duration { return r.Per(r.Copies) }

// rooms is a running conversation in all rooms. All of it belongs to the loop.
type rooms struct {
	cfg      RoomConfig
	crowd    *crowd
	all      []*room
	running  bool
	measures bool
	inside   int // occupants
	done     int // messages that all have got
	copies   int
	result   *RoomResult
}

// room is one stream of messages, and one to each occupant.
type room struct {
	rooms     *rooms
	stream    int
	occupants []*occupant // the first one writes
	letter    *letter
	missing   []int // copies of the messages on their way, by number modulo its length
}

// occupant is a client in a room.
type occupant struct {
	room   *room
	client *client
	addr   string // room@host/nick
	place  place
	ledger Ledger
}

// place is how far an occupant is: what it waits for.
type place uint8

const (
	outside  place = iota // nothing, or its own presence
	greeted               // the subject, which comes after its own presence (XEP-0045 §7.1)
	inside                // messages
	parting               // its own presence, the last one (§7.14)
	departed              // nothing any more
)

// enteringAtOnce is how many are on their way into rooms at a time.
const enteringAtOnce = 32

// Room runs the scenario.
func Room(t *Target, cfg RoomConfig) (*RoomResult, error) {
	cfg.Rooms, cfg.Occupants, cfg.Window = cmp.Or(cfg.Rooms, 10), cmp.Or(cfg.Occupants, 20), cmp.Or(cfg.Window, 4)
	cfg.Body, cfg.AckEvery = cmp.Or(cfg.Body, 100), cmp.Or(cfg.AckEvery, 5)
	cfg.Warmup, cfg.Duration = cmp.Or(cfg.Warmup, 300*time.Millisecond), cmp.Or(cfg.Duration, 2*time.Second)
	if t.Relay {
		return nil, fmt.Errorf("bench: %s: a relay has no rooms", t.Name)
	}
	cfg.Host = cmp.Or(cfg.Host, "conference."+t.Domain)
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	defer l.close()
	everybody, err := t.gather(l, cfg.First, cfg.Rooms*cfg.Occupants,
		profile{mechanism: cfg.Login, sm: cfg.SM, presence: true, ackEvery: cfg.AckEvery, together: 1})
	if err != nil {
		return nil, err
	}
	if err := everybody.login(32); err != nil {
		return nil, err
	}
	defer everybody.logout()
	r := &rooms{cfg: cfg, crowd: everybody, result: &RoomResult{}}
	for i := range cfg.Rooms {
		r.all = append(r.all, r.newRoom(i, everybody.clients[i*cfg.Occupants:(i+1)*cfg.Occupants]))
	}
	if err := r.enter(); err != nil {
		return nil, err
	}
	if err := r.run(); err != nil {
		return nil, err
	}
	if err := r.leave(); err != nil {
		return nil, err
	}
	r.result.Counts.Add(everybody.odd)
	for _, m := range r.all {
		for _, o := range m.occupants {
			r.result.Counts.Add(o.ledger.Counts())
		}
	}
	return r.result, nil
}

func (r *rooms) newRoom(i int, clients []*client) *room {
	addr := fmt.Sprintf("bench%04d@%s", i, r.cfg.Host)
	m := &room{rooms: r, stream: i, letter: groupLetter(addr, i, r.cfg.Body), missing: make([]int, 1<<14)}
	for _, one := range clients {
		o := &occupant{room: m, client: one, addr: addr + "/" + one.account.Name}
		one.onMessage, one.onPresence = o.message, o.presence
		m.occupants = append(m.occupants, o)
	}
	return m
}

// everyone is the occupants of all rooms.
func (r *rooms) everyone() (all []*occupant) {
	for _, m := range r.all {
		all = append(all, m.occupants...)
	}
	return all
}

// enter brings everybody in and waits until the server has no more to say about that.
func (r *rooms) enter() error {
	waiting := r.everyone()
	next := func() {
		if len(waiting) > 0 {
			waiting[0].enter()
			waiting = waiting[1:]
		}
	}
	total, in := len(waiting), 0
	for range min(enteringAtOnce, total) {
		next()
	}
	err := r.crowd.until(r.patience(), "entering", func() bool {
		for ; in < r.inside; in++ {
			next()
		}
		return in == total
	})
	if err != nil {
		return err
	}
	return r.crowd.loop.settle(r.crowd.target.PIDs, 5*time.Second)
}

// patience is how long all may take to enter, or to leave: each is told of to everybody in its room.
func (r *rooms) patience() time.Duration {
	told := r.cfg.Rooms * r.cfg.Occupants * r.cfg.Occupants
	return 15*time.Second + time.Duration(told)*time.Millisecond
}

// leave has everybody go, so that the rooms end.
func (r *rooms) leave() error {
	for _, o := range r.everyone() {
		o.leave()
	}
	if err := r.crowd.until(r.patience(), "leaving", func() bool { return r.inside == 0 }); err != nil {
		return err
	}
	return r.crowd.loop.settle(r.crowd.target.PIDs, 2*time.Second)
}

// run warms up, measures and waits for what is still on its way.
func (r *rooms) run() error {
	l := r.crowd.loop
	r.running = true
	if r.cfg.Rate > 0 {
		err := l.pace(r.cfg.Rate, func(i int, due int64) { r.all[i%len(r.all)].send(due) })
		if err != nil {
			return err
		}
	} else {
		for range r.cfg.Window {
			for _, m := range r.all {
				m.send(l.now())
			}
		}
	}
	if err := r.crowd.forTime(r.cfg.Warmup); err != nil {
		return err
	}
	meter, err := r.crowd.target.meter()
	if err != nil {
		return err
	}
	done, copies := r.done, r.copies
	r.measures = true
	if err := r.crowd.forTime(r.cfg.Duration); err != nil {
		return err
	}
	r.measures, r.running = false, false
	r.result.Done, r.result.Copies = r.done-done, r.copies-copies
	if r.result.Effort, err = meter.read(); err != nil {
		return err
	}
	if err := l.every(0, nil); err != nil {
		return err
	}
	// A copy that is lost makes this run out of patience; the ledgers say so.
	_ = r.crowd.until(lastPatience, "last deliveries", func() bool { return r.outstanding() == 0 })
	r.result.Unacked = r.crowd.acknowledged(lastPatience)
	return r.crowd.err
}

func (r *rooms) outstanding() (n int) {
	for _, m := range r.all {
		for _, o := range m.occupants {
			n += o.ledger.Outstanding()
		}
	}
	return n
}

// send writes a message, which is then owed to everybody in the room.
func (m *room) send(meant int64) {
	var seq uint64 // the same for all
	for _, o := range m.occupants {
		seq = o.ledger.Send()
	}
	m.missing[seq%uint64(len(m.missing))] = len(m.occupants)
	m.occupants[0].client.say(m.letter.fill(seq, meant))
}

// got counts a copy of a message that was meant to be sent at a time.
func (m *room) got(seq uint64, meant int64) {
	r := m.rooms
	r.copies++
	missing := &m.missing[seq%uint64(len(m.missing))]
	if *missing--; *missing > 0 {
		return
	}
	r.done++
	now := r.crowd.loop.now()
	if r.measures {
		r.result.Latency.Record(time.Duration(now - meant))
	}
	if r.running && r.cfg.Rate == 0 {
		m.send(now)
	}
}

func (o *occupant) enter() {
	o.client.say(fmt.Appendf(nil, "<presence xmlns='jabber:client' to='%s'>"+
		"<x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='0'/></x></presence>", o.addr))
}

func (o *occupant) leave() {
	o.place = parting
	o.client.say(fmt.Appendf(nil, "<presence xmlns='jabber:client' to='%s' type='unavailable'/>", o.addr))
}

// presence takes the presences of the room, of which only the own ones matter. Everybody gets those of all others.
func (o *occupant) presence(f []byte) {
	r := o.room.rooms
	if isError(f) {
		r.crowd.fail(fmt.Errorf("bench: %s: refused: %q", o.addr, f))
		return
	}
	if string(attr(f, "from")) != o.addr {
		return
	}
	gone := string(attr(f, "type")) == "unavailable"
	switch {
	case gone && o.place == parting:
		o.place = departed
		r.inside--
	case gone: // as if it had left
		r.crowd.stray(f)
	case o.place == outside && isOwn(f):
		o.place = greeted
	}
}

// isOwn looks for the status code of somebody's own presence (XEP-0045 §7.2.2).
func isOwn(f []byte) bool {
	return bytes.Contains(f, []byte("code='110'")) || bytes.Contains(f, []byte(`code="110"`))
}

// message takes the subject, with which an occupant is in, and then what is written.
func (o *occupant) message(f []byte) {
	r := o.room.rooms
	stream, seq, meant, ok := readLetter(f)
	switch {
	case isError(f):
		r.crowd.stray(f)
	case o.place == greeted && !ok && bytes.Contains(f, []byte("<subject")):
		o.place = inside
		r.inside++
	case !ok || stream != o.room.stream || o.place == outside || o.place == greeted:
		r.crowd.stray(f)
	case o.ledger.Deliver(seq):
		o.room.got(seq, meant)
	}
}
