package bench

import (
	"cmp"
	"fmt"
	"time"
)

// IdleConfig is clients that log in and say nothing more; they answer what the server asks.
type IdleConfig struct {
	Sessions  []int // to measure at, ascending
	Before    int   // logged in before memory is looked at first, 100 when 0
	SM        bool
	Mechanism Mechanism
	Patience  time.Duration // for memory to stop changing, 12 s when 0
}

// IdleStep is one measurement.
type IdleStep struct {
	Sessions   int
	PerSession int64 // bytes of resident memory for each session since the first look
}

// Idle runs the scenario. Its figures are good for a server that was started for it: what a server took for
// something else before and did not give back would serve the sessions.
func Idle(t *Target, cfg IdleConfig) ([]IdleStep, error) {
	cfg.Before, cfg.Patience = cmp.Or(cfg.Before, 100), cmp.Or(cfg.Patience, 12*time.Second)
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	defer l.close()
	how := profile{mechanism: cfg.Mechanism, sm: cfg.SM, presence: true}
	var groups []*crowd
	total := 0
	grow := func(to int) error {
		more, err := t.gather(l, total, to-total, how)
		if err != nil {
			return err
		}
		groups = append(groups, more)
		total = to
		return more.login(32)
	}
	defer func() {
		for _, g := range groups {
			g.logout()
		}
	}()
	if err := grow(cfg.Before); err != nil {
		return nil, err
	}
	base, err := steadyResident(l, t.PIDs, cfg.Patience)
	if err != nil {
		return nil, err
	}
	var steps []IdleStep
	for _, n := range cfg.Sessions {
		if err := grow(n); err != nil {
			return steps, err
		}
		now, err := steadyResident(l, t.PIDs, cfg.Patience)
		if err != nil {
			return steps, err
		}
		for _, g := range groups {
			if g.err != nil {
				return steps, fmt.Errorf("%s: an idle session ended: %w", t.Name, g.err)
			}
		}
		steps = append(steps, IdleStep{Sessions: n, PerSession: (now - base) / int64(n-cfg.Before)})
	}
	return steps, nil
}

// steadyResident waits until memory has changed by less than 0.5 % for two seconds.
func steadyResident(l *loop, pids []int, patience time.Duration) (int64, error) {
	last, err := residentOf(pids)
	if err != nil {
		return 0, err
	}
	calm := 0
	for until := time.Now().Add(patience); calm < 4 && time.Now().Before(until); {
		if err := l.runFor(500 * time.Millisecond); err != nil {
			return 0, err
		}
		now, err := residentOf(pids)
		if err != nil {
			return 0, err
		}
		if diff := now - last; diff*diff < (last/200)*(last/200) {
			calm++
		} else {
			calm, last = 0, now
		}
	}
	return residentOf(pids)
}
