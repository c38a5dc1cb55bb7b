//go:build linux

package main

import "time"

// bound is one line of the table of a cluster, and what it is held against.
type bound struct {
	name string // by which the steps know it
	work string
	unit string
	base string  // what the figure is divided by; empty when the bound is a figure
	most float64 // the figure or the ratio; 0 for a line that is only shown
}

// clusterBounds is all that a cluster has to keep, in the order of the table. Losses come after it.
var clusterBounds = []bound{
	{"sm cpu", "CPU of all gateways, node to node, SM, saturated", "µs/message", sameNode, 3},
	{"receipts cpu", "CPU of all gateways, node to node, SM and receipts, saturated", "µs/message", sameNode, 3},
	{"paced sm cpu", "CPU of all gateways, node to node, SM, 1,000/s", "µs/message", sameNode, 3},
	{"paced receipts cpu", "CPU of all gateways, node to node, SM and receipts, 1,000/s", "µs/message", sameNode, 3},

	{"receipts cross commands", "Redis commands, node to node, with receipt, saturated", "commands/message", "", 4},
	{"paced receipts cross commands", "Redis commands, node to node, with receipt, 1,000/s", "commands/message", "", 4},
	{"receipts same commands", "Redis commands, same node, with receipt, saturated", "commands/message", "", 1},
	{"paced receipts same commands", "Redis commands, same node, with receipt, 1,000/s", "commands/message", "", 1},

	{"kill p99", "killed node, beat 100 ms, lease 500 ms: p99 from <resume/> to <resumed/>", "ms", "", 100},
	{"kill p50", "killed node, beat 100 ms, lease 500 ms: p50", "ms", "", 0},
	{"kill away", "killed node, beat 100 ms, lease 500 ms: p50 from kill to <resumed/>", "ms", "", 0},
	{"lease p99", "killed node, defaults: longest from <resume/> to <resumed/>", "ms", "", 100},
	{"lease p50", "killed node, defaults: p50", "ms", "", 0},
	{"cut p99", "cut connection, both nodes alive: p99 from <resume/> to <resumed/>", "ms", "", 100},
	{"cut p50", "cut connection, both nodes alive: p50", "ms", "", 0},

	{"storm", "1,000 sessions of a killed node, 5 queued each, 32 at a time: all back", "s", "", 5},
	{"storm p99", "1,000 sessions of a killed node: p99 from <resume/> to the last message", "ms", "", 0},
	{"storm cpu", "1,000 sessions of a killed node: CPU of the gateway that is left", "µs/session", "", 0},

	{"store rate", "offline messages stored in a second", "messages/s", "", 0},
	{"store cpu", "offline messages: store, CPU of all gateways", "µs/message", "", 0},
	{"store postgres", "offline messages: store, CPU of PostgreSQL", "µs/message", "", 0},
	{"drain rate", "offline messages drained at the other node in a second", "messages/s", "", 0},
	{"drain cpu", "offline messages: drain, CPU of all gateways", "µs/message", "", 0},
	{"drain postgres", "offline messages: drain, CPU of PostgreSQL", "µs/message", "", 0},
}

const sameNode = "same node"

// quick is how the nodes are set for the rounds that kill one over and over.
var quick = []string{"HOLDFAST_CLUSTER_BEAT=100ms", "HOLDFAST_CLUSTER_LEASE=500ms"}

// The leases that a node has to be a member for before it counts as one.
const (
	quickLease   = 500 * time.Millisecond
	defaultLease = 5 * time.Second
)

// line is the table's row of that name, which is made on first use so that parts of a run have only their own.
func (c *cluster) line(name string) *row {
	if r := c.lines[name]; r != nil {
		return r
	}
	for _, b := range clusterBounds {
		if b.name == name {
			r := &row{work: b.work, unit: b.unit, bound: b.most, versus: b.base, free: b.most == 0}
			c.lines[name] = r
			return r
		}
	}
	panic("no bound is called " + name)
}

// fillTable puts the rows that were used into their order.
func (c *cluster) fillTable() {
	for _, b := range clusterBounds {
		if r := c.lines[b.name]; r != nil {
			c.table.rows = append(c.table.rows, r)
		}
	}
}
