//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"holdfast/bench"
	"holdfast/internal/testkit/freeport"
)

// cluster is a run against two gateways with one Redis and one PostgreSQL.
type cluster struct {
	*suite
	lines    map[string]*row
	nodes    [2]*member
	target   *bench.Target
	shared   []string // settings that make a gateway a node of this cluster
	settings []string // and how the nodes are set now, above the defaults
}

// member is one gateway, however often its process is started.
type member struct {
	name          string
	listen, admin string
	process       *process
}

// run measures everything that was asked for, like suite.run.
func (c *cluster) run() error {
	c.lines = make(map[string]*row)
	c.table.columns = [2]string{"cluster", "compared"}
	if err := c.prepare(); err != nil {
		return err
	}
	c.measure([]step{
		{"idle", c.idle},
		{"chat", c.chat},
		{"paced", c.paced},
		{"offline", c.offline},
		{"cut", c.cut},
		{"storm", c.storm},
		{"lease", c.lease},
		{"kill", c.kill},
	})
	c.fillTable()
	return nil
}

// prepare starts the databases, makes the users and starts the nodes.
func (c *cluster) prepare() error {
	beside, err := startBeside(c.serverCores())
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.beside = beside
	c.mu.Unlock()
	database, err := beside.postgres.Database("holdfast")
	if err != nil {
		return fmt.Errorf("making the database: %w", err)
	}
	c.shared = []string{"HOLDFAST_REDIS_URL=" + beside.redis.URL(), "HOLDFAST_DATABASE_URL=" + database}
	if err := c.importUsers(scale(c.suite, firstFree, 1_700), c.shared...); err != nil {
		return err
	}
	c.target = &bench.Target{Name: "cluster", Domain: domain, Accounts: c.accounts, Probe: beside.read}
	for i := range c.nodes {
		n := &member{name: fmt.Sprintf("node%d", i)}
		if n.listen, err = freeport.TakeAddr(); err != nil {
			return err
		}
		if n.admin, err = freeport.TakeAddr(); err != nil {
			return err
		}
		c.nodes[i] = n
		c.target.Nodes = append(c.target.Nodes, "ws://"+n.listen+"/xmpp-websocket")
		if err := c.startNode(n); err != nil {
			return err
		}
	}
	return c.whole()
}

func (c *cluster) startNode(n *member) error {
	env := c.gatewayEnv(n.name, n.listen, n.admin, slices.Concat(c.shared, c.settings)...)
	p, err := launch(n.name, c.dir, c.serverCores(), env, n.listen, c.gateway)
	if err != nil {
		return err
	}
	n.process = p
	c.keep(p)
	fmt.Fprintf(c.progress, "%6.1fs %s listens on %s, admin %s\n", time.Since(c.started).Seconds(), n.name, n.listen, n.admin)
	c.count()
	return ready(n.admin)
}

// count makes the target's processes those that run.
func (c *cluster) count() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.target.PIDs = c.pids()
}

// whole waits until every node sees the other one.
func (c *cluster) whole() error {
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		all := true
		for _, n := range c.nodes {
			members, err := metric(n.admin, "holdfast_cluster_members")
			if err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
			all = all && members == float64(len(c.nodes))
		}
		if all {
			return nil
		}
		if time.Now().After(until) {
			return errors.New("the nodes do not see each other")
		}
	}
}

// heal starts a node again that a step left dead, so that the next one begins with a whole cluster.
func (c *cluster) heal() error {
	for _, n := range c.nodes {
		select {
		case <-n.process.exited:
		default:
			continue
		}
		if err := c.startNode(n); err != nil {
			return err
		}
	}
	return c.whole()
}

// killNode ends the first node and returns when its process is gone.
func (c *cluster) killNode() error {
	c.lose(c.nodes[0].process, (*process).kill)
	c.count()
	return nil
}

// restore brings the first node back and waits until it has been a member for longer than its lease.
func (c *cluster) restore(lease time.Duration) error {
	if err := c.startNode(c.nodes[0]); err != nil {
		return err
	}
	if err := c.whole(); err != nil {
		return err
	}
	time.Sleep(lease + lease/2)
	return nil
}

// set restarts both nodes with other settings.
func (c *cluster) set(settings []string) error {
	if slices.Equal(settings, c.settings) {
		return nil
	}
	c.settings = settings
	for _, n := range c.nodes {
		c.lose(n.process, (*process).stop)
	}
	for _, n := range c.nodes {
		if err := c.startNode(n); err != nil {
			return err
		}
	}
	return c.whole()
}
