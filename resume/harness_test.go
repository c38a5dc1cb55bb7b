package resume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"holdfast/internal/journal"
	"holdfast/internal/sqlx"
	"holdfast/internal/testkit/redisproc"
	"holdfast/stanza"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		runChild(dir)
		return
	}
	recallTime = 30 * time.Second // the machine may stall
	goleak.VerifyTestMain(redisproc.M{M: m})
}

// testing.TB and *rapid.T have this in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

var (
	bob     = stanza.MustParseAddr("bob@localhost")
	discard = slog.New(slog.DiscardHandler)
)

func testConfig() Config {
	cfg := DefaultConfig()
	cfg.Segment, cfg.Bytes = 4096, 0 // many small segments: rotation is part of every history
	return cfg
}

// records is what the helpers below write to.
type records interface {
	Session(r *journal.Session) error
	Stanza(r *journal.Stanza) error
	Count(k journal.Kind, session, count uint64) error
	IDs(k journal.Kind, user stanza.Addr, ids []stanza.ID) error
	Remember(token string, user stanza.Addr, h uint32)
	Recall(token string, user stanza.Addr) (uint32, bool)
}

// writes is a process of either kind.
type writes interface{ out() records }

// process is one life of a gateway's stores.
type process struct {
	dir   string
	db    *sqlx.DB
	store *Store
	found *Recovered
}

func (p *process) out() records { return p.store }

func start(t tester, dir string, cfg Config) *process {
	t.Helper()
	dbCfg := sqlx.DefaultConfig()
	dbCfg.Dir, dbCfg.BusyTimeout = dir, time.Second
	db, err := sqlx.Open(context.Background(), dbCfg)
	if err != nil {
		t.Fatalf("database: %v", err)
	}
	store, found, err := Open(context.Background(), cfg, db, discard, prometheus.NewRegistry())
	if err != nil {
		_ = db.Close()
		t.Fatalf("open: %v", err)
	}
	return &process{dir: dir, db: db, store: store, found: found}
}

func (p *process) stop(t tester) {
	t.Helper()
	if err := errors.Join(p.store.Close(), p.db.Close()); err != nil {
		t.Fatalf("stop: %v", err)
	}
}

// startFor is start for tests that don't end the process themselves.
func startFor(t testing.TB, dir string, cfg Config) *process {
	t.Helper()
	p := start(t, dir, cfg)
	t.Cleanup(func() { _ = errors.Join(p.store.Close(), p.db.Close()) })
	return p
}

// image copies what a kill at this moment would leave. Mapped pages and files are one in the page cache, so the copy
// has what a new process would find. Nothing may write meanwhile but the journal's housekeeping.
func image(t tester, dir string) string {
	t.Helper()
	var err error
	for range 50 {
		var to string
		if to, err = os.MkdirTemp(filepath.Dir(dir), "image"); err != nil {
			t.Fatalf("image: %v", err)
		}
		if err = os.CopyFS(to, os.DirFS(dir)); err == nil {
			return to
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		_ = os.RemoveAll(to) // a segment was renamed on the way
	}
	t.Fatalf("image: %v", err)
	return ""
}

// peer is a session as package session holds it.
type peer struct {
	state   *journal.Session
	handled uint32
	acked   uint64
	queue   []*journal.Stanza // places acked+1 and on

	kept          uint64
	stored, dirty bool
}

func (s *peer) last() uint64 { return s.acked + uint64(len(s.queue)) }

// sessions is Live over peers, by the same rules as session.Service.Checkpoint.
type sessions struct {
	byOrd map[uint64]*peer
	gone  []uint64
	hook  func() // between Collect and the transaction
}

func newSessions() *sessions { return &sessions{byOrd: make(map[uint64]*peer)} }

func (l *sessions) ords() []uint64 {
	var all []uint64
	for ord := range l.byOrd {
		all = append(all, ord)
	}
	slices.Sort(all)
	return all
}

func (l *sessions) Collect(boundary func()) (changed []Change, gone []uint64, commit, abort func()) {
	boundary()
	gone, l.gone = l.gone, nil
	kept := make(map[uint64]uint64)
	for _, ord := range l.ords() {
		s := l.byOrd[ord]
		if !s.dirty {
			continue
		}
		state := *s.state
		c := Change{State: &state, Handled: s.handled, Acked: s.acked}
		for _, q := range s.queue {
			if q.Targets[0].Pos > s.kept {
				c.Queue = append(c.Queue, q)
			}
		}
		changed = append(changed, c)
		kept[ord] = s.last()
		s.dirty, s.stored = false, true
	}
	if l.hook != nil {
		l.hook()
	}
	commit = func() {
		for ord, last := range kept {
			l.byOrd[ord].kept = last
		}
	}
	abort = func() {
		for ord := range kept {
			l.byOrd[ord].dirty = true
		}
		l.gone = append(l.gone, gone...)
	}
	return changed, gone, commit, abort
}

// restart makes the peers what Restore makes of them: they differ from the database, which may know them.
func (l *sessions) restart() {
	l.gone, l.hook = nil, nil
	for _, s := range l.byOrd {
		s.kept, s.stored, s.dirty = 0, true, true
	}
}

// age makes an ended session older.
func (m *ended) age(token string, by time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.byToken[token]
	e.at = e.at.Add(-by)
	m.byToken[token] = e
}

type flusher func(context.Context) error

func (f flusher) Checkpoint(ctx context.Context) error { return f(ctx) }

var nextOrd uint64 = 1

// newState is a session that was just bound.
func newState() *journal.Session {
	nextOrd++
	addr, err := bob.WithResource(fmt.Sprint("r", nextOrd))
	if err != nil {
		panic(err)
	}
	return &journal.Session{Ord: nextOrd, Addr: addr, CreatedAt: time.UnixMilli(1700000000000)}
}

func chat(body string) *stanza.Stanza {
	st, err := stanza.Parse(fmt.Appendf(nil,
		"<message xmlns='jabber:client' from='alice@localhost/a' to='bob@localhost' type='chat'><body>%s</body></message>", body), stanza.NewID())
	if err != nil {
		panic(err)
	}
	return st
}

// bind journals a new session and returns it.
func bind(t tester, p writes, l *sessions, managed bool) *peer {
	t.Helper()
	s := &peer{state: newState(), dirty: true}
	l.byOrd[s.state.Ord] = s
	must(t, p.out().Session(s.state))
	if managed {
		enable(t, p, s)
	}
	return s
}

func enable(t tester, p writes, s *peer) {
	t.Helper()
	s.state.Managed, s.state.Base = true, s.last()
	s.state.Token, s.state.Max = fmt.Sprint("token-", s.state.Ord), time.Minute
	s.handled, s.dirty = 0, true
	must(t, p.out().Session(s.state))
}

// deliver puts one message into the outboxes of to, as the n-th stanza of from.
func deliver(t tester, p writes, from *peer, st *stanza.Stanza, flags journal.Flags, to ...*peer) {
	t.Helper()
	rec := &journal.Stanza{Stanza: st, Flags: flags}
	if from != nil {
		from.handled++
		from.dirty = true
		rec.Origin, rec.N = from.state.Ord, from.handled
	}
	for _, s := range to {
		rec.Targets = append(rec.Targets, journal.Target{Session: s.state.Ord, Pos: s.last() + 1})
	}
	must(t, p.out().Stanza(rec))
	for i, s := range to {
		s.queue = append(s.queue, &journal.Stanza{Stanza: st, Flags: flags, Targets: rec.Targets[i : i+1]})
		s.dirty = true
	}
}

func ack(t tester, p writes, s *peer, n int) {
	t.Helper()
	s.queue = s.queue[n:]
	s.acked += uint64(n)
	s.dirty = true
	must(t, p.out().Count(journal.KindAcked, s.state.Ord, s.acked))
}

func finish(t tester, p writes, l *sessions, s *peer) {
	t.Helper()
	if s.state.Token != "" {
		p.out().Remember(s.state.Token, s.state.Addr.Bare(), s.handled)
	}
	must(t, p.out().Count(journal.KindEnded, s.state.Ord, uint64(s.handled)))
	delete(l.byOrd, s.state.Ord)
	if s.stored {
		l.gone = append(l.gone, s.state.Ord)
	}
}

func must(t tester, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// same compares what was recovered with what was.
func same(found *Recovered, l *sessions) error {
	ords := l.ords()
	if len(found.Sessions) != len(ords) {
		return fmt.Errorf("%d sessions recovered, want %d", len(found.Sessions), len(ords))
	}
	for i, got := range found.Sessions {
		want := l.byOrd[ords[i]]
		if err := sameSession(got, want); err != nil {
			return fmt.Errorf("session %d of %d: %w", i+1, len(ords), err)
		}
	}
	return nil
}

func sameSession(got *Session, want *peer) error {
	g, w := got.State, want.state
	if g.Ord != w.Ord || g.Addr != w.Addr || g.Token != w.Token || g.Managed != w.Managed || g.Base != w.Base ||
		g.Max != w.Max || g.Priority != w.Priority || !g.Detached.Equal(w.Detached) {
		return fmt.Errorf("state %+v, want %+v", g, w)
	}
	if want.state.Managed && got.Handled != want.handled {
		return fmt.Errorf("%d handled, want %d", got.Handled, want.handled)
	}
	if len(got.Queue) != len(want.queue) {
		return fmt.Errorf("%d stanzas from %d on, want %d from %d on", len(got.Queue), got.Acked+1, len(want.queue), want.acked+1)
	}
	if len(want.queue) > 0 && got.Acked != want.acked {
		return fmt.Errorf("%d acknowledged, want %d", got.Acked, want.acked)
	}
	for i, q := range got.Queue {
		place := got.Acked + uint64(i) + 1
		if q.Stanza.ID != want.queue[i].Stanza.ID || string(q.Stanza.Raw()) != string(want.queue[i].Stanza.Raw()) {
			return fmt.Errorf("place %d holds %s", place, q.Stanza.Raw())
		}
		if q.Flags != want.queue[i].Flags {
			return fmt.Errorf("place %d has flags %b, want %b", place, q.Flags, want.queue[i].Flags)
		}
		if !slices.Contains(q.Targets, journal.Target{Session: g.Ord, Pos: place}) {
			return fmt.Errorf("place %d is for %v", place, q.Targets)
		}
	}
	return nil
}
