package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// names is a Callee: a table of what means something here.
type names struct {
	mu      sync.Mutex
	known   map[string]Knowledge
	asked   map[string]int
	waiting chan struct{} // closed to let answers go out; nil when they need not wait
}

func (c *names) set(name string, k Knowledge) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known, c.asked = make(map[string]Knowledge), make(map[string]int)
	}
	c.known[name] = k
}

func (c *names) Knows(name string) Knowledge {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[name]
}

func (c *names) Answer(ctx context.Context, name string, request []byte) []byte {
	c.mu.Lock()
	c.asked[name]++
	waiting := c.waiting
	c.mu.Unlock()
	if waiting != nil {
		select {
		case <-waiting:
		case <-ctx.Done():
		}
	}
	return fmt.Appendf(nil, "%s: %s", name, request)
}

func (g *gateway) calls(ctx context.Context, name, first string) (string, error) {
	answer, err := g.node.Call(ctx, name, first, []byte("?"))
	return string(answer), err
}

// firstAsked notes whose mailboxes get, in their first round, the calls that a gateway makes from now on.
func (g *gateway) firstAsked() (keys func() []string) {
	g.node.calls.mu.Lock()
	last := g.node.calls.last
	g.node.calls.mu.Unlock()
	var mu sync.Mutex
	var all []string
	g.gate.set(func(cmd redis.Cmder) error {
		args := cmd.Args()
		at := slices.Index(args, any("d"))
		if cmd.Name() != "xadd" || at < 0 {
			return nil
		}
		rest, _ := args[at+1].([]byte)
		for len(rest) > 0 {
			var m Message
			var err error
			if m, rest, err = cut(rest); err != nil {
				return err
			}
			if m.Op == opCall && binary.LittleEndian.Uint64(m.Payload) > last && m.Payload[callID] == 1 {
				mu.Lock()
				all = append(all, fmt.Sprint(args[1]))
				mu.Unlock()
			}
		}
		return nil
	}, nil)
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// A call reaches who knows the name, wherever that is; what nobody knows fails.
func TestCall(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		ctx := within(t)
		all := w.starts(3)
		all[1].names.set("one", Known)
		for _, first := range []string{all[1].id, all[2].id, "gone", ""} {
			if got, err := all[0].calls(ctx, "one", first); err != nil || got != "one: ?" {
				t.Errorf("with %q first: %q, %v", first, got, err)
			}
		}
		asked := all[0].firstAsked() // later all are, when the answer takes long
		if _, err := all[0].calls(ctx, "one", "gone"); err != nil {
			t.Error(err)
		}
		all[0].node.Sync(ctx, all[2].id) // what it was asked is under way no more
		if keys := slices.Compact(asked()); !slices.Equal(keys, []string{w.keys.Node(all[1].id, "mailbox")}) {
			t.Errorf("it is known who knows, and these are asked: %v", keys)
		}
		all[0].gate.set(nil, nil)
		if _, err := all[1].calls(ctx, "one", ""); !errors.Is(err, ErrHere) {
			t.Errorf("at the node itself: %v", err)
		}
		for _, first := range []string{all[1].id, all[2].id, "gone", all[0].id} {
			if got, err := all[0].calls(ctx, "two", first); !errors.Is(err, ErrNobody) {
				t.Errorf("nobody knows it, and with %q first: %q, %v", first, got, err)
			}
		}
		all[1].names.mu.Lock()
		n := all[1].names.asked["one"]
		all[1].names.mu.Unlock()
		if n < 5 { // more when an answer took so long that it was asked for again
			t.Errorf("answered %d times", n)
		}
		brief, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		all[2].names.waiting = make(chan struct{})
		all[2].names.set("slow", Known)
		if _, err := all[0].calls(brief, "slow", all[2].id); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller that goes away: %v", err)
		}
		close(all[2].names.waiting)
	})
}

// Who has just entered the cluster knows whom to ask.
func TestCallOfANewNode(t *testing.T) {
	w := shared(t)
	all := w.starts(2)
	all[1].names.set("one", Known)
	for range 5 {
		if got, err := w.start().calls(within(t), "one", "gone"); err != nil || got != "one: ?" {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// What is between the caller's own node and another one is waited for: it may come back here.
func TestCallAboutWhatLeavesHere(t *testing.T) {
	w := shared(t)
	all := w.starts(2)
	all[0].names.set("one", Leaving)
	go func() {
		time.Sleep(100 * time.Millisecond)
		all[0].names.set("one", Known)
	}()
	if got, err := all[0].calls(within(t), "one", ""); !errors.Is(err, ErrHere) {
		t.Errorf("%q, %v", got, err)
	}
	all[0].names.set("two", Leaving)
	go func() {
		time.Sleep(100 * time.Millisecond)
		all[1].names.set("two", Known)
	}()
	if got, err := all[0].calls(within(t), "two", ""); err != nil || got != "two: ?" {
		t.Errorf("%q, %v", got, err)
	}
	all[0].names.set("three", Leaving)
	begin := time.Now()
	if _, err := all[0].calls(within(t), "three", ""); !errors.Is(err, errLeaving) || time.Since(begin) < callLeaving {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
}

// One that leaves does not answer, and does not say no: its heir does.
func TestCallWhileLeaving(t *testing.T) {
	w := shared(t)
	ctx := within(t)
	all := w.starts(3)
	all[1].names.set("one", Leaving)
	got := make(chan string, 1)
	go func() {
		answer, err := all[0].calls(ctx, "one", all[1].id)
		got <- fmt.Sprint(answer, err)
	}()
	select {
	case answer := <-got:
		t.Errorf("answered %q by a node that leaves", answer)
	case <-time.After(2 * callAtMost):
	}
	all[2].names.set("one", Known)
	if answer := <-got; answer != "one: ?<nil>" {
		t.Errorf("got %q", answer)
	}
}

// A call that a dead node had taken is answered by who knows the name then.
func TestCallWhileNodeDies(t *testing.T) {
	w := shared(t)
	ctx := within(t)
	all := w.starts(3)
	all[1].names.set("one", Known)
	all[1].names.waiting = make(chan struct{})
	all[0].node.calls.patience = 2 * time.Second // it is held for longer than it may take to be found
	type result struct {
		answer string
		err    error
	}
	got := make(chan result, 1)
	go func() {
		answer, err := all[0].calls(ctx, "one", all[1].id)
		got <- result{answer, err}
	}()
	w.await("it is taken", func() bool {
		all[1].names.mu.Lock()
		defer all[1].names.mu.Unlock()
		return all[1].names.asked["one"] == 1
	})
	time.Sleep(all[0].node.calls.patience + 200*time.Millisecond)
	all[2].names.set("one", Known)
	all[1].kill()
	if r := <-got; r.err != nil || r.answer != "one: ?" {
		t.Errorf("got %q, %v", r.answer, r.err)
	}
	close(all[1].names.waiting)
	all[0].node.calls.patience = callPatience
	// And one that is asked of a node that is dead already.
	all[2].names.set("two", Known)
	if answer, err := all[0].calls(ctx, "two", all[1].id); err != nil || answer != "two: ?" {
		t.Errorf("got %q, %v", answer, err)
	}
}
