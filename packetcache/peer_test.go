package packetcache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"holdfast/stanza"
)

var (
	alice  = stanza.MustParseAddr("alice@x.example/phone")
	alice2 = stanza.MustParseAddr("alice@x.example/desk")
	bob    = stanza.MustParseAddr("bob@y.example")
	bob1   = stanza.MustParseAddr("bob@y.example/one")
	bob2   = stanza.MustParseAddr("bob@y.example/two")
	carol  = stanza.MustParseAddr("carol@x.example/phone")
)

// message is one that asks for a receipt, stamped.
func message(from, to stanza.Addr, msgID string) *stanza.Stanza {
	st := stanza.New(stanza.Message, "chat", msgID, from, to,
		[]byte(`<body>My lord, dispatch; read o'er these articles.</body><request xmlns='urn:xmpp:receipts'/>`))
	st.ID = stanza.NewID()
	return st
}

var errDown = errors.New("down")

// peer stands in for the rest of the gateway: it does what Actions says and keeps account.
type peer struct {
	mu      sync.Mutex
	online  bool
	fail    map[Action]int // the next so many calls fail
	refuse  bool
	mailbox map[stanza.ID]bool
	bounced map[stanza.ID]int
	log     []string // "resend m1", "offline m1 failed"
	before  func(Action, Entry)
	after   func(Action, Entry)
}

func newPeer() *peer {
	return &peer{fail: map[Action]int{}, mailbox: map[stanza.ID]bool{}, bounced: map[stanza.ID]int{}}
}

func (p *peer) do(a Action, e Entry, effect func() error) error {
	if p.before != nil {
		p.before(a, e)
	}
	if p.after != nil {
		defer p.after(a, e)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.Stanza == nil {
		return fmt.Errorf("%v of an entry without its stanza", a)
	}
	if p.fail[a] > 0 {
		p.fail[a]--
		p.log = append(p.log, a.String()+" "+e.MsgID+" failed")
		return errDown
	}
	p.log = append(p.log, a.String()+" "+e.MsgID)
	return effect()
}

func (p *peer) Resend(_ context.Context, e Entry) (delivered bool, err error) {
	err = p.do(Resend, e, func() error { delivered = p.online; return nil })
	return delivered, err
}

func (p *peer) Offline(_ context.Context, e Entry) error {
	return p.do(Offline, e, func() error {
		if p.refuse {
			return fmt.Errorf("mailbox: %w", ErrRefused)
		}
		p.mailbox[e.ID] = true
		return nil
	})
}

func (p *peer) Bounce(_ context.Context, e Entry) error {
	return p.do(Bounce, e, func() error { p.bounced[e.ID]++; return nil })
}

func (p *peer) Withdraw(_ context.Context, e Entry) error {
	return p.do(withdraw, e, func() error { delete(p.mailbox, e.ID); return nil })
}

func (p *peer) did() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.log)
}

func (p *peer) has(id stanza.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mailbox[id]
}

func newCache(t testing.TB, cfg Config, store Store, act Actions) *Cache {
	t.Helper()
	c, err := New(cfg, store, slog.New(slog.DiscardHandler), nil, act)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// start runs c until the test ends.
func start(t testing.TB, c *Cache) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func wantLog(t testing.TB, p *peer, want ...string) {
	t.Helper()
	if got := p.did(); !slices.Equal(got, want) {
		t.Errorf("actions %q, want %q", got, want)
	}
}

// check holds the cache's own books against each other.
func check(t interface{ Errorf(string, ...any) }, c *Cache) {
	c.mu.Lock()
	defer c.mu.Unlock()
	open, lates, bytes, keyed := 0, 0, int64(0), 0
	for id, e := range c.byID {
		if e.id != id {
			t.Errorf("entry %v indexed as %v", e.id, id)
		}
		if e.state == late {
			lates++
			if e.in != &c.late || e.st != nil {
				t.Errorf("tombstone %v out of place", id)
			}
			continue
		}
		open++
		bytes += e.size
		if e.state == waiting && e.in != &c.due && e.in != &c.retry {
			t.Errorf("waiting entry %v is in no queue", id)
		}
	}
	heads := 0
	for _, first := range c.byKey.buckets {
		for ; first != nil; first = first.hashNext {
			heads++
			if c.byKey.find(first.key(), first.hash) != first {
				t.Errorf("entry %v is not found by its key", first.id)
			}
			if first.group == nil {
				keyed++
				continue
			}
			if first.group.head != first {
				t.Errorf("entry %v stands for a group of which it is not the oldest", first.id)
			}
			for e := first.group.head; e != nil; e = e.twin {
				keyed++
				if e.key() != first.key() || e.group != first.group {
					t.Errorf("entry %v in a group of another key", e.id)
				}
			}
		}
	}
	if heads != c.byKey.n {
		t.Errorf("table counts %d, has %d", c.byKey.n, heads)
	}
	if open != c.open || bytes != c.bytes || lates != c.late.n || keyed != len(c.byID) {
		t.Errorf("open %d/%d, bytes %d/%d, late %d/%d, keyed %d/%d", c.open, open, c.bytes, bytes, c.late.n, lates, keyed, len(c.byID))
	}
	for _, q := range []*queue{&c.due, &c.retry, &c.late} {
		n := len(q.heap)
		for e := q.head; e != nil; e = e.next {
			n++
			if e.next != nil && e.deadline > e.next.deadline {
				t.Errorf("queue out of order")
			}
		}
		if n != q.n {
			t.Errorf("queue counts %d, has %d", q.n, n)
		}
	}
}
