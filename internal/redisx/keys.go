package redisx

// Keys builds the names of keys. What stands in braces decides on the slot in a Redis Cluster.
type Keys struct{ Prefix string }

// Node is a key of one node. All keys of a node are in one slot.
func (k Keys) Node(node, what string) string { return k.Prefix + "{n:" + node + "}:" + what }

// Home says which node a user, by bare address, is served by, and for which term.
func (k Keys) Home(user string) string { return k.Prefix + "{h:" + user + "}" }

// Nodes is the list of members.
func (k Keys) Nodes() string { return k.Prefix + "nodes" }

// Deaths says when nodes died that are not buried.
func (k Keys) Deaths() string { return k.Prefix + "deaths" }

// Ended remembers a session that is over, by its XEP-0198 id.
func (k Keys) Ended(token string) string { return k.Prefix + "{e:" + token + "}" }
