package resume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/internal/journal"
	"holdfast/internal/sqlx"
	"holdfast/internal/wal"
	"holdfast/stanza"
)

// Store is the journal and the checkpoints behind it.
type Store struct {
	*checkpointing

	// static
	cfg   Config
	wal   *wal.Log
	db    *checkpoints
	ended *ended

	freed atomic.Int64 // journal position before which nothing is kept
	gone  []uint64     // in the database, but the journal says that they ended; guarded by one
}

// Open opens the journal beside the database and works out what an earlier process left. Nothing of it is forgotten
// before the first checkpoint.
func Open(ctx context.Context, cfg Config, db *sqlx.DB, log *slog.Logger, reg prometheus.Registerer) (*Store, *Recovered, error) {
	cp, err := openCheckpoints(ctx, db)
	if err != nil {
		return nil, nil, err
	}
	s := &Store{checkpointing: newCheckpointing(cfg.Interval, log, newMetrics(reg)), cfg: cfg, db: cp, ended: newEnded(cfg.Ended)}
	r := newRecovery(log)
	if err := r.load(ctx, cp); err != nil {
		return nil, nil, err
	}
	stored := make([]uint64, 0, len(r.sessions))
	for ord := range r.sessions {
		stored = append(stored, ord)
	}
	// The cap is kept by Room, which waits where no lock is held: an Append that waited for a checkpoint while it
	// holds what the checkpoint needs would wait for ever.
	unbounded := cfg.Config
	unbounded.Bytes = 0
	s.wal, err = wal.Open(filepath.Join(db.Dir(), "journal"), unbounded, r.replay, wal.WithLogger(log), wal.WithMetrics(reg))
	if err != nil {
		return nil, nil, fmt.Errorf("resume: %w", err)
	}
	for _, ord := range stored {
		if r.sessions[ord] == nil {
			s.gone = append(s.gone, ord)
		}
	}
	for _, e := range r.ended {
		s.ended.remember(e)
	}
	info := s.wal.Info()
	s.freed.Store(info.Boundary - info.Bytes)
	if !info.SameBoot && !info.CleanShutdown {
		// What was appended after the last Settle may be missing, and with it counts that clients were told.
		// Their sessions can't be resumed without repeating or skipping something, so they end: the queues
		// go to offline storage.
		for _, sess := range r.sessions {
			if sess.State == nil {
				continue
			}
			sess.State.Unresumable()
			// For the next process too, should this one be killed before it has ended them.
			if err := s.Session(sess.State); err != nil {
				return nil, nil, errors.Join(fmt.Errorf("resume: %w", err), s.wal.Close())
			}
		}
		log.Warn("the machine went down, sessions of before can't be resumed")
	}
	// What clients will be told when they resume was in the page cache of a process that is gone, perhaps no further.
	if err := s.Settle(ctx); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("resume: %w", err), s.wal.Close())
	}
	rec := r.result()
	log.Info("journal read", "records", info.Records, "sessions", len(rec.Sessions), "unreadable", r.skipped)
	return s, rec, nil
}

// Stanza implements session.Journal.
func (s *Store) Stanza(r *journal.Stanza) error {
	var buf [160]byte
	_, err := s.wal.Append(uint8(journal.KindStanza), r.AppendHead(buf[:0]), r.Stanza.Raw())
	return err
}

// Count implements session.Journal.
func (s *Store) Count(k journal.Kind, session, count uint64) error {
	var buf [16]byte
	_, err := s.wal.Append(uint8(k), journal.AppendCount(buf[:0], session, count), nil)
	return err
}

// Session implements session.Journal.
func (s *Store) Session(r *journal.Session) error {
	var buf [512]byte
	_, err := s.wal.Append(uint8(journal.KindSession), r.Append(buf[:0]), nil)
	return err
}

// IDs implements session.Journal.
func (s *Store) IDs(k journal.Kind, user stanza.Addr, ids []stanza.ID) error {
	var buf [256]byte
	_, err := s.wal.Append(uint8(k), journal.AppendIDs(buf[:0], user, ids), nil)
	return err
}

// Directed implements session.Journal.
func (s *Store) Directed(session uint64, to stanza.Addr, add bool) error {
	var buf [256]byte
	_, err := s.wal.Append(uint8(journal.KindDirected), journal.AppendDirected(buf[:0], session, to, add), nil)
	return err
}

// Room implements session.Journal: it waits while the journal is at its cap.
func (s *Store) Room(ctx context.Context) error { return s.waitRoom(ctx, s.full) }

func (s *Store) full() bool { return s.cfg.Bytes > 0 && s.used() >= s.cfg.Bytes }

func (s *Store) used() int64 { return s.wal.End() - s.freed.Load() }

// Settle implements session.Journal.
func (s *Store) Settle(ctx context.Context) error {
	_, err := s.wal.Sync(ctx)
	return err
}

// Remember implements session.Ended.
func (s *Store) Remember(token string, user stanza.Addr, h uint32) {
	s.ended.remember(endedSession{token, user, h, time.Now()})
}

// Recall implements session.Ended.
func (s *Store) Recall(token string, user stanza.Addr) (uint32, bool) {
	if h, ok, known := s.ended.recall(token, user); known {
		return h, ok
	}
	ctx, cancel := context.WithTimeout(context.Background(), recallTime)
	defer cancel()
	owner, handled, ok := s.db.recall(ctx, token)
	return handled, ok && owner == user.String()
}

// Run makes checkpoints until ctx ends. A checkpoint that fails is tried again; meanwhile the journal grows to its
// cap, and then stanzas wait.
func (s *Store) Run(ctx context.Context, live Live, others ...Flusher) {
	when := trigger{func() int64 { return int64(s.wal.Stats().Records) }, s.wal.Pressure(), s.pressing}
	s.run(ctx, when, func(ctx context.Context) error { return s.Checkpoint(ctx, live, others...) })
}

func (s *Store) pressing() bool {
	limit := 4 * s.cfg.Segment
	if s.cfg.Bytes > 0 {
		limit = s.cfg.Bytes / 4
	}
	return s.used() > limit
}

// Checkpoint writes what changed to the database and frees the journal up to where it began.
func (s *Store) Checkpoint(ctx context.Context, live Live, others ...Flusher) (err error) {
	s.one.Lock()
	defer s.one.Unlock()
	start := time.Now()
	defer func() { s.outcome(err, time.Since(start)) }()
	var boundary int64
	var rotated error
	changed, gone, commit, abort := live.Collect(func() { boundary, rotated = s.wal.Rotate() })
	switch {
	case errors.Is(rotated, wal.ErrClosed):
		abort()
		return rotated
	case rotated != nil:
		// No new segment could begin. The boundary before the present one is good all the same, and freeing
		// up to there is what makes room.
		s.log.Warn("journal goes on in the same segment", "error", rotated)
	}
	gone = append(gone, s.gone...)
	ended := s.ended.take()
	if err := s.db.write(ctx, changed, gone, ended, time.Now().Add(-s.cfg.Ended)); err != nil {
		abort()
		s.ended.putBack(ended)
		return fmt.Errorf("resume: write checkpoint: %w", err)
	}
	commit()
	s.gone = nil
	for _, f := range others {
		if err := f.Checkpoint(ctx); err != nil {
			return fmt.Errorf("resume: checkpoint of another store: %w", err)
		}
	}
	if err := s.db.sync(ctx); err != nil {
		return fmt.Errorf("resume: sync database: %w", err)
	}
	if err := s.wal.Free(boundary); err != nil {
		return fmt.Errorf("resume: free journal: %w", err)
	}
	s.freed.Store(boundary)
	s.madeRoom()
	return nil
}

// Close makes the journal durable. What no checkpoint has taken is read back by the next process.
func (s *Store) Close() error { return s.wal.Close() }
