// Package redisx is what the rooms that keep live state in Redis share: the settings, the client for each way that
// Redis is deployed (one server, Sentinel, Cluster), the names of the keys, scripts, and which errors waiting may mend.
//
// Keys carry hash tags, so that all that is one node's, one user's or one session's lies in one slot of a Redis Cluster
// and can be changed in one atomic step; different nodes, users and sessions spread over all of them.
//
// The package has no goroutines; those of the client end with its Close.
package redisx
