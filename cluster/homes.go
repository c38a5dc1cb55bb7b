package cluster

import (
	"context"
	"errors"
	"fmt"
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
	// via is an earlier home that has messages from here which are not passed on yet, up to viaLast: until it says
	// so, senders here go on sending there. Then it is the turn of the one that they were passed on to, and so on: what
	// is sent has to go all the way that is still in use. 0 is for one to which nothing was sent since.
	via     string
	viaLast uint32

	used atomic.Int64 // when a sender last looked, or it was made, in nanoseconds
	// Of the own users:
	pinned  bool          // has sessions: the key in Redis does not expire
	until   time.Time     // of one that is not pinned: the key certainly lives until then
	leaving chan struct{} // being given up; closed when that is done
	// What a dead node had of the user is here, but its clients have to wait for what it had sent; closed then.
	inherits chan struct{}
	// The key is told one thing at a time: to live for ever, or for a while.
	pinning   int           // calls of Pin that ask Redis
	extending chan struct{} // the keeper asks Redis; closed when that is done
}

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
func (h *homes) Where(user stanza.Addr) (node string, known bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	p := h.places[user]
	switch {
	case p == nil:
		return "", false
	case p.via != "":
		return p.via, true
	case !h.knownLocked(p):
		return "", false
	}
	if time.Now().UnixNano()-p.used.Load() > int64(time.Second) {
		p.use()
	}
	return p.node, true
}

// Home is Where for what came from another node: the home itself.
func (h *homes) Home(user stanza.Addr) (node string, known bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	p := h.places[user]
	if p == nil || !h.knownLocked(p) {
		return "", false
	}
	return p.node, true
}

// knownLocked reports whether the home of a place is known.
func (h *homes) knownLocked(p *place) bool {
	return p.node != "" && (p.node != h.self || h.hereLocked(p))
}

// sent notes that a message to the user went through the link to node, if that is where such messages go now. The link
// is locked, so that nothing overtakes. passed marks what came from another node.
func (h *homes) sent(user stanza.Addr, node string, seq uint32, passed bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.places[user]
	switch {
	case p == nil:
		return false
	case passed && p.node == node:
		p.last = seq
		return true
	case passed:
		return false
	case p.via == node:
		p.viaLast = seq
	case p.via == "" && p.node == node:
		p.last = seq
	default:
		return false
	}
	p.use()
	return true
}

// homeScript returns the home of KEYS[1], and whether it was made so. With ARGV[3] 'claim', that is ARGV[1] from now on if
// there is none, or only ARGV[4], which is not a member any more. A home that asks for itself finds a key that lives for
// another ARGV[2] milliseconds, unless ARGV[5] says that it knows better.
var homeScript = redis.NewScript(`
local home = redis.call('GET', KEYS[1])
if ARGV[3] == 'claim' and (not home or home == ARGV[4]) then
	redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
	return {ARGV[1], 'made'}
end
if home == ARGV[1] and ARGV[5] ~= 'elsewhere' and redis.call('PTTL', KEYS[1]) >= 0 then
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
		node, made, err := h.ask(ctx, user, claim, gone)
		if err != nil {
			return "", err
		}
		lives, err := h.lives(ctx, node)
		switch {
		case err != nil:
			return "", err
		case lives && h.learn(user, node, made, start, turn):
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
		node, err := cmd.Result()
		if errors.Is(err, redis.Nil) {
			nowhere = append(nowhere, users[i])
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cluster: homes of users: %w", err)
		}
		lives, err := h.lives(ctx, node)
		if err != nil {
			return nil, err
		}
		if lives && node != h.self {
			h.learn(users[i], node, false, start, 0)
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
func (h *homes) ask(ctx context.Context, user stanza.Addr, claim bool, gone string) (node string, made bool, err error) {
	verb, where := "ask", ""
	if claim {
		verb = "claim"
	}
	h.mu.RLock()
	if p := h.places[user]; p != nil && p.node != "" && p.node != h.self {
		where = "elsewhere" // a key that names this node is one that the home has not changed yet
	}
	h.mu.RUnlock()
	said, err := homeScript.Run(ctx, h.rdb, []string{h.key(user.String())}, h.self, h.ttl().Milliseconds(), verb, gone, where).StringSlice()
	switch {
	case errors.Is(err, redis.Nil):
		return "", false, ErrNowhere
	case err != nil:
		return "", false, fmt.Errorf("cluster: home of user: %w", err)
	}
	return said[0], said[1] == "made", nil
}

// learn notes what Redis said when it was asked, or was made to say. It reports false when that may not be so any more.
func (h *homes) learn(user stanza.Addr, node string, made bool, asked time.Time, turn uint64) bool {
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
		if p.via == "" && p.node != "" && p.underWay(p.node, 0) {
			p.via, p.viaLast = p.node, p.last
		}
		h.away--
	}
	p.node, p.last, p.trails = node, 0, false
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

func (h *homes) evictLocked() {
	if h.cfg.Locations == 0 || h.away <= h.cfg.Locations {
		return
	}
	tries := 0
	for user, p := range h.places { // in no order, which is as good as any
		if tries++; tries > 16 {
			return
		}
		if p.node != h.self && time.Since(p.usedAt()) > max(idle, 6*h.cfg.Lease) {
			delete(h.places, user)
			h.away--
		}
	}
}

// take makes this node the home of a user whom from handed over; seen is how far from had got in what this node sent
// it. pins says that Pin will be called for it. Under the user's lock.
func (h *homes) take(user stanza.Addr, from string, seen uint32, pins bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.places[user]
	if p == nil {
		p = new(place)
		h.places[user] = p
	} else if p.node != h.self {
		h.away--
	}
	inherits := h.estates[from]
	switch {
	case p.via != "":
	case p.node != h.self && p.underWay(from, seen):
		p.via, p.viaLast = p.node, p.last
	case inherits != nil:
		// What others sent to the dead node is still in its mailbox. Of their sessions some may be here by now: what
		// they send goes the same way.
		p.via, p.viaLast = from, 0
	}
	p.node, p.last, p.trails, p.pinned = h.self, 0, false, true
	p.inherits = inherits
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

// gave notes that a user was handed over to node, in the link's message seq. Under the user's and the link's locks.
func (h *homes) gave(user stanza.Addr, node string, seq uint32) {
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
	p.node, p.last, p.trails, p.pinned = node, seq, false, false
	delete(h.unsaid, user)
	p.use()
	h.evictLocked()
}

// Moved takes the word of from that it has passed on, to the user's home node, everything that went to it up to seq.
func (h *homes) Moved(user stanza.Addr, from, node string, seq uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.places[user]
	switch {
	case p == nil:
	case p.via == from:
		if p.viaLast == 0 || int32(p.viaLast-seq) > 0 {
			return // said before what was sent last
		}
		if node != h.self && node != p.node {
			p.via, p.viaLast = node, 0
			return
		}
		h.directLocked(user, p)
	case p.node == from && p.last != 0 && int32(p.last-seq) <= 0:
		if node == h.self {
			delete(h.places, user) // it will come, or has been here; Locate knows
			h.away--
			return
		}
		p.node, p.last, p.trails = node, 0, true
	}
}

// directLocked has senders here send to the home itself from now on. What was passed on to it is in its mailbox, or was
// carried out here.
func (h *homes) directLocked(user stanza.Addr, p *place) {
	p.via, p.viaLast = "", 0
	switch p.node {
	case h.self:
	case "":
		delete(h.places, user)
		h.away--
	default:
		p.last, p.trails = 0, true
	}
}

// dead says that a node is dead and buried: the homes of its users have to be found out. Senders here still go by its
// link, until what waits there has gone elsewhere.
func (h *homes) dead(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.places {
		if p.node == node {
			if p.via == "" {
				p.via, p.viaLast = node, p.last
			}
			p.node, p.last, p.trails = "", 0, false
		}
	}
}

// buried ends that.
func (h *homes) buried(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for user, p := range h.places {
		if p.node == node {
			p.node, p.last, p.trails = "", 0, false
		}
		switch {
		case p.via == node:
			h.directLocked(user, p)
		case p.via == "" && p.node == "":
			delete(h.places, user)
			h.away--
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
