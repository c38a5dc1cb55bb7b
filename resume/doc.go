// Package resume is the stored half of XEP-0198: what lets a killed and restarted gateway go on with its clients'
// sessions, with nothing acknowledged lost and nothing repeated.
//
// It has two layers. The journal (internal/wal, with the records of internal/journal) has every effect of a stanza
// before the stanza is acknowledged or sent on: bytes in a shared file mapping, which survive kill -9, and, after
// Settle, on the disk, which survives a power cut. The checkpoint store (SQLite) gets, in one transaction at a time,
// the sessions that changed and what their clients have not acknowledged by then; what was acknowledged before is
// never written there at all. After that the journal forgets.
//
// Invariants:
//
//   - counters are stored with the queue they count: in one record, in one transaction;
//   - the journal is freed only up to a boundary that lies before everything that a checkpoint has not collected, and
//     only when all stores (sessions, packet cache, mailboxes) have committed and the database file is synced;
//   - replay is idempotent: the database may be newer than the oldest record.
//
// Goroutines: Store.Run or Redis.Run, the one that makes checkpoints.
//
// # In a cluster
//
// Redis has both layers, in keys of one slot that only their node writes:
//
//	{n:node}:journal     a stream; an entry is a batch of records, its id the batch's number
//	{n:node}:sessions    ord -> counters and state
//	{n:node}:queues      ord:last -> the part of a queue that one checkpoint wrote, up to the place last
//	{n:node}:meta        marks, written in one step with a checkpoint
//	{n:node}:checkpoint  the last write's number, the first batch that is needed
//	{n:node}:fence       who adopts the estate; the journal is journal:dead then, the mailbox mailbox:dead
//	{e:token}            an ended session, for all nodes
//
// An append copies the record and returns; one goroutine writes what has come together with one command, and says
// then that it is Sendable. So delivery waits for Redis where it does not wait for the mapping. Records that nobody
// waits for go with others, within a window. What Redis did with a command whose reply was lost is not known: every
// write has a number, so that a second attempt changes nothing and one that arrives late is refused.
//
// Further invariants:
//
//   - a node that was fenced can write nothing, whenever it wakes up: each write finds its stream gone, and is one step;
//   - what was refused never becomes sendable, and nothing is once a node knows that it was fenced;
//   - while Redis does not answer, Settle says yes to nothing, and Sendable to everything, as long as a witness knows that
//     nobody has fenced the node;
//   - after any write that failed, and after Redis fell back to an earlier state, the next checkpoint writes everything
//     (TouchAller), since its journal may have a hole. An estate with a hole is taken over like a journal after a power
//     cut: queues go to the mailboxes, and nobody resumes.
//
// Goroutines: groupCommit.run, one a node, ends with Close, Leave or a fence; the timer of its patience calls OnSendable too,
// and groupCommit.vouch while Redis does not answer.
package resume
