// Package wal is the gateway's journal: a crash-safe, segmented, memory-mapped, append-only log. Everything that an
// acknowledgement promises (XEP-0198 queues and counters, the packet cache, offline writes still in flight) is a
// record in it before the acknowledgement leaves.
//
// # Two kinds of safety
//
// A record is stored into a MAP_SHARED mapping of a file. Such bytes belong to the kernel's page cache from the moment
// of the store, so they survive the death of the process (kill -9, a panic, the OOM killer) without a system call.
// They survive the death of the machine once [Log.Sync] covered them. Append costs neither: a copy and a checksum
// under one mutex.
//
// # On disk
//
// A journal is a directory with a lock file and segment files of one size, named by the log position at which they
// begin. A segment starts with a 128-byte header in one disk sector: what was known when the file was prepared (base,
// size, epoch, boot id) and, written when its turn comes, the activation (the oldest live segment; the segment before
// it and where that one's records end). Then records follow, aligned to 8 bytes:
//
//	0  crc32c over the bytes from 8 to the end of the payload, xor the epoch's high half
//	4  tag: the epoch's low half xor the record's offset in the segment
//	8  payload length, uint32
//	12 kind, then three zero bytes
//	16 payload
//
// All numbers are little-endian. The epoch is random and new each time a file is used, so the bytes that a recycled
// file still holds, or bytes that a client chose, pass for a record with probability 2^-64.
//
// # Why a torn record is harmless
//
// The first eight bytes of a record are stored last, with one store whose value depends on a checksum of all the
// others. A process killed before that store leaves a tag of another epoch; there is no moment at which the tag is
// right and the rest is not. A killed thread has performed a prefix of its stores in program order, and appends are
// made one at a time, so after kill -9 at most the last record is missing, and Append had not returned for it. After
// a power cut pages are missing in any combination; each record's checksum finds that out, and nothing that Sync
// covered is among them.
//
// [Open] reads each segment up to the first record that does not check. If checked records follow behind it, or the
// next segment says that this one was longer, something in the middle is damaged: the rest is replayed all the same,
// and [Info].Damage counts what is not there. After a cut of the power that is the unsynced tail; otherwise it is the
// disk.
//
// # Room
//
// Segments are preallocated and filled with zeros, and each page is made writable before a segment is used, so that a
// full disk is an error of the rotation and not a SIGBUS in the middle of a copy. This holds for file systems that
// write in place (ext4, xfs); on one that copies on write (btrfs, zfs) a full disk can still end the process, which
// loses nothing that was appended.
//
// When the files reach Config.Bytes, Append waits until [Log.Free] gives segments back. Whoever calls Free must
// therefore never wait for an Append of its own; [Log.Rotate] does not wait for room. Freed files are used again,
// their pages still in memory and mapped. So what the journal adds to the process's resident memory is its live
// segments and up to two more, from the start: it does not grow with the records.
//
// # Goroutines
//
//   - Append, Rotate, Free, Sync and the readers may be called from any goroutine.
//   - keep prepares the next segment before it is needed and gets rid of freed ones. It alone renames and removes
//     segment files and, until Close, unmaps them. Segments of an earlier process, which are not mapped, are removed
//     by Free.
//   - syncs runs one flush at a time for all who wait.
//
// Lock order: freeing, then mu. The mutex mu is never held over a system call, except the page faults of the copy.
package wal
