package bench

import (
	"fmt"
	"os"
	"time"
)

// Target is a server to load.
type Target struct {
	Name     string
	URL      string   // ws://host:port/path, or http://host:port/path for BOSH and the long poll
	Nodes    []string // of a cluster, instead of URL: the address of every node
	Relay    bool     // it is bench/relay rather than an XMPP server
	Domain   string
	Accounts []*Account // an XMPP server's users; a relay has none
	PIDs     []int      // the server's processes on this machine; none to measure nothing of them

	// Probe, when set, reads counters of what stands beside the server, its databases for example. It is called at both
	// ends of every stretch that is measured.
	Probe func() (Counters, error)
}

// Counters are values that only grow, by name.
type Counters map[string]float64

// Since is what was added since before.
func (c Counters) Since(before Counters) Counters {
	grown := make(Counters, len(c))
	for name, value := range c {
		grown[name] = value - before[name]
	}
	return grown
}

// meter is what a stretch of a scenario took.
type meter struct {
	target  *Target
	started time.Time
	server  time.Duration
	load    time.Duration
	beside  Counters
}

// Effort is what a stretch of a scenario took.
type Effort struct {
	Wall      time.Duration
	ServerCPU time.Duration // user and system time of the server's processes
	LoadCPU   time.Duration // of the generator: near Wall when its one core was the limit
	Beside    Counters      // what Target.Probe found to have grown
}

// Per is the server's CPU time for each of n.
func (e Effort) Per(n int) time.Duration {
	if n == 0 {
		return 0
	}
	return e.ServerCPU / time.Duration(n)
}

func (t *Target) meter() (m meter, err error) {
	if t.Probe != nil {
		if m.beside, err = t.Probe(); err != nil {
			return m, err
		}
	}
	m.target, m.started = t, time.Now()
	if m.server, err = cpuOf(t.PIDs); err != nil {
		return m, err
	}
	m.load, err = CPUTime(os.Getpid())
	return m, err
}

// Watch is what the server takes for a time in which nothing is asked of it.
func (t *Target) Watch(d time.Duration) (Effort, error) {
	m, err := t.meter()
	if err != nil {
		return Effort{}, err
	}
	time.Sleep(d)
	return m.read()
}

func (m meter) read() (e Effort, err error) {
	e.Wall = time.Since(m.started)
	server, err := cpuOf(m.target.PIDs)
	if err != nil {
		return e, err
	}
	load, err := CPUTime(os.Getpid())
	e.ServerCPU, e.LoadCPU = server-m.server, load-m.load
	if m.target.Probe != nil && err == nil {
		var beside Counters
		beside, err = m.target.Probe()
		e.Beside = beside.Since(m.beside)
	}
	return e, err
}

// lastPatience is how long Chat and Room wait at the end for what is still on its way. Only a loss makes them wait that long.
var lastPatience = 30 * time.Second

// crowd is a group of clients on one loop. The first failure of any of them is kept, and ends what is waited for.
type crowd struct {
	loop    *loop
	target  *Target
	nodes   []*endpoint // of a target that is no cluster: one
	clients []*client
	ready   int
	err     error
	odd     Counts // messages that nothing else accounts for
}

// gather makes clients for the target's accounts from first on; nothing is connected yet.
func (t *Target) gather(l *loop, first, count int, how profile) (*crowd, error) {
	nodes, err := t.resolve()
	if err != nil {
		return nil, err
	}
	if !t.Relay && first+count > len(t.Accounts) {
		return nil, fmt.Errorf("bench: %s: %d accounts are needed, %d are there", t.Name, first+count, len(t.Accounts))
	}
	if how.mechanism == "" {
		how.mechanism = ScramSHA256
	}
	c := &crowd{loop: l, target: t, nodes: nodes}
	for i := first; i < first+count; i++ {
		one := &client{loop: l, target: t, to: nodes[0], ordinal: i, how: how}
		if nodes[0].http {
			one.carrier = newBOSH(one)
		} else {
			one.carrier = newLink(one)
		}
		if !t.Relay {
			one.account = t.Accounts[i]
		}
		one.onFail = c.fail
		one.onMessage = c.stray // until the scenario expects something
		c.clients = append(c.clients, one)
	}
	return c, nil
}

func (t *Target) resolve() (nodes []*endpoint, err error) {
	urls := t.Nodes
	if len(urls) == 0 {
		urls = []string{t.URL}
	}
	for _, url := range urls {
		to, err := resolve(url)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, to)
	}
	return nodes, nil
}

// at makes the clients connect to a node of the cluster from now on.
func (c *crowd) at(node int, clients ...*client) error {
	if node < 0 || node >= len(c.nodes) {
		return fmt.Errorf("bench: %s: there is no node %d", c.target.Name, node)
	}
	for _, one := range clients {
		one.to = c.nodes[node]
	}
	return nil
}

func (c *crowd) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// stray counts a message that was not expected.
func (c *crowd) stray(f []byte) {
	if isError(f) {
		c.odd.Errors++
	} else {
		c.odd.Unknown++
	}
	if c.odd.Odd == "" {
		c.odd.Odd = string(f)
	}
}

// until turns the loop until done, the first failure or the end of patience.
func (c *crowd) until(patience time.Duration, what string, done func() bool) error {
	err := c.loop.run(patience, func() bool { return c.err != nil || done() })
	if c.err != nil {
		err = c.err
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", c.target.Name, what, err)
	}
	return nil
}

// forTime turns the loop for a time, or until the first failure.
func (c *crowd) forTime(d time.Duration) error {
	end := time.Now().Add(d)
	return c.until(d+5*time.Second, "chat", func() bool { return !time.Now().Before(end) })
}

// login connects everybody, atOnce at a time (0: all), and waits until they are ready.
func (c *crowd) login(atOnce int) error {
	if atOnce <= 0 {
		atOnce = len(c.clients)
	}
	next := 0
	start := func() {
		if next < len(c.clients) {
			next++
			c.clients[next-1].start()
		}
	}
	for _, one := range c.clients {
		one.onReady = func() {
			c.ready++
			c.loop.later(start)
		}
	}
	for range min(atOnce, len(c.clients)) {
		start()
	}
	patience := time.Minute + time.Duration(len(c.clients))*20*time.Millisecond // an overloaded machine is no failure
	return c.until(patience, "login", func() bool { return c.ready == len(c.clients) })
}

// logout leaves properly, many at a time, and drops who has not been let go in a few seconds.
func (c *crowd) logout() {
	for _, one := range c.clients {
		one.leave()
	}
	open := func() bool {
		for _, one := range c.clients {
			if one.open() {
				return true
			}
		}
		return false
	}
	_ = c.loop.run(5*time.Second, func() bool { return !open() })
	for _, one := range c.clients {
		one.drop()
	}
}

// acknowledged asks for the last acknowledgements and waits for them. It returns how many stanzas stay without.
func (c *crowd) acknowledged(patience time.Duration) (missing int) {
	count := func() int {
		n := 0
		for _, one := range c.clients {
			if one.counted {
				n += int(one.sent - one.acked)
			}
		}
		return n
	}
	for _, one := range c.clients {
		if one.counted && one.sent != one.acked {
			one.text(frameR)
		}
	}
	_ = c.until(patience, "last acknowledgements", func() bool { return count() == 0 })
	return count()
}
