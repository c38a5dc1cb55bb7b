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
// Goroutines: Store.Run, the one that makes checkpoints.
package resume
