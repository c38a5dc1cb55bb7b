package resume

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// This file is about what goes on while Redis does not answer.

// A node that can't reach Redis does not know whether the others can, and may have taken it for dead. What it delivers
// then, its heir delivers again. So it asks a witness that both can reach, before it delivers anything without Redis and
// again all the time, and believes the answer for VouchTime; an heir that is not sure that the node is dead waits for so
// long, between telling the witness and taking anything over.
const (
	VouchTime  = time.Second
	vouchEvery = VouchTime / 4
	forEver    = math.MaxInt64
)

// sendableNow is the position up to which records may have consequences.
func (q *groupCommit) sendableNow() uint64 {
	s := q.sendable.Load()
	if s == everything {
		if until := q.vouched.Load(); until != forEver && int64(time.Since(q.begun)) >= until {
			return q.flushed.Load()
		}
	}
	return s
}

// degrade lets what is sent inside this process go on without Redis.
func (q *groupCommit) degrade() {
	q.mu.Lock()
	if q.err != nil || q.degraded || q.since.IsZero() || time.Since(q.since) < q.cfg.Patience {
		q.mu.Unlock()
		return
	}
	q.degraded, q.until = true, 0
	q.metrics.degraded.Set(1)
	q.vouched.Store(0)
	if q.witness == nil {
		q.vouched.Store(forEver)
	}
	q.sendable.Store(everything)
	if q.witness != nil && !q.vouching {
		q.vouching = true
		q.vouchers.Go(q.vouch)
	}
	q.mu.Unlock()
	q.log.Warn("redis does not answer, local messages go on without it", "after", q.cfg.Patience)
	q.tell()
}

// vouch asks the witness until Redis answers again.
func (q *groupCommit) vouch() {
	t := time.NewTicker(vouchEvery)
	defer t.Stop()
	for told := false; ; {
		asked := time.Since(q.begun)
		ctx, cancel := context.WithTimeout(q.ctx, VouchTime)
		err := q.witness(ctx)
		cancel()
		q.mu.Lock()
		if !q.degraded || q.err != nil {
			q.vouching = false
			q.mu.Unlock()
			return
		}
		if err == nil {
			q.vouched.Store(int64(asked + VouchTime))
		}
		q.mu.Unlock()
		switch {
		case err == nil:
			told = false
			q.tell()
		case errors.Is(err, ErrFenced):
			q.fence()
		case !told:
			told = true
			q.log.Warn("nobody knows whether other nodes have taken over, local messages wait", "error", err)
		}
		select {
		case <-q.ctx.Done():
			return
		case <-t.C:
		}
	}
}

// fence gives up what is queued: it must never be taken for sendable.
func (q *groupCommit) fence() {
	q.mu.Lock()
	if errors.Is(q.err, ErrFenced) {
		q.mu.Unlock()
		return
	}
	q.err = ErrFenced
	q.cancel()
	q.patience.Stop()
	q.degraded, q.since = false, time.Time{}
	q.metrics.degraded.Set(0)
	q.sendable.Store(q.flushed.Load())
	q.queue, q.spare = nil, nil
	q.progressLocked()
	close(q.fenced)
	q.mu.Unlock()
	q.log.Error("fenced: another node has taken over")
}

// healthy says since when Redis does not answer.
func (q *groupCommit) healthy() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.degraded {
		return fmt.Errorf("redis has not answered since %s", q.since.Format(time.RFC3339))
	}
	return nil
}
