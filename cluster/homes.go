package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"holdfast/stanza"
)

var (
	// ErrUnlocated says that it is not known who serves the user: Locate finds out, with nothing locked.
	ErrUnlocated = errors.New("cluster: home of the user not known")
	// ErrNowhere says that no node serves the user.
	ErrNowhere = errors.New("cluster: the user has no home")
)

// place is what this node knows of where a user is served.
type place struct {
	node string // the home; the own id here, "" when it has to be found out
	last uint32 // newest message to the user that went to node through this node's link, 0 for none
	// trails: what senders here sent to an earlier home may still be in the mailbox of node, and while last is 0 nothing
	// that could be counted is behind it.
	trails bool
	term   uint64 // of the home, TermUnknown when that is not known
	// Earlier homes that have messages from here, in the order in which they were that.
	detours []detour

	hold   chan struct{} // senders here have to wait; closed then. See Node.follow
	leaves bool          // Node.leaveWay is at it

	used atomic.Int64 // when a sender last looked, or it was made, in nanoseconds
	// Of the own users:
	since   time.Time     // when it came
	pinned  bool          // has sessions: the key in Redis does not expire
	until   time.Time     // of one that is not pinned: the key certainly lives until then
	leaving chan struct{} // being given up; closed when that is done
	// What a dead node had of the user is here, but its clients have to wait for what it had sent; closed then.
	inherits chan struct{}
	// The key is told one thing at a time: to live for ever, or for a while.
	pinning   int           // calls of Pin that ask Redis
	extending chan struct{} // the keeper asks Redis; closed when that is done
}

// detour is an earlier home that has messages from here which are not passed on yet: until it says so, what comes behind
// them goes there too. Then it is the turn of the one that they were passed on to, and so on: what is sent has to go all
// the way that is still in use.
type detour struct {
	via   string
	term  uint64 // in which via was the home, TermUnknown when that is not known
	last  uint32 // newest message that went there, 0 when nothing was sent since
	until uint64 // what was sent to an earlier term goes this way
}

// Move is the word of the node From that it has passed on what it got up to Seq for its term Was: to Node, for that one's
// Term.
type Move struct {
	From string
	Was  uint64
	Seq  uint32
	Node string
	Term uint64
}

// What goes by an earlier home whose term is not known counts how often it did, in place of a term, which are larger numbers:
// there it is behind all that went there for whatever term.
const maxRounds = 64

// termUnsure is the term of what goes to a home whose term is not known.
const termUnsure = TermHome - 1

// detoursAtMost bounds what is remembered of a user who goes to and fro faster than messages do.
const detoursAtMost = 16

func (p *place) addDetour(d detour) {
	if n := len(p.detours); n >= detoursAtMost {
		p.detours[n-1].until = d.until // it is the longer way
		return
	}
	p.detours = append(p.detours, d)
}

// next returns where a message goes that was sent to a term: by a detour, or else to the home.
func (p *place) next(term uint64) (node string, of uint64, by *detour) {
	for i := range p.detours {
		if d := &p.detours[i]; term < d.until {
			return d.via, d.term, d
		}
	}
	return p.node, p.term, nil
}

// nextTerm is a number for the user's next home. Where none of the earlier ones is known the clock has to do.
func (p *place) nextTerm() uint64 { return max(p.term+1, uint64(time.Now().UnixMicro())) }

func (p *place) use() { p.used.Store(time.Now().UnixNano()) }

func (p *place) usedAt() time.Time { return time.Unix(0, p.used.Load()) }

// homes is the table of places, and the keys in Redis behind it.
type homes struct {
	// static
	self string
	cfg  Config
	rdb  redis.UniversalClient
	key  func(user string) string
	// lives reports whether a node is a member, asking Redis when this node has not heard of it.
	lives func(ctx context.Context, node string) (bool, error)

	loose chan stanza.Addr // users who lost their last session

	mu     sync.RWMutex
	places map[stanza.Addr]*place // by bare address
	// Whom others handed over to this node, while the key in Redis does not say so yet.
	unsaid map[stanza.Addr]struct{}
	away   int // of which other nodes' users
	// By dead node, while it is adopted: see place.inherits.
	estates map[string]chan struct{}
	// How often own users ceased to be, so that what Redis said before is old news.
	turns uint64
}

func newHomes(self string, cfg Config, rdb redis.UniversalClient, key func(string) string, lives func(context.Context, string) (bool, error)) *homes {
	return &homes{self: self, cfg: cfg, rdb: rdb, key: key, lives: lives, loose: make(chan stanza.Addr, 4096), places: make(map[stanza.Addr]*place), unsaid: make(map[stanza.Addr]struct{}), estates: make(map[string]chan struct{})}
}

// Here reports whether this node is the home of a user. It is asked under the user's lock, under which homes come and go.
func (h *homes) Here(user stanza.Addr) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	p := h.places[user]
	return p != nil && h.hereLocked(p)
}

func (h *homes) hereLocked(p *place) bool {
	return p.node == h.self && p.leaving == nil && (p.pinned || time.Now().Before(p.until))
}

// Where says to which node what a sender here has for a user is to go: the home, or an earlier one that still has to
// pass on what was sent before. known is false when that has to be found out.
func (h *homes) Where(user stanza.Addr) (node string, known bool) { return h.next(user, TermUnknown) }

// next is Where for what was sent to a term.
func (h *homes) next(user stanza.Addr, term uint64) (node string, known bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	p := h.places[user]
	if p == nil {
		return "", false
	}
	return h.nextLocked(p, term)
}

func (h *homes) nextLocked(p *place, term uint64) (node string, known bool) {
	node, _, by := p.next(term)
	switch {
	case by != nil:
		return node, true
	case !h.knownLocked(p):
		return "", false
	}
	if term == TermUnknown && time.Now().UnixNano()-p.used.Load() > int64(time.Second) {
		p.use()
	}
	return node, true
}

// nextTerm is a number for the term of the node that a user is handed over to.
func (h *homes) nextTerm(user stanza.Addr) uint64 {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if p := h.places[user]; p != nil {
		return p.nextTerm()
	}
	return new(place).nextTerm()
}

// termHere is the term of a user whose home this node is, or was before the user moved on.
func (h *homes) termHere(user stanza.Addr) uint64 {
	h.mu.RLock()
	defer h.mu.RUnlock()
	switch p := h.places[user]; {
	case p == nil || p.term == TermUnknown:
		return TermUnknown
	case p.node == h.self:
		return p.term
	default:
		return p.term - 1 // it gave the next home a greater one
	}
}

// knownLocked reports whether the home of a place is known.
func (h *homes) knownLocked(p *place) bool {
	return p.node != "" && (p.node != h.self || h.hereLocked(p))
}

// sent notes that a message to the user, sent to a term, goes through the link to node, if that is where such messages go
// now, and returns the term that it goes with. The link is locked, so that nothing overtakes.
func (h *homes) sent(user stanza.Addr, node string, seq uint32, term uint64) (of uint64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.places[user]
	if p == nil {
		return 0, false
	}
	to, of, by := p.next(term)
	switch {
	case to != node:
		return 0, false
	case by != nil:
		by.last = seq
	default:
		p.last = seq
	}
	if term == TermUnknown {
		p.use()
	}
	return passes(term, of, by), true
}

// passes returns the term that something goes with which was sent to one: for of, by a detour or to the home.
func passes(term, of uint64, by *detour) uint64 {
	switch {
	case term == TermUnknown:
		return of
	case term == TermHome:
		return TermHome
	case of != TermUnknown && (by == nil || of > term):
		return of
	case of == TermUnknown && by == nil:
		return termUnsure
	case of == TermUnknown && term < maxRounds-1:
		return term + 1
	default:
		return TermHome // with ever higher terms it comes to an end, without it might go round for ever
	}
}

// A home's key says the node and its term. The scripts below begin with this.
const luaHome = `
local function node(home) return home and string.match(home, '^%S+') end
local function term(home) return home and tonumber(string.match(home, ' (%d+)$')) or 0 end
local function says(node, term) return node .. ' ' .. string.format('%.0f', term) end
local home = redis.call('GET', KEYS[1])
`

// cutHome reads what a home's key says.
func cutHome(value string) (node string, term uint64) {
	node, text, _ := strings.Cut(value, " ")
	term, _ = strconv.ParseUint(text, 10, 64)
	return node, term
}

// homeScript returns the home of KEYS[1], and whether it was made so. With ARGV[3] 'claim', that is ARGV[1] from now on if
// there is none, or only ARGV[4], which is not a member any more; its term is greater than ARGV[6]. A home that asks for
// itself finds a key that lives for another ARGV[2] milliseconds, unless ARGV[5] says that it knows better. One clock for all
// claims, that of Redis, has the terms grow where the earlier ones are forgotten.
var homeScript = redis.NewScript(luaHome + `
if ARGV[3] == 'claim' and (not home or node(home) == ARGV[4]) then
	local t = redis.call('TIME')
	local own = says(ARGV[1], math.max(t[1] * 1000000 + t[2], term(home) + 1, ARGV[6] + 1))
	redis.call('SET', KEYS[1], own, 'PX', ARGV[2])
	return {own, 'made'}
end
if node(home) == ARGV[1] and ARGV[5] ~= 'elsewhere' and redis.call('PTTL', KEYS[1]) >= 0 then
	redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return home and {home, ''}`)

// Locate finds out who serves a user. With claim, a user whom nobody serves is this node's from now on; without,
// ErrNowhere says that. It asks Redis, so nothing may be locked.
func (h *homes) Locate(ctx context.Context, user stanza.Addr, claim bool) error {
	for {
		h.mu.Lock()
		p := h.places[user]
		if p != nil && p.leaving != nil {
			left := p.leaving
			h.mu.Unlock()
			select {
			case <-left:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if p != nil && h.knownLocked(p) {
			p.use()
			h.mu.Unlock()
			return nil
		}
		h.mu.Unlock()
		_, err := h.resolve(ctx, user, claim)
		return err
	}
}

// Claim returns the user's home as it is now, which is this node when there was none.
func (h *homes) Claim(ctx context.Context, user stanza.Addr) (string, error) {
	return h.resolve(ctx, user, true)
}

// resolve asks Redis for a user's home, and remembers it.
func (h *homes) resolve(ctx context.Context, user stanza.Addr, claim bool) (string, error) {
	for gone := ""; ; {
		h.mu.RLock()
		turn := h.turns
		h.mu.RUnlock()
		start := time.Now()
		node, term, made, err := h.ask(ctx, user, claim, gone)
		if err != nil {
			return "", err
		}
		lives, err := h.lives(ctx, node)
		switch {
		case err != nil:
			return "", err
		case lives && h.learn(user, node, term, made, start, turn):
			return node, nil
		case lives:
			continue
		case node == gone && !claim:
			return "", ErrNowhere
		}
		// Its estate has been worked off, so it left nothing of this user; but its heir may have been quicker.
		gone = node
	}
}

// LocateAll is Locate without claim for many users at once; it returns those whom nobody serves.
func (h *homes) LocateAll(ctx context.Context, users []stanza.Addr) (nowhere []stanza.Addr, err error) {
	pipe := h.rdb.Pipeline()
	cmds := make([]*redis.StringCmd, len(users))
	for i, user := range users {
		cmds[i] = pipe.Get(ctx, h.key(user.String()))
	}
	start := time.Now()
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("cluster: homes of users: %w", err)
	}
	for i, cmd := range cmds {
		value, err := cmd.Result()
		if errors.Is(err, redis.Nil) {
			nowhere = append(nowhere, users[i])
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cluster: homes of users: %w", err)
		}
		node, term := cutHome(value)
		lives, err := h.lives(ctx, node)
		if err != nil {
			return nil, err
		}
		if lives && node != h.self {
			h.learn(users[i], node, term, false, start, 0)
			continue
		}
		// One at a time: the key may be about to expire, or name another home by now.
		switch _, err = h.resolve(ctx, users[i], false); {
		case errors.Is(err, ErrNowhere):
			nowhere = append(nowhere, users[i])
		case err != nil:
			return nil, err
		}
	}
	return nowhere, nil
}

func (h *homes) ttl() time.Duration { return 3 * h.cfg.HomeTime }

// ask reads the user's key, and with claim sets it where there is none, or where gone is the home; made says that it did.
func (h *homes) ask(ctx context.Context, user stanza.Addr, claim bool, gone string) (node string, term uint64, made bool, err error) {
	verb, where, least := "ask", "", TermUnknown
	if claim {
		verb = "claim"
	}
	h.mu.RLock()
	if p := h.places[user]; p != nil {
		least = p.term
		if p.node != "" && p.node != h.self {
			where = "elsewhere" // a key that names this node is one that the home has not changed yet
		}
	}
	h.mu.RUnlock()
	said, err := homeScript.Run(ctx, h.rdb, []string{h.key(user.String())}, h.self, h.ttl().Milliseconds(), verb, gone, where, least).StringSlice()
	switch {
	case errors.Is(err, redis.Nil):
		return "", 0, false, ErrNowhere
	case err != nil:
		return "", 0, false, fmt.Errorf("cluster: home of user: %w", err)
	}
	node, term = cutHome(said[0])
	return node, term, said[1] == "made", nil
}

// learn notes what Redis said when it was asked, or was made to say. It reports false when that may not be so any more.
func (h *homes) learn(user stanza.Addr, node string, term uint64, made bool, asked time.Time, turn uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.places[user]
	switch {
	case p != nil && (p.leaving != nil || h.knownLocked(p) && (p.node == h.self || !made)):
		return true // somebody else was quicker, or it came here meanwhile, or has been handed over and Redis does not say so yet
	case node == h.self && turn != h.turns:
		return false // it may have been given up since
	case p == nil:
		p = new(place)
		h.places[user] = p
	case p.node != h.self:
		// A node that was the user's home, and is not any more, may have something from here yet.
		if len(p.detours) == 0 && p.node != "" && p.underWay(p.node, 0) {
			p.addDetour(detour{p.node, p.term, p.last, TermPassed})
		}
		h.away--
	}
	switch {
	case node != h.self:
	case p.node == h.self:
		term = max(term, p.term)
	default:
		p.since = time.Now()
	}
	p.node, p.term, p.last, p.trails = node, term, 0, false
	p.use()
	if node == h.self {
		p.until = asked.Add(h.cfg.HomeTime)
		return true
	}
	h.away++
	h.evictLocked()
	return true
}

// idle is how long nothing must have gone to a user of another node before that is forgotten: by then it has been
// carried out or its node has been found dead, so that nothing can overtake it.
const idle = 30 * time.Second

// lately is idle, and longer where it takes longer to find a node dead.
func (c *Config) lately() time.Duration { return max(idle, 6*c.Lease) }

func (h *homes) evictLocked() {
	if h.cfg.Locations == 0 || h.away <= h.cfg.Locations {
		return
	}
	tries := 0
	for user, p := range h.places { // in no order, which is as good as any
		if tries++; tries > 16 {
			return
		}
		if p.node != h.self && time.Since(p.usedAt()) > h.cfg.lately() {
			delete(h.places, user)
			h.away--
		}
	}
}

// take makes this node the home of a user whom from handed over, or had when it died; seen is how far from had got in
// what this node sent it, 0 when something of that may be on its way round. The term is the one that from gave, or
// TermUnknown for a new one. pins says that Pin will be called for it. Under the user's lock.
func (h *homes) take(user stanza.Addr, from string, seen uint32, term uint64, pins bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.places[user]
	if p == nil {
		p = new(place)
		h.places[user] = p
	} else if p.node != h.self {
		h.away--
	}
	if term == TermUnknown {
		term = p.nextTerm()
	}
	inherits := h.estates[from]
	switch {
	case p.node != h.self && p.underWay(from, seen):
		p.addDetour(detour{p.node, p.term, p.last, term})
	case inherits != nil:
		// What others sent to the dead node is still in its mailbox. Of their sessions some may be here by now: what
		// they send goes the same way.
		p.addDetour(detour{via: from, until: term})
	}
	p.node, p.term, p.last, p.trails, p.pinned = h.self, term, 0, false, true
	p.inherits, p.since = inherits, time.Now()
	if pins {
		h.unsaid[user] = struct{}{}
	}
	p.use()
}

// beginInherit has clients of the users who come from a dead node wait until endInherit.
func (h *homes) beginInherit(dead string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.estates[dead] = make(chan struct{})
}

func (h *homes) endInherit(dead string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if all := h.estates[dead]; all != nil {
		close(all)
		delete(h.estates, dead)
	}
}

// underWay reports whether something that was sent to the place, or came there from an earlier one, is to be passed on
// yet, as the user comes from the node from. seen is how far that had got in what this node sent it, 0 when it is dead.
func (p *place) underWay(from string, seen uint32) bool {
	if p.last == 0 {
		return p.trails
	}
	return p.node != from || seen == 0 || int32(p.last-seen) > 0
}

// gave notes that a user was handed over to node for a term. Under the user's and the link's locks.
func (h *homes) gave(user stanza.Addr, node string, term uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.places[user]
	if p == nil {
		return
	}
	if p.node == h.self {
		h.away++
		h.turns++
	}
	p.node, p.term, p.last, p.trails, p.pinned = node, term, 0, false, false
	delete(h.unsaid, user)
	p.use()
	h.evictLocked()
}

// Moved takes another node's word. It reports whether that came too late, after more was sent the same
// way, and it is the caller's to see to that until leftWay.
func (h *homes) Moved(user stanza.Addr, m Move) (late bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.places[user]
	if p == nil {
		return false
	}
	if m.Term >= termUnsure {
		m.Term = TermUnknown
	}
	passed := func(node string, last uint32, was bool) bool {
		if node != m.From || last == 0 || !was {
			return false
		}
		newer := int32(last-m.Seq) > 0 // it was said before what was sent last
		late = late || newer
		return !newer
	}
	if passed(p.node, p.last, p.term == m.Was || p.term == TermUnknown && m.Was == termUnsure) {
		p.node, p.term, p.last, p.trails = m.Node, m.Term, 0, true
		if m.Node == h.self { // it will come, or has been here; Locate knows
			p.node, p.term, p.trails = "", TermUnknown, false
			h.dropLocked(user, p)
		}
	}
	known := func(node string, term uint64) bool { return node == m.Node && term == m.Term }
	had := len(p.detours)
	for i := 0; i < len(p.detours); {
		switch d := &p.detours[i]; {
		case !passed(d.via, d.last, d.term == m.Was || d.term == TermUnknown && m.Was < maxRounds):
			i++
		case m.Node == h.self, known(p.node, p.term), i+1 < len(p.detours) && known(p.detours[i+1].via, p.detours[i+1].term):
			p.detours = slices.Delete(p.detours, i, i+1)
		default:
			d.via, d.term, d.last = m.Node, m.Term, 0
			i++
		}
	}
	if had > 0 {
		h.directLocked(user, p)
	}
	if !late || p.leaves {
		return false
	}
	p.leaves = true
	return true
}

// leftWay is the end of what Moved was late for.
func (h *homes) leftWay(user stanza.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.places[user]; p != nil {
		p.leaves = false
	}
}

// directLocked has senders here send to the home itself from now on, if there is no detour any more. What was passed on
// to it is in its mailbox, or was carried out here.
func (h *homes) directLocked(user stanza.Addr, p *place) {
	switch {
	case len(p.detours) > 0:
	case p.node == "":
		h.dropLocked(user, p)
	default:
		p.detours = nil
		if p.node != h.self {
			p.last, p.trails = 0, true
		}
	}
}

// dropLocked forgets a place that says nothing.
func (h *homes) dropLocked(user stanza.Addr, p *place) {
	if p.node == "" && len(p.detours) == 0 && h.places[user] == p {
		delete(h.places, user)
		h.away--
	}
}

// dead says that a node is dead and buried: the homes of its users have to be found out. Senders here still go by its
// link, until what waits there has gone elsewhere.
func (h *homes) dead(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.places {
		if p.node == node {
			if len(p.detours) == 0 {
				p.addDetour(detour{node, p.term, p.last, TermPassed})
			}
			p.node, p.term, p.last, p.trails = "", TermUnknown, 0, false
		}
	}
}

// buried ends that.
func (h *homes) buried(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for user, p := range h.places {
		if p.node == node {
			p.node, p.term, p.last, p.trails = "", TermUnknown, 0, false
		}
		had := len(p.detours)
		p.detours = slices.DeleteFunc(p.detours, func(d detour) bool { return d.via == node })
		if len(p.detours) < had {
			h.directLocked(user, p)
		} else {
			h.dropLocked(user, p)
		}
	}
}

// Counts returns how many users this node is the home of, how many of them have no sessions, and of how many it knows
// another home.
func (h *homes) Counts() (here, idle, away int) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, p := range h.places {
		if p.node == h.self {
			here++
			if !p.pinned {
				idle++
			}
		}
	}
	return here, idle, h.away
}
