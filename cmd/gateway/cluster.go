package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"holdfast/cluster"
	"holdfast/internal/journal"
	"holdfast/internal/redisx"
	"holdfast/internal/sqlx"
	"holdfast/offline"
	"holdfast/packetcache"
	"holdfast/resume"
	"holdfast/session"
	"holdfast/stanza"
)

// This file fits a node of a cluster together: what package cluster is for session, and what the rooms are for it.

// errFenced ends a process that the others have taken for dead. Its exit code is 3.
var errFenced = errors.New("other gateways have taken over what this one had (it was paused or cut off for longer than " + prefix + "CLUSTER_LEASE); it has to be started again")

// member is this process as one of a cluster.
type member struct {
	cfg   *Config
	rdb   redis.UniversalClient
	keys  redisx.Keys
	node  *cluster.Node
	store *resume.Redis
	log   *slog.Logger

	started atomic.Bool
}

// mine makes this node the home of a user who has none, and reports whether it is.
func (m *member) mine(ctx context.Context, user stanza.Addr) bool {
	return m.started.Load() && m.node.Locate(ctx, user, true) == nil && m.node.Here(user)
}

// joinCluster prepares what a node needs in Redis. Nobody hears of it before start.
func joinCluster(ctx context.Context, cfg *Config, k *kept, log *slog.Logger, reg prometheus.Registerer) (*member, error) {
	rdb, err := redisx.Open(cfg.Redis, log)
	if err != nil {
		return nil, err
	}
	m := &member{cfg: cfg, rdb: rdb, keys: cfg.Redis.Keys(), log: log}
	id := cluster.NewID()
	if m.store, err = resume.OpenRedis(ctx, cfg.ResumeRedis.With(cfg.Resume, cfg.Redis), rdb, m.keys, id, log, reg); err != nil {
		return nil, errors.Join(err, rdb.Close())
	}
	if err := k.join(ctx, id); err != nil {
		return nil, errors.Join(err, m.store.Close(), rdb.Close())
	}
	m.store.Witness(func(ctx context.Context) error {
		err := k.stands(ctx)
		if errors.Is(err, sqlx.ErrFenced) {
			err = resume.ErrFenced
		}
		return err
	})
	settings := cfg.Cluster
	settings.Doubt = resume.VouchTime
	m.node = cluster.New(settings, id, rdb, m.keys, log, reg)
	return m, nil
}

// packetCache is where a node's packet cache has its checkpoints.
func (m *member) packetCache(node string) packetcache.Store {
	return packetcache.NewRedis(m.rdb, m.keys, node)
}

// start enters the cluster.
func (m *member) start(ctx context.Context, g *gateway) error {
	defer m.started.Store(true)
	return m.node.Start(ctx, cluster.Parts{
		Journal: m.store, Receiver: receiver{g.sessions}, Ords: g.sessions.NextOrd, Callee: callee{g.bosh, g.sessions},
		Heir: &heir{
			store: m.store, kept: g.kept, sv: g.sessions, box: g.box, cache: g.cache, left: m.packetCache, node: m.node,
			behind: g.behind(),
			taken:  make(map[string]bool), awaiting: make(map[string][]stanza.Addr),
		},
	})
}

// fenced is closed when others have taken this node for dead; it is nil on one machine.
func (m *member) fenced() <-chan struct{} {
	if m == nil {
		return nil
	}
	return m.node.Fenced()
}

// healthy says why the other nodes hear nothing of this one, or nil; so it does on one machine.
func (m *member) healthy() error {
	if m == nil {
		return nil
	}
	return m.node.Healthy()
}

// leave gives the sessions to whoever is left. What comes in from now on is in the journal, for them too. A node that
// has nothing for others leaves nothing behind.
func (m *member) leave(ctx context.Context, g *gateway) error {
	err := m.node.Leave(ctx)
	written := m.store.Appended()
	err = errors.Join(err, m.store.Checkpoint(ctx, live{g.sessions}, g.behind()...))
	m.node.Close()
	if err == nil && g.sessions.Empty() && g.cache.Len() == 0 && m.store.Appended() == written {
		ended, err := m.node.End(ctx)
		if ended || err != nil {
			return errors.Join(err, m.store.Close(), g.kept.fence(ctx, m.node.ID()), m.rdb.Close())
		}
	}
	return errors.Join(err, m.store.Leave(ctx), m.node.Left(ctx), m.rdb.Close())
}

// others is package cluster for session.
type others struct{ *cluster.Node }

func (o others) Locate(ctx context.Context, user stanza.Addr, claim bool) error {
	return homeError(o.Node.Locate(ctx, user, claim))
}

func (o others) Forward(user stanza.Addr, m session.Message, from session.Origin) (string, uint64, error) {
	node, term, err := o.Node.Forward(user, cluster.Message(m), cluster.Origin(from))
	return node, term, homeError(err)
}

func (o others) ForwardTo(node string, user stanza.Addr, m session.Message, from session.Origin) error {
	return homeError(o.Node.ForwardTo(node, user, cluster.Message(m), cluster.Origin(from)))
}

func (o others) HandOver(node string, user stanza.Addr, m session.Message) error {
	return homeError(o.Node.HandOver(node, user, cluster.Message(m)))
}

func (o others) Tell(node string, m session.Message) bool {
	return o.Node.Tell(node, cluster.Message(m))
}

func (o others) Moved(user stanza.Addr, m session.Move) { o.Node.Moved(user, cluster.Move(m)) }

func (o others) Park(user stanza.Addr, m session.Message, from session.Origin) (bool, error) {
	return o.Node.Park(user, cluster.Message(m), cluster.Origin(from))
}

func (o others) Pin(ctx context.Context, user stanza.Addr, from string) error {
	return homeError(o.Node.Pin(ctx, user, from))
}

func homeError(err error) error {
	switch {
	case errors.Is(err, cluster.ErrUnlocated):
		return session.ErrUnlocated
	case errors.Is(err, cluster.ErrNowhere):
		return session.ErrNowhere
	}
	return err
}

// receiver is session for package cluster.
type receiver struct{ *session.Service }

func (r receiver) Receive(ctx context.Context, link string, m cluster.Message) error {
	return r.Service.Receive(ctx, link, session.Message(m))
}

func (r receiver) Reroute(ctx context.Context, user stanza.Addr, m cluster.Message, o cluster.Origin) error {
	return r.Service.Reroute(ctx, user, session.Message(m), session.Origin(o))
}

// moving is what goes along with a user from one node to another.
type moving struct {
	box     *offline.Mailbox
	cache   *packetcache.Cache
	rosters contacts
}

func (m moving) TakeOut(user stanza.Addr) []journal.Await {
	entries := m.cache.TakeOut(user)
	out := make([]journal.Await, len(entries))
	for i, e := range entries {
		out[i] = journal.Await(e)
	}
	return out
}

func (m moving) PutIn(awaited []journal.Await) {
	for _, a := range awaited {
		m.cache.Restore(packetcache.Entry(a))
	}
}

func (m moving) Awaits(user stanza.Addr) bool { return m.cache.Holds(user) }

func (m moving) Release(ctx context.Context, user stanza.Addr) error {
	if err := m.box.Release(ctx, user); err != nil {
		return err
	}
	m.rosters.Service.Forget(user)
	return nil
}

// heir takes over what dead nodes leave, as a process that starts takes up what an earlier one left.
type heir struct {
	store *resume.Redis
	kept  *kept
	sv    *session.Service
	box   *offline.Mailbox
	cache *packetcache.Cache
	left  func(dead string) packetcache.Store // what a dead node's packet cache had stored
	node  *cluster.Node
	// behind is what checkpoints of this node have to wait for.
	behind []resume.Flusher

	mu sync.Mutex
	// taken names the dead nodes whose sessions are in this node's checkpoints while the rest of the estate is not
	// worked off.
	taken map[string]bool
	// awaiting names for whom the dead nodes' messages await their receipts, until the nodes are buried.
	awaiting map[string][]stanza.Addr
}

// takenMark is what a checkpoint says of such a node.
const takenMark = "taken:"

// Fence keeps the dead node from Redis and from the database, whose writes of it that are under way are waited for.
func (h *heir) Fence(ctx context.Context, dead, instead string) (string, error) {
	holder, err := h.store.Fence(ctx, dead, h.node.ID(), instead)
	if err == nil && holder == h.node.ID() {
		err = h.kept.fence(ctx, dead)
	}
	return holder, err
}

// Adopt takes over sessions, counters, queues, links and awaited receipts of a dead node, and makes sure that its last
// writes are in the kept stores. Everything is in this node's stores before anybody finds it.
func (h *heir) Adopt(ctx context.Context, dead string) (cluster.Estate, error) {
	rec, meta, err := h.store.Load(ctx, dead)
	if err != nil {
		return cluster.Estate{}, err
	}
	var estate cluster.Estate
	for name := range meta {
		if of, ok := cutPrefix(name, takenMark); ok {
			h.mark(of)
			estate.Adopted = append(estate.Adopted, of)
		}
	}
	var inherited *session.Inheritance
	if !h.isTaken(dead) {
		all := make([]session.Restored, 0, len(rec.Sessions)+len(rec.Links))
		for _, s := range append(rec.Links, rec.Sessions...) {
			all = append(all, session.Restored{State: s.State, Handled: s.Handled, Acked: s.Acked, Queue: s.Queue})
		}
		if inherited, err = h.sv.Inherit(dead, all, func() { h.mark(dead) }); err != nil {
			return estate, err
		}
	}
	awaiting, err := h.effects(ctx, dead, rec.Effects)
	if err == nil {
		err = h.store.Checkpoint(ctx, live{h.sv}, h.behind...)
	}
	if err != nil {
		if inherited != nil {
			inherited.Discard(func() { h.unmark(dead) })
		}
		return estate, fmt.Errorf("estate of %s: %w", dead, err)
	}
	if inherited != nil {
		estate.Users = inherited.Publish()
	}
	h.mu.Lock()
	h.awaiting[dead] = awaiting
	h.mu.Unlock()
	for _, f := range rec.Unsent {
		estate.Unsent = append(estate.Unsent, cluster.Unsent{
			To: f.To, User: f.User, Message: cluster.Message{Op: f.Op, Seq: f.Seq, Term: f.Term, User: f.User.String(), Payload: f.Payload},
		})
	}
	return estate, nil
}

// effects brings the kept stores and the packet cache to where the dead node's journal says they are. It returns for
// whom messages await their receipts.
func (h *heir) effects(ctx context.Context, dead string, effects []resume.Effect) ([]stanza.Addr, error) {
	// The dead node's entries first by themselves: what the journal says of a user does not concern the user's
	// entries at the present home.
	entries := make(map[stanza.ID]packetcache.Entry)
	err := h.left(dead).Load(ctx, func(e packetcache.Entry) error {
		entries[e.ID] = e
		return nil
	})
	if err != nil {
		return nil, err
	}
	touched := make(map[stanza.Addr]bool)
	for _, e := range effects {
		switch e.Kind {
		case journal.KindStanza:
			st := e.Stanza.Stanza
			if e.Stanza.Flags&journal.Stored != 0 {
				touched[st.To.Bare()] = true
				if err := h.box.Force(ctx, st.To.Bare(), st); err != nil {
					return nil, err
				}
			}
			if entry, ok := awaitedBy(e.Stanza); ok {
				if known, there := entries[entry.ID]; !there || known.Stanza != nil {
					entries[entry.ID] = entry
				}
			}
		case journal.KindUnstored:
			touched[e.User] = true
			if err := unstore(ctx, h.box, e); err != nil {
				return nil, err
			}
		case journal.KindProved:
			for _, id := range e.IDs {
				delete(entries, id)
			}
		case journal.KindTaken:
			for _, a := range e.Awaited {
				entries[a.ID] = packetcache.Entry(a)
			}
		case journal.KindForward:
			for id, entry := range entries {
				if entry.To.Bare() == e.User {
					delete(entries, id)
				}
			}
		}
	}
	var awaiting []stanza.Addr
	for _, entry := range entries {
		h.cache.Restore(entry)
		if entry.Stanza != nil {
			awaiting = append(awaiting, entry.To.Bare())
		}
	}
	for user := range touched {
		// Somebody else may be the home tomorrow; the user's box is loaded anew when it is this node.
		if err := h.box.Release(ctx, user); err != nil && !errors.Is(err, offline.ErrInUse) {
			return nil, err
		}
	}
	return awaiting, nil
}

func (h *heir) Bury(ctx context.Context, dead string) error {
	h.sv.ForgetLinks(dead)
	if err := h.store.Bury(ctx, dead); err != nil {
		return err
	}
	h.unmark(dead)
	h.mu.Lock()
	awaiting := h.awaiting[dead]
	delete(h.awaiting, dead)
	h.mu.Unlock()
	for _, user := range awaiting {
		// Users without sessions: by now it is known whose they are.
		if err := h.sv.PassOn(ctx, user); err != nil {
			return err
		}
	}
	return nil
}

func (h *heir) mark(dead string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taken[dead] = true
	h.store.SetMeta(map[string]string{takenMark + dead: "1"})
}

func (h *heir) unmark(dead string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.taken, dead)
	h.store.DelMeta(takenMark + dead)
}

func (h *heir) isTaken(dead string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.taken[dead]
}

func cutPrefix(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || s[:len(prefix)] != prefix {
		return "", false
	}
	return s[len(prefix):], true
}
