// Package testkit holds what tests of the whole gateway share, one folder for each part:
//
//   - cutproxy stands between a client and the gateway and breaks the network on command;
//   - freeport finds ports for the servers that the others start;
//   - gatewayproc builds the gateway's binary and runs it, kills it and starts it again, alone or as a cluster;
//   - haproxyproc runs HAProxy with TLS in front of gateways;
//   - xmppclient is a model client with strict XEP-0198 bookkeeping, and a bare connection for ill-behaved ones;
//   - boshclient is the same over BOSH, with strict bookkeeping of rids and answers;
//   - redisproc and postgresproc run, kill and pause servers of Redis and PostgreSQL;
//   - pipes is a listener in memory;
//   - tally counts what was sent, acknowledged and delivered, and what was lost, repeated or out of order.
//
// Nothing but tests may import it.
package testkit
