//go:build linux

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"holdfast/bench"
)

// Accounts of the steps. Each kind of chat and each round of the offline messages has its own, so that no user has to
// move from one node to the other for it.
const (
	firstChat     = 0    // 100 for each of four kinds
	firstPaced    = 400  // as many
	firstOffline  = 800  // 100 for each round
	firstFailover = 1400 // 2 for each of three kinds
	firstStorm    = 1500 // 10 senders and 1,000 sessions, the same in every round
	firstFree     = 2600
)

// chatKind is a chat between users of the same node, or of two.
type chatKind struct {
	name     string
	to       int // node; who writes is at node 0
	receipts bool
	first    int
}

var chatKinds = []chatKind{
	{"same node, SM", 0, false, 0},
	{"node to node, SM", 1, false, 100},
	{"same node, SM and receipts", 0, true, 200},
	{"node to node, SM and receipts", 1, true, 300},
}

// chat measures saturated chat: what of it is bounded is CPU and the commands of Redis.
func (c *cluster) chat() {
	cfg := bench.ChatConfig{First: firstChat, Duration: scale(c.suite, 3*time.Second, 1500*time.Millisecond)}
	c.talk("50 x 8 on their way", "", cfg)
}

// paced is the same at a moderate rate.
func (c *cluster) paced() {
	cfg := bench.ChatConfig{First: firstPaced, Rate: 1000, Duration: scale(c.suite, 4*time.Second, 2*time.Second)}
	c.talk("1,000/s", "paced ", cfg)
}

func (c *cluster) talk(load, names string, cfg bench.ChatConfig) {
	cfg.SM = true
	first := cfg.First
	figures := make([]*figure, len(chatKinds))
	for i, kind := range chatKinds {
		figures[i] = &figure{Kind: kind.name, Load: load}
	}
	c.table.figures = append(c.table.figures, figures...)
	for range c.rounds {
		for i, kind := range chatKinds {
			cfg.First, cfg.To, cfg.Receipts = first+kind.first, kind.to, kind.receipts
			r, err := bench.Chat(c.target, cfg)
			if err != nil {
				c.table.note("%s, %s: %v", kind.name, load, err)
				c.broken(names, kind, err)
				continue
			}
			if !r.Clean() {
				c.table.note("%s, %s: %+v", kind.name, load, r.Counts)
			}
			c.table.counts.Add(r.Counts)
			figures[i].add(r)
		}
	}
	for i := 0; i < len(chatKinds); i += 2 {
		same, cross := figures[i], figures[i+1]
		degree := "sm "
		if chatKinds[i].receipts {
			degree = "receipts "
			c.line(names + degree + "same commands").server = same.Commands
			c.line(names + degree + "cross commands").server = cross.Commands
		}
		r := c.line(names + degree + "cpu")
		r.server, r.relay = cross.Gateways, same.Gateways
	}
	for _, f := range figures {
		c.table.note("%s, %s, Redis commands for each message: %s", f.Kind, load, f.commands())
	}
}

// broken puts an error into the lines that miss a kind's figures.
func (c *cluster) broken(names string, kind chatKind, err error) {
	if !kind.receipts {
		c.line(names + "sm cpu").fail(err)
		return
	}
	c.line(names + "receipts cpu").fail(err)
	if kind.to == 0 {
		c.line(names + "receipts same commands").fail(err)
	} else {
		c.line(names + "receipts cross commands").fail(err)
	}
}

// perMessage is the calls of each command for each of n messages.
func perMessage(c bench.Counters, n float64) map[string]float64 {
	each := make(map[string]float64)
	for name, calls := range c {
		if command, ok := strings.CutPrefix(name, commandMark); ok && calls > 0 {
			each[command] = calls / n
		}
	}
	return each
}

// commands lists the commands of the first round that matter, most frequent first.
func (f *figure) commands() string {
	if len(f.ByCommand) == 0 {
		return "-"
	}
	each := f.ByCommand[0]
	names := slices.SortedFunc(maps.Keys(each), func(a, b string) int {
		switch {
		case each[a] > each[b]:
			return -1
		case each[a] < each[b]:
			return 1
		}
		return strings.Compare(a, b)
	})
	var text []string
	for _, name := range names[:min(len(names), 6)] {
		text = append(text, fmt.Sprintf("%s %.3f", name, each[name]))
	}
	return strings.Join(text, ", ")
}

// idle notes what a cluster costs that nobody uses.
func (c *cluster) idle() {
	const watched = 3 * time.Second
	time.Sleep(time.Second)
	effort, err := c.target.Watch(watched)
	if err != nil {
		c.table.note("idle cluster: %v", err)
		return
	}
	c.table.note("idle cluster: %.0f Redis commands/s, gateways %.2f %%, Redis %.2f %%, PostgreSQL %.2f %% of a core",
		effort.Beside[commands]/effort.Wall.Seconds(), 100*effort.ServerCPU.Seconds()/effort.Wall.Seconds(),
		effort.Beside[redisCPU]/1e4/effort.Wall.Seconds(), effort.Beside[postgresCPU]/1e4/effort.Wall.Seconds())
}

// offline measures messages to users who are nowhere, and their delivery at the node where nobody wrote to them.
func (c *cluster) offline() {
	names := []string{"store rate", "store cpu", "store postgres", "drain rate", "drain cpu", "drain postgres"}
	fail := func(err error) bool {
		for _, name := range names {
			c.line(name).fail(err)
		}
		return err != nil
	}
	for round := range c.rounds {
		r, err := bench.Offline(c.target, bench.OfflineConfig{First: firstOffline + 100*(round%6), Node: 0, Back: 1})
		if fail(err) {
			return
		}
		c.table.counts.Add(r.Counts)
		if !r.Clean() {
			c.table.note("offline: %+v", r.Counts)
		}
		if r.LeftOver > 0 {
			c.line("drain rate").fail(fmt.Errorf("%d messages came again at the login after", r.LeftOver))
		}
		n := float64(r.Messages)
		for i, value := range []float64{
			n / r.Stored.Seconds(), micros(r.Store.Per(r.Messages)), r.Store.Beside[postgresCPU] / n,
			n / r.Drained.Seconds(), micros(r.Drain.Per(r.Messages)), r.Drain.Beside[postgresCPU] / n,
		} {
			row := c.line(names[i])
			row.server = append(row.server, value)
		}
		if round == 0 {
			c.table.note("offline messages: %.2f Redis commands to store one, %.2f to drain it; Redis %.1f and %.1f µs",
				r.Store.Beside[commands]/n, r.Drain.Beside[commands]/n, r.Store.Beside[redisCPU]/n, r.Drain.Beside[redisCPU]/n)
		}
	}
}

// cut measures sessions that lose their connection and come back to the other node.
func (c *cluster) cut() {
	c.failover("cut", bench.FailoverConfig{First: firstFailover, Rounds: scale(c.suite, 100, 10)})
}

// lease and kill measure a session whose node is killed, with the defaults and with a short lease.
func (c *cluster) lease() {
	c.failover("lease", bench.FailoverConfig{
		First: firstFailover + 2, Rounds: scale(c.suite, 5, 1),
		Kill: c.killNode, Restore: func() error { return c.restore(defaultLease) },
	})
}

func (c *cluster) kill() {
	if err := c.set(quick); c.line("kill p99").fail(err) {
		return
	}
	time.Sleep(2 * quickLease)
	c.failover("kill", bench.FailoverConfig{
		First: firstFailover + 4, Rounds: scale(c.suite, 30, 3),
		Kill: c.killNode, Restore: func() error { return c.restore(quickLease) },
	})
}

func (c *cluster) failover(name string, cfg bench.FailoverConfig) {
	p99, p50 := c.line(name+" p99"), c.line(name+" p50")
	r, err := bench.Failover(c.target, cfg)
	p99.fail(err)
	if p50.fail(err) {
		p99.fail(c.heal())
		return
	}
	c.table.counts.Add(r.Counts)
	if !r.Clean() {
		c.table.note("%s: %+v", p99.work, r.Counts)
	}
	p99.server = []float64{millis(r.Resume.Quantile(0.99))}
	p50.server = []float64{millis(r.Resume.Quantile(0.5))}
	if name == "kill" {
		c.line("kill away").server = []float64{millis(r.Away.Quantile(0.5))}
	}
	c.table.note("%s: %d rounds, from <resume/> p50 %.1f ms, longest %.1f ms; from the loss p50 %.1f ms, longest %.1f ms",
		name, r.Resume.Count(), millis(r.Resume.Quantile(0.5)), millis(r.Resume.Max()),
		millis(r.Away.Quantile(0.5)), millis(r.Away.Max()))
}

// storm measures sessions that lose their node all at once, with messages on their way to them.
func (c *cluster) storm() {
	whole, p99, cpu := c.line("storm"), c.line("storm p99"), c.line("storm cpu")
	fail := func(err error) bool {
		for _, r := range []*row{whole, p99, cpu} {
			r.fail(err)
		}
		return err != nil
	}
	cfg := bench.ResumeConfig{
		First: firstStorm, Sessions: scale(c.suite, 1000, 150), AtOnce: resumersAtOnce, Node: 0, Back: 1, Kill: c.killNode,
	}
	for range c.rounds {
		r, err := bench.Resume(c.target, cfg)
		if fail(err) {
			fail(c.heal())
			return
		}
		c.table.counts.Add(r.Counts)
		if !r.Clean() {
			c.table.note("storm: %+v", r.Counts)
		}
		whole.server = append(whole.server, r.Took.Seconds())
		p99.server = append(p99.server, millis(r.Latency.Quantile(0.99)))
		cpu.server = append(cpu.server, micros(r.PerResume()))
		if fail(c.restore(defaultLease)) {
			return
		}
	}
}
