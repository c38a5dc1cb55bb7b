package resume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// clusterStory is the story of a node of a cluster, whose estate goes from one to the next.
type clusterStory struct {
	*story
	r *place
	m *member
}

// Settle waits for Redis; what was not waited for may be lost in a kill.
func (h *clusterStory) Settle(t *rapid.T) {
	h.T = t
	h.m.settle(h)
	if got, want := h.m.Sendable(), h.m.Appended(); got != want {
		t.Fatalf("sendable %d of %d", got, want)
	}
}

// Checkpoint makes one, which may fail, have an unknown outcome, or be cut short by a kill at each point where that
// makes a difference.
func (h *clusterStory) Checkpoint(t *rapid.T) {
	h.T = t
	const (
		whole = iota
		another
		scriptFails
		replyLost
		killedAtRest
		killedBeforeOthers
		killedBetweenOthers
		killedBeforeScript
		killedAfterAll
	)
	how := rapid.IntRange(whole, killedAfterAll).Draw(t, "how")
	script := rapid.IntRange(0, 3).Draw(t, "script")
	scriptBytes = rapid.SampledFrom([]int{8 << 20, 200}).Draw(t, "bytes of a script")
	defer func() { scriptBytes = 8 << 20 }()
	next := h.r.node(h)
	dead := h.m
	killed, had := false, h.tables
	kill := func(at int) {
		if how != at || killed {
			return
		}
		killed, had = true, h.tables
		dead.settle(h) // what was not may be lost
		if _, err := next.Fence(context.Background(), dead.id, next.id, ""); err != nil {
			t.Fatalf("fence: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	failed := false
	if rapid.Bool().Draw(t, "doubt") {
		h.m.queue.doubt.Store(true) // everything is written anew
	}
	h.r.calls.scripts = 0
	defer func() { h.live.hook, h.r.calls.beforeScript, h.r.calls.afterScript = nil, nil, nil }()
	h.r.calls.beforeScript = func(n int) {
		if n == script {
			kill(killedBeforeScript)
			if how == scriptFails {
				failed = true
				cancel()
			}
		}
	}
	h.r.calls.afterScript = func(n int) error {
		if n == script && how == replyLost {
			failed = true
			return errTable
		}
		return nil
	}
	// What comes behind the boundary is for the next checkpoint, and must stay in the journal.
	behind := func() {
		if !killed && len(h.live.byOrd) > 0 && rapid.Bool().Draw(t, "behind the boundary") {
			deliver(h, h.w, nil, chat("behind"), 0, h.pick("whom"))
		}
	}
	h.live.hook = func() {
		behind()
		kill(killedAtRest)
	}
	err := h.m.Checkpoint(ctx, &wholeSessions{sessions: h.live}, flusher(func(context.Context) error {
		kill(killedBeforeOthers)
		if how == another {
			failed = true
			return errTable
		}
		h.tables.mailbox = maps.Clone(h.mailbox)
		behind()
		kill(killedBetweenOthers)
		h.tables.cache = maps.Clone(h.cache)
		return nil
	}))
	if fenced := killed; (err != nil) != (failed || fenced) || fenced && !errors.Is(err, ErrFenced) {
		t.Fatalf("checkpoint %d: %v", how, err)
	}
	kill(killedAfterAll)
	if !killed {
		next.die()
		return
	}
	h.live.hook, h.r.calls.beforeScript, h.r.calls.afterScript = nil, nil, nil
	h.tables = had
	dead.die()
	h.goOn(next, dead)
}

// Kill ends the node at a random moment, but for what was not settled.
func (h *clusterStory) Kill(t *rapid.T) {
	h.T = t
	h.m.settle(h)
	dead := h.m
	dead.die()
	h.goOn(h.r.node(h), dead)
}

// Leave ends the node properly.
func (h *clusterStory) Leave(t *rapid.T) {
	h.T = t
	must(h, h.m.Leave(context.Background()))
	h.goOn(h.r.node(h), h.m)
}

// goOn has a node adopt another, or a third when the first that tries dies too.
func (h *clusterStory) goOn(next, dead *member) {
	h.Helper()
	found, _ := next.adopt(h, dead)
	h.m, h.w = next, next
	h.check(found)
	if rapid.Bool().Draw(h.T, "adopter dies") {
		heir := h.r.node(h)
		if holder, err := heir.Fence(context.Background(), next.id, heir.id, ""); err != nil || holder != heir.id {
			h.Fatalf("fence: %s %v", holder, err)
		}
		next.die()
		if holder, err := heir.Fence(context.Background(), dead.id, heir.id, next.id); err != nil || holder != heir.id {
			h.Fatalf("fence: %s %v", holder, err)
		}
		if none, _, err := heir.Load(context.Background(), next.id); err != nil || len(none.Sessions)+len(none.Effects) != 0 {
			h.Fatalf("the first adopter left %+v %v", none, err)
		}
		must(h, heir.Bury(context.Background(), next.id))
		again, _, err := heir.Load(context.Background(), dead.id)
		must(h, err)
		h.m, h.w = heir, heir
		h.check(again)
		next = heir
	}
	h.live.restart()
	next.SetMeta(map[string]string{"adopted:" + dead.id: "1"})
	must(h, next.Checkpoint(context.Background(), h.live))
	h.tables.mailbox, h.tables.cache = maps.Clone(h.mailbox), maps.Clone(h.cache)
	must(h, next.Bury(context.Background(), dead.id))
	if left := h.r.left(h, dead.id, allKeys...); fmt.Sprint(left) != "[mailbox:dead fence]" {
		h.Fatalf("left of the dead node: %v", left)
	}
}

// Whatever happened and whenever the node was killed, the next one finds every session as it was, and what the journal
// repeats changes nothing.
func TestRedisModel(t *testing.T) {
	onEachRedis(t, func(t *testing.T, r *place) {
		rapid.Check(t, func(t *rapid.T) {
			h := &clusterStory{story: newStory(t), r: r}
			h.m = r.node(t)
			h.w = h.m
			defer func() { h.m.die() }()
			t.Repeat(rapid.StateMachineActions(h))
			h.T = t
			h.Kill(t)
		})
	})
}
