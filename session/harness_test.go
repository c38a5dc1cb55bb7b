package session

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/amp"
	"holdfast/internal/journal"
	"holdfast/offline"
	"holdfast/route"
	"holdfast/stanza"
)

// tester is what the harness needs of *testing.T, *testing.B and *rapid.T.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Logf(format string, args ...any)
}

// world is a Service with hand-written parts around it, all in memory, and the real routing.
type world struct {
	t        tester
	cfg      Config
	parts    Parts
	sv       *Service
	auth     *fakeAuth
	accounts *fakeAccounts
	roster   *fakeRoster
	box      *fakeMailbox
	receipts *fakeReceipts
	journal  *fakeJournal
	ended    *fakeEnded
	pause    func() // in a mesh: lets what is under way arrive
	tune     func(*Service)
}

const (
	testDomain  = "capulet.example"
	otherDomain = "montague.example"
)

// newWorld starts a Service for two domains with the users juliet, romeo, nurse and tybalt in the first one. Whoever
// calls it calls stop.
func newWorld(t tester, edit ...func(*Config, *Parts)) *world {
	w := &world{
		t: t, cfg: DefaultConfig(), auth: new(fakeAuth), accounts: newAccounts(), roster: newRoster(), box: newMailbox(),
		receipts: newReceipts(), journal: new(fakeJournal), ended: newEnded(),
	}
	for _, name := range []string{"juliet", "romeo", "nurse", "tybalt"} {
		w.accounts.users[addr(name)] = true
	}
	w.parts = Parts{
		Auth: w.auth, Accounts: w.accounts, NewRouter: testRouter, Roster: w.roster, Subs: w.roster, Mailbox: w.box,
		Receipts: w.receipts, Journal: w.journal, Ended: w.ended, Log: slog.New(slog.DiscardHandler), Version: "1.2.3",
	}
	for _, f := range edit {
		f(&w.cfg, &w.parts)
	}
	w.start()
	return w
}

func (w *world) start() {
	w.parts.Metrics = NewMetrics(prometheus.NewRegistry())
	w.sv = New(w.cfg, []stanza.Addr{stanza.MustParseAddr(testDomain), stanza.MustParseAddr(otherDomain)}, w.parts)
	if w.tune != nil {
		w.tune(w.sv)
	}
}

func (w *world) stop() { w.sv.Close() }

// addr is a user of the first domain, with a resource when name has one.
func addr(name string) stanza.Addr {
	user, resource, _ := strings.Cut(name, "/")
	a, err := stanza.NewAddr(user, testDomain, resource)
	if err != nil {
		panic(err)
	}
	return a
}

// hub is route.Hub as cmd/gateway fits it to session.
type hub struct {
	*route.Hub[*Session, Verdict]
}

func testRouter(sv *Service) Router { return hub{route.New[*Session, Verdict](sv)} }

func (h hub) Locked(user stanza.Addr, f func(Table)) {
	h.Hub.Locked(user, func(t route.Table[*Session]) { f(t) })
}

// fakeAuth lets everybody in who names a user: "" asks for a challenge first, "no" fails.
type fakeAuth struct{}

type saslError string

func (e saslError) Error() string     { return string(e) }
func (e saslError) Condition() string { return string(e) }

func (fakeAuth) Mechanisms(secure bool) []string {
	if secure {
		return []string{"SCRAM-SHA-1", "PLAIN"}
	}
	return []string{"SCRAM-SHA-1"}
}

func (fakeAuth) Begin(mechanism, domain string, _ netip.Addr, secure bool) (Exchange, error) {
	switch {
	case mechanism == "PLAIN" && !secure:
		return nil, saslError("encryption-required")
	case mechanism == "PLAIN", mechanism == "SCRAM-SHA-1":
		return &fakeExchange{domain: domain}, nil
	}
	return nil, saslError("invalid-mechanism")
}

type fakeExchange struct {
	domain string
	steps  int
	user   stanza.Addr
}

func (x *fakeExchange) Step(_ context.Context, response []byte) ([]byte, bool, error) {
	x.steps++
	switch name := string(response); name {
	case "":
		return []byte("who?"), false, nil
	case "no":
		return nil, false, saslError("not-authorized")
	case "down":
		return nil, false, errors.New("the store is down")
	default:
		user, err := stanza.NewAddr(name, x.domain, "")
		x.user = user
		var out []byte
		if x.steps > 1 {
			out = []byte("proof")
		}
		return out, true, err
	}
}

func (x *fakeExchange) User() stanza.Addr { return x.user }

// fakeAccounts is who exists.
type fakeAccounts struct {
	mu    sync.Mutex
	users map[stanza.Addr]bool
	err   error
	asked chan struct{} // when not nil, Exists tells that it was called
	let   chan struct{} // and waits for this
}

func newAccounts() *fakeAccounts { return &fakeAccounts{users: make(map[stanza.Addr]bool)} }

func (a *fakeAccounts) Exists(_ context.Context, user stanza.Addr) (bool, error) {
	if a.asked != nil {
		a.asked <- struct{}{}
		<-a.let
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.users[user], a.err
}

func (a *fakeAccounts) Register(_ context.Context, domain, name, _ string, _ netip.Addr) error {
	user, err := stanza.NewAddr(name, domain, "")
	a.mu.Lock()
	defer a.mu.Unlock()
	a.users[user] = true
	return err
}

func (a *fakeAccounts) ChangePassword(context.Context, stanza.Addr, string) error { return a.err }

func (a *fakeAccounts) Unregister(_ context.Context, user stanza.Addr) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.users, user)
	return a.err
}

// fakeRoster knows who sees whom and passes every subscription stanza on without a rule. The rules are package
// roster's; presence_test.go has them.
type fakeRoster struct {
	watches map[stanza.Addr][]stanza.Addr // by who is watched
	err     error

	mu     sync.Mutex
	forget error // of Forget alone
}

func newRoster() *fakeRoster { return &fakeRoster{watches: make(map[stanza.Addr][]stanza.Addr)} }

// friends makes two users see each other.
func (r *fakeRoster) friends(a, b stanza.Addr) {
	r.watches[a], r.watches[b] = append(r.watches[a], b), append(r.watches[b], a)
}

func (r *fakeRoster) Items(context.Context, stanza.Addr, string, bool) ([]Contact, string, bool, error) {
	return nil, "", false, r.err
}

func (r *fakeRoster) Set(_ context.Context, _ stanza.Addr, item Contact) (Contact, error) {
	item.Subscription = "none"
	return item, r.err
}

func (r *fakeRoster) Remove(_ context.Context, _, contact stanza.Addr) (Contact, Parting, error) {
	return Contact{Addr: contact, Subscription: "remove"}, Parting{}, r.err
}

func (r *fakeRoster) Forget(_ context.Context, user stanza.Addr) (map[stanza.Addr]Parting, error) {
	owed := make(map[stanza.Addr]Parting)
	for _, a := range r.watches[user] {
		owed[a] = Parting{Unsubscribed: true}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return owed, errors.Join(r.err, r.forget)
}

func (r *fakeRoster) failForget(err error) {
	r.mu.Lock()
	r.forget = err
	r.mu.Unlock()
}

func (r *fakeRoster) Change(context.Context, stanza.Addr, stanza.Addr, bool, *stanza.Stanza) (Outcome, error) {
	return Outcome{Route: true}, r.err
}

func (r *fakeRoster) Watchers(_ context.Context, user stanza.Addr) ([]stanza.Addr, error) {
	return r.watches[user.Bare()], r.err
}

func (r *fakeRoster) Watched(_ context.Context, user stanza.Addr) (all []stanza.Addr, err error) {
	for watched, by := range r.watches {
		if slices.Contains(by, user.Bare()) {
			all = append(all, watched)
		}
	}
	slices.SortFunc(all, func(a, b stanza.Addr) int { return cmp.Compare(a.String(), b.String()) })
	return all, r.err
}

func (r *fakeRoster) Pending(context.Context, stanza.Addr) ([][]byte, error) { return nil, r.err }

// fakeMailbox keeps messages by user, ordered by stanza id, with the real policy for what is kept.
type fakeMailbox struct {
	mu    sync.Mutex
	boxes map[stanza.Addr][]*stanza.Stanza
	limit int                 // messages for one user, 0 for no limit
	own   map[stanza.Addr]int // what users chose, -1 for any number
	fixed bool                // they may not
	err   error
}

func newMailbox() *fakeMailbox { return &fakeMailbox{boxes: make(map[stanza.Addr][]*stanza.Stanza)} }

func byID(a *stanza.Stanza, id stanza.ID) int { return a.ID.Compare(id) }

func (m *fakeMailbox) Store(user stanza.Addr, st *stanza.Stanza, force bool) (Verdict, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return Verdict{Fate: Refused}, m.err
	}
	switch offline.Decide(st, offline.DefaultConfig().Policy).Action {
	case offline.Drop:
		return Verdict{}, nil
	case offline.Store:
	default:
		return Verdict{Fate: Refused, Why: "of this kind"}, nil
	}
	if !force && m.limit > 0 && len(m.boxes[user]) >= m.limit {
		return Verdict{Fate: Refused, Why: "full"}, nil
	}
	m.insertLocked(user, st)
	return Verdict{Fate: Kept}, nil
}

func (m *fakeMailbox) Storable(st *stanza.Stanza) bool {
	return offline.Decide(st, offline.DefaultConfig().Policy).Action == offline.Store
}

// Overdue knows of rules alone.
func (m *fakeMailbox) Overdue(st *stanza.Stanza) bool {
	rules, _, _ := amp.Of(st)
	if rules == nil {
		return false
	}
	at, ok := rules.Expires()
	return ok && !time.Now().Before(at)
}

func (m *fakeMailbox) insertLocked(user stanza.Addr, st *stanza.Stanza) {
	if st.ID.IsZero() {
		panic("a message without a stanza id in the mailbox")
	}
	if i, found := slices.BinarySearchFunc(m.boxes[user], st.ID, byID); !found {
		m.boxes[user] = slices.Insert(m.boxes[user], i, st)
	}
}

func (m *fakeMailbox) Page(user stanza.Addr, after stanza.ID, count, _ int) (page []*stanza.Stanza, more bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return nil, false, m.err
	}
	for _, st := range m.boxes[user] {
		switch {
		case st.ID.Compare(after) <= 0, m.Overdue(st):
		case len(page) == count:
			return page, true, nil
		default:
			page = append(page, st.Rewrite(stanza.Edit{
				From: st.From, To: st.To, Append: stanza.DelayChild(user.Server(), st.ID.Time(), "Offline Storage"),
			}))
		}
	}
	return page, false, nil
}

func (m *fakeMailbox) Peek(user stanza.Addr, after stanza.ID, count, bytes int) ([]*stanza.Stanza, bool, error) {
	return m.Page(user, after, count, bytes)
}

func (m *fakeMailbox) Remove(user stanza.Addr, ids ...stanza.ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.boxes[user] = slices.DeleteFunc(m.boxes[user], func(st *stanza.Stanza) bool { return slices.Contains(ids, st.ID) })
	return m.err
}

func (m *fakeMailbox) Empty(user stanza.Addr) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.boxes[user]) == 0, m.err
}

func (m *fakeMailbox) Count(user stanza.Addr) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.boxes[user]), m.err
}

func (m *fakeMailbox) Purge(user stanza.Addr) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.boxes, user)
	return m.err
}

func (m *fakeMailbox) Forget(user stanza.Addr) error {
	m.mu.Lock()
	delete(m.own, user)
	m.mu.Unlock()
	return m.Purge(user)
}

func (m *fakeMailbox) MayChoose() bool { return !m.fixed }

func (m *fakeMailbox) PairLimit(user stanza.Addr) (n int, limited bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if own, ok := m.own[user]; ok {
		return max(own, 0), own >= 0, m.err
	}
	return 100, true, m.err
}

func (m *fakeMailbox) Choose(user stanza.Addr, n int, limited bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fixed {
		return notAllowed
	}
	if m.own == nil {
		m.own = make(map[stanza.Addr]int)
	}
	if m.own[user] = n; !limited {
		m.own[user] = -1
	}
	return m.err
}

func (m *fakeMailbox) Upto(user stanza.Addr, to stanza.ID, most int) (ids []stanza.ID, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, st := range m.boxes[user] {
		if st.ID.Compare(to) <= 0 && len(ids) < most {
			ids = append(ids, st.ID)
		}
	}
	return ids, m.err
}

func (m *fakeMailbox) Discard(user stanza.Addr, ids ...stanza.ID) error {
	return m.Remove(user, ids...)
}

func (m *fakeMailbox) Room(context.Context) error { return nil }

// bodies lists what a mailbox holds.
func (m *fakeMailbox) bodies(user stanza.Addr) (all []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, st := range m.boxes[user] {
		all = append(all, body(&st.Element))
	}
	return all
}

func body(e *stanza.Element) string {
	b, _ := e.Find(stanza.NSClient, "body")
	return b.Text()
}

// fakeReceipts is a packet cache without deadlines: what is open, and what was moved to the mailbox.
type fakeReceipts struct {
	mu     sync.Mutex
	open   map[stanza.ID]*stanza.Stanza
	stored map[stanza.ID]bool // fell back to the mailbox
	room   chan struct{}      // when not nil, Room waits for it
	ack    bool               // whether an acknowledgement proves
}

func newReceipts() *fakeReceipts {
	return &fakeReceipts{open: make(map[stanza.ID]*stanza.Stanza), stored: make(map[stanza.ID]bool), ack: true}
}

func (r *fakeReceipts) Awaits(st *stanza.Stanza) bool {
	return st.Payloads().Has(stanza.ReceiptRequest) && !st.ID.IsZero()
}

func (r *fakeReceipts) Room(ctx context.Context) error {
	if r.room == nil {
		return nil
	}
	select {
	case <-r.room:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *fakeReceipts) Waits(id stanza.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[id] != nil || r.stored[id]
}

func (r *fakeReceipts) Open(st *stanza.Stanza) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[st.ID] = st
}

func (r *fakeReceipts) Received(st *stanza.Stanza) (closed []stanza.ID, stored bool) {
	c, ok := st.Find(stanza.NSReceipts, "received")
	if !ok {
		return nil, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, m := range r.open {
		if m.To.Bare() == st.From.Bare() && m.From.Bare() == st.To.Bare() && m.Attr("id") == c.Attr("id") {
			closed, stored = append(closed, id), stored || r.stored[id]
			delete(r.open, id)
		}
	}
	return closed, stored
}

func (r *fakeReceipts) Proved(id stanza.ID) (closed, stored bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.open[id]; !ok || !r.ack {
		return false, false
	}
	delete(r.open, id)
	return true, r.stored[id]
}

func (r *fakeReceipts) waiting() []*stanza.Stanza {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*stanza.Stanza
	for _, st := range r.open {
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b *stanza.Stanza) int { return a.ID.Compare(b.ID) })
	return all
}

// fakeEnded remembers everything.
type fakeEnded struct {
	mu  sync.Mutex
	all map[string]endedCount
}

type endedCount struct {
	user stanza.Addr
	h    uint32
}

func newEnded() *fakeEnded { return &fakeEnded{all: make(map[string]endedCount)} }

func (e *fakeEnded) Remember(token string, user stanza.Addr, h uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all[token] = endedCount{user, h}
}

func (e *fakeEnded) Recall(token string, user stanza.Addr) (uint32, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, ok := e.all[token]
	return c.h, ok && c.user == user
}

// fakeJournal keeps the records as bytes, as a log on disk would. It can fail.
type fakeJournal struct {
	mu      sync.Mutex
	records []logged
	err     error         // of every append
	sync    error         // of Settle
	settled int           // calls of Settle that succeeded
	away    chan struct{} // when not nil, Settle waits for it
	guard   func()        // called with each append but those of links
	left    int           // records until it dies, 0 for never

	// Where appends take a way over the network, ahead is true; see Sendable.
	ahead      bool
	sendable   uint64
	onSendable []func()
}

type logged struct {
	kind journal.Kind
	b    []byte
}

var errJournal = errors.New("the journal is down")

func (j *fakeJournal) append(k journal.Kind, b []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.records = append(j.records, logged{k, b})
		if j.left > 0 {
			if j.left--; j.left == 0 {
				j.err = errJournal
			}
		}
	}
	return j.err
}

// dieAfter has it take so many records more and no other; with 0 it lives.
func (j *fakeJournal) dieAfter(records int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.left, j.err = records, nil
}

// die has it take no record any more.
func (j *fakeJournal) die() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.err = errJournal
}

func (j *fakeJournal) dead() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err != nil
}

// log is append for what sessions write.
func (j *fakeJournal) log(k journal.Kind, b []byte) error {
	j.mu.Lock()
	guard := j.guard
	j.mu.Unlock()
	if guard != nil {
		guard()
	}
	return j.append(k, b)
}

func (j *fakeJournal) Room(context.Context) error { return nil }

func (j *fakeJournal) Stanza(r *journal.Stanza) error {
	return j.log(journal.KindStanza, append(r.AppendHead(nil), r.Stanza.Raw()...))
}

func (j *fakeJournal) Count(k journal.Kind, session, count uint64) error {
	return j.log(k, journal.AppendCount(nil, session, count))
}

func (j *fakeJournal) Session(r *journal.Session) error {
	return j.log(journal.KindSession, r.Append(nil))
}

func (j *fakeJournal) IDs(k journal.Kind, user stanza.Addr, ids []stanza.ID) error {
	return j.log(k, journal.AppendIDs(nil, user, ids))
}

func (j *fakeJournal) Directed(session uint64, to stanza.Addr, add bool) error {
	return j.log(journal.KindDirected, journal.AppendDirected(nil, session, to, add))
}

func (j *fakeJournal) Append(k journal.Kind, head, tail []byte) error {
	return j.log(k, slices.Concat(head, tail))
}

func (j *fakeJournal) Appended() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.ahead {
		return 0
	}
	return uint64(len(j.records))
}

func (j *fakeJournal) Sendable() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.sendable
}

func (j *fakeJournal) OnSendable(f func()) { j.onSendable = append(j.onSendable, f) }

// arrive makes the records up to a position sendable, all of them with less than that.
func (j *fakeJournal) arrive(pos uint64) {
	j.mu.Lock()
	j.sendable = max(j.sendable, pos)
	j.mu.Unlock()
	for _, f := range j.onSendable {
		f()
	}
}

func (j *fakeJournal) Settle(ctx context.Context) error {
	j.mu.Lock()
	away := j.away
	j.mu.Unlock()
	if away != nil {
		select {
		case <-away:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.sync == nil {
		j.settled++
	}
	return j.sync
}

func (j *fakeJournal) fail(appends, settles error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.err, j.sync = appends, settles
}

// settleTime is longer than anything waits for acknowledgements to be said or asked for.
const settleTime = 2 * time.Second
