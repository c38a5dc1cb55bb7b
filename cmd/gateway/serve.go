package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"holdfast/auth"
	"holdfast/bosh"
	"holdfast/internal/hostmeta"
	"holdfast/internal/journal"
	"holdfast/internal/proxy"
	"holdfast/internal/sqlx"
	"holdfast/offline"
	"holdfast/packetcache"
	"holdfast/resume"
	"holdfast/roster"
	"holdfast/session"
	"holdfast/stanza"
	"holdfast/webclient"
	"holdfast/ws"
)

// gateway is everything that runs.
type gateway struct {
	cfg *Config
	log *slog.Logger
	reg *prometheus.Registry

	lock     *sqlx.Lock
	db       *sqlx.DB // live state on one machine, and by default the kept state too
	kept     *kept
	store    liveStore
	cluster  *member // nil on one machine
	box      *offline.Mailbox
	cache    *packetcache.Cache
	auth     *auth.Service
	sessions *session.Service
	ws       *ws.Server
	bosh     *bosh.Server
	trust    *proxy.Trust

	// restored: everything that an earlier process left is in the rooms. Before that no checkpoint may be made, or
	// the journal would forget what they do not have.
	restored bool

	background sync.WaitGroup
	stop       context.CancelFunc // of the background

	mu    sync.Mutex
	ready error // why not
}

// liveStore is where sessions outlive the process: package resume's Store on one machine, its Redis in a cluster.
type liveStore interface {
	session.Journal
	session.Ended
	Checkpoint(ctx context.Context, live resume.Live, others ...resume.Flusher) error
	Run(ctx context.Context, live resume.Live, others ...resume.Flusher)
	Healthy() error
	Close() error
}

// serve runs a gateway until ctx ends, then drains it.
func serve(ctx context.Context, cfg *Config, log *slog.Logger) error {
	var err error
	g := &gateway{cfg: cfg, log: log, reg: prometheus.NewRegistry(), ready: errors.New("starting")}
	g.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if cfg.Redis.URL == "" { // in a cluster nothing is kept here
		if g.lock, err = sqlx.Acquire(cfg.SQLite.Dir); err != nil {
			return err
		}
		defer g.lock.Release()
	}
	// The stores outlive ctx: they are still needed while clients are sent away.
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	g.stop = cancel
	defer cancel()
	if err := g.open(background); err != nil {
		return errors.Join(err, g.close())
	}
	err = g.listen(ctx)
	if errors.Is(err, errFenced) {
		// No store takes anything from this process any more, so there is nothing to end in order.
		return err
	}
	if err = errors.Join(err, g.close()); g.fencedWhileDraining(err) {
		return errors.Join(errFenced, err)
	}
	return err
}

// fencedWhileDraining reports whether others took over what this process had before it was done: the cluster was told so, or
// a store.
func (g *gateway) fencedWhileDraining(err error) bool {
	select {
	case <-g.cluster.fenced():
		return true
	default:
		return isFenced(err)
	}
}

// open builds the rooms and brings back what an earlier process left.
func (g *gateway) open(ctx context.Context) error {
	cfg, log, reg := g.cfg, g.log, g.reg
	domains, err := cfg.domains()
	if err != nil {
		return err
	}
	if g.trust, err = proxy.New(cfg.Proxy); err != nil {
		return err
	}
	cfg.WS.Trust = g.trust
	if cfg.WebClient.Demo {
		cfg.Auth.GuestContacts = append(cfg.Auth.GuestContacts, auth.EachOther)
		if room := cfg.demoRoom(); room != "" {
			cfg.Auth.GuestContacts = append(cfg.Auth.GuestContacts, room)
		}
	}
	if cfg.WS.MaxMessage == 0 {
		cfg.WS.MaxMessage = cfg.largestMessage()
	}
	if cfg.Redis.URL == "" {
		if g.db, err = sqlx.Open(ctx, cfg.SQLite); err != nil {
			return err
		}
	}
	if g.kept, err = openKept(ctx, cfg, g.db); err != nil {
		return err
	}
	users, err := auth.OpenAccounts(ctx, cfg.Auth, g.kept.accounts, log)
	if err != nil {
		return err
	}
	if g.auth, err = auth.New(cfg.Auth, users, log, reg); err != nil {
		return err
	}
	rosters := contacts{roster.New(cfg.Roster, g.kept.rosters, log, reg)}
	cfg.Offline.Shared = g.kept.shared
	if cfg.Session.AMP {
		cfg.Offline.ExpireAt = expireAt
	}
	if cfg.Redis.URL != "" {
		if g.cluster, err = joinCluster(ctx, cfg, g.kept, log, reg); err != nil {
			return err
		}
		cfg.Offline.Mine = g.cluster.mine
	}
	if g.box, err = offline.New(ctx, cfg.Offline, g.kept.mailboxes, log, reg); err != nil {
		return err
	}
	cacheStore, err := g.openPacketCache(ctx)
	if err != nil {
		return err
	}
	act := new(actions)
	cfg.PacketCache.Moves = g.cluster != nil
	if g.cache, err = packetcache.New(cfg.PacketCache, cacheStore, log, reg, act); err != nil {
		return err
	}
	parts := session.Parts{
		Auth: authenticator{g.auth}, Accounts: accounts{g.auth}, NewRouter: newRouter, Roster: rosters, Subs: rosters,
		Mailbox: mailbox{g.box, ctx, cfg.Offline.Policy, log}, Receipts: proofs{g.cache, cfg.Receipts.Policy()},
		Metrics: session.NewMetrics(reg), Log: log, Registration: g.auth.RegistrationOffered(), Version: version(),
		NoStorage: cfg.Offline.Storage != offline.StorageOn,
	}
	if g.auth.GuestsAllowed() {
		parts.MayReach = g.auth.MayReach
	}
	if parts.Host, err = g.openRooms(domains, reg); err != nil {
		return err
	}
	var recovered *resume.Recovered
	if g.cluster != nil {
		g.store = g.cluster.store
		parts.Cluster, parts.Moving = others{g.cluster.node}, moving{g.box, g.cache, rosters}
		parts.NewRouter = newGatedRouter(g.cluster.node.Here)
	} else {
		store, rec, err := resume.Open(ctx, cfg.Resume, g.db, log, reg)
		if err != nil {
			return err
		}
		g.store, recovered = store, rec
	}
	parts.Journal, parts.Ended = g.store, g.store
	g.sessions = session.New(cfg.Session, domains, parts)
	act.sv = g.sessions
	g.sessions.Register(reg)
	if recovered != nil {
		if err := restore(ctx, recovered, g.sessions, g.box, g.cache); err != nil {
			return fmt.Errorf("restore sessions: %w", err)
		}
	}
	g.restored = true
	users.OnRemoved("session", func(_ context.Context, user stanza.Addr) error { return g.sessions.UserRemoved(user) })
	if g.cluster == nil {
		users.OnRemoved("offline", func(ctx context.Context, user stanza.Addr) error {
			// In the journal too, or a replay would bring the messages back.
			if err := g.store.IDs(journal.KindUnstored, user, nil); err != nil {
				return err
			}
			return g.box.Forget(ctx, user)
		})
	}
	g.ws, err = ws.New(cfg.WS, log, reg, g.sessions.NewStream)
	if err != nil {
		return err
	}
	if err := g.openBOSH(log, reg); err != nil {
		return err
	}
	g.run(func() { trimMemory(ctx) })
	g.run(func() { users.Watch(ctx) })
	g.run(func() { g.auth.ExpireGuests(ctx, g.sessions.Users) })
	g.run(func() { g.cache.Run(ctx) })
	g.run(func() { g.box.RunExpiry(ctx, expired(g.sessions, g.box, log)) })
	g.run(func() { g.box.RunPurges(ctx, g.kept.purges, g.purge) })
	g.run(func() { g.store.Run(ctx, live{g.sessions}, g.behind()...) })
	if g.cluster == nil {
		return nil
	}
	return g.cluster.start(ctx, g)
}

// purge is the operator's wish to empty a mailbox, if this node is the user's home.
func (g *gateway) purge(ctx context.Context, user stanza.Addr, to stanza.ID) (int, error) {
	n, err := g.sessions.PurgeMailbox(ctx, user, to)
	if errors.Is(err, session.ErrElsewhere) {
		err = nil // the other node looks for such wishes too
	}
	return n, err
}

// behind is what the journal has the effects for until they are safe elsewhere: no checkpoint may leave one out.
func (g *gateway) behind() []resume.Flusher {
	all := []resume.Flusher{g.cache, g.box}
	if g.cluster != nil {
		all = append(all, g.cluster.node)
	}
	return all
}

// openPacketCache opens what outlives the process of the packet cache.
func (g *gateway) openPacketCache(ctx context.Context) (packetcache.Store, error) {
	if g.cluster != nil {
		return g.cluster.packetCache(g.cluster.node.ID()), nil
	}
	return packetcache.NewSQLite(ctx, g.db)
}

func (g *gateway) run(f func()) { g.background.Go(f) }

// listen serves until ctx ends, and then sends the clients away.
func (g *gateway) listen(ctx context.Context) error {
	meta := hostmeta.New(g.trust, ws.Endpoint(g.cfg.WS), bosh.Endpoint(g.cfg.BOSH))
	mux := http.NewServeMux()
	mux.Handle(ws.Path, g.ws)
	mux.Handle(bosh.Path, g.bosh)
	mux.Handle("/.well-known/host-meta", meta)
	mux.Handle("/.well-known/host-meta.json", meta)
	web, err := webclient.New(g.cfg.WebClient, g.cfg.Domains[0], g.cfg.demoRoom())
	if err != nil {
		return err
	}
	for _, pattern := range web.Paths() {
		mux.Handle(pattern, web)
	}
	clients, err := g.clientListener()
	if err != nil {
		return err
	}
	admin, err := net.Listen("tcp", g.cfg.AdminListen)
	if err != nil {
		return errors.Join(fmt.Errorf("%sADMIN_LISTEN: %w", prefix, err), clients.Close())
	}
	failed := make(chan error, 2)
	start := func(srv *http.Server, ln net.Listener) {
		g.run(func() {
			if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		})
	}
	errorLog := slog.NewLogLogger(g.log.Handler(), slog.LevelDebug)
	front := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: errorLog,
	}
	back := &http.Server{Handler: g.admin(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: errorLog}
	start(back, admin)
	start(front, clients)
	g.setReady(nil)
	g.log.Info("serving", "clients", clients.Addr().String(), "admin", admin.Addr().String(), "domains", g.cfg.Domains)
	select {
	case <-ctx.Done():
	case err = <-failed:
	case <-g.cluster.fenced():
		// Nothing that this process does counts any more, and its sessions go on elsewhere: it ends at once.
		return errors.Join(errFenced, front.Close(), back.Close())
	}
	return errors.Join(err, g.drain(front), back.Close())
}

func (g *gateway) clientListener() (net.Listener, error) {
	ln, err := net.Listen("tcp", g.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("%sLISTEN: %w", prefix, err)
	}
	ln = g.trust.Listener(ln)
	if g.cfg.TLSCert == "" {
		return ln, nil
	}
	certs, err := newCertificate(g.cfg.TLSCert, g.cfg.TLSKey, g.log)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return tls.NewListener(ln, &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: certs.get, NextProtos: []string{"http/1.1"},
	}), nil
}

// drain sends everybody away: not ready, no new connections, clients told to come back, sessions stored.
func (g *gateway) drain(front *http.Server) error {
	g.setReady(errors.New("draining"))
	g.log.Info("draining")
	time.Sleep(g.cfg.ReadyDelay)
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.DrainTimeout)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { _ = front.Shutdown(ctx) }) // what it could not wait for, ws drops
	g.bosh.Refuse()
	g.sessions.Drain(ctx)
	if err := errors.Join(g.ws.Drain(ctx), g.bosh.Drain(ctx)); err != nil {
		g.log.Warn("some connections were dropped", "error", err)
	}
	wg.Wait()
	return nil
}

// close ends the rooms from the outside in, and writes what they hold.
func (g *gateway) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.DrainTimeout)
	defer cancel()
	// Whatever still waits for a store when the time is up gives up; the journal has it.
	defer context.AfterFunc(ctx, g.stop)()
	var errs []error
	if g.ws != nil {
		if err := within(ctx, g.ws.Close); err != nil {
			errs = append(errs, fmt.Errorf("connections: %w", err))
		}
	}
	if g.bosh != nil {
		if err := within(ctx, g.bosh.Close); err != nil {
			errs = append(errs, fmt.Errorf("BOSH sessions: %w", err))
		}
	}
	if g.sessions != nil {
		if err := within(ctx, func() error { g.sessions.StopHosting(); return nil }); err != nil {
			errs = append(errs, fmt.Errorf("rooms: %w", err))
		}
	}
	switch {
	case !g.restored:
	case g.cluster != nil:
		errs = append(errs, g.cluster.leave(ctx, g))
	default:
		errs = append(errs, g.store.Checkpoint(ctx, live{g.sessions}, g.behind()...))
	}
	g.stop()
	if err := within(ctx, func() error { g.background.Wait(); return nil }); err != nil {
		return errors.Join(append(errs, fmt.Errorf("background work: %w", err))...)
	}
	if g.sessions != nil {
		g.sessions.Close()
	}
	if g.cache != nil && g.cluster == nil {
		errs = append(errs, g.cache.Shutdown(ctx)) // in a cluster others have it by now
	}
	if g.box != nil {
		errs = append(errs, g.box.Close(ctx))
	}
	if g.store != nil && g.cluster == nil {
		errs = append(errs, g.store.Close())
	}
	if g.kept != nil {
		errs = append(errs, g.kept.Close())
	}
	if g.db != nil {
		errs = append(errs, g.db.Close())
	}
	g.log.Info("stopped")
	return errors.Join(errs...)
}

// within runs f, and stops waiting for it when ctx ends.
func within(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gateway) setReady(why error) {
	g.mu.Lock()
	g.ready = why
	g.mu.Unlock()
}
