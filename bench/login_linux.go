package bench

import (
	"cmp"
	"time"
)

// LoginConfig is a number of logins: open, SASL, bind, stream management when asked, presence; on a relay an
// accepted connection.
type LoginConfig struct {
	First     int // account to begin with
	Count     int // 500 when 0
	AtOnce    int // logins under way at a time, 32 when 0
	Mechanism Mechanism
	SM        bool
}

// LoginResult is what the logins took, without the logouts.
type LoginResult struct {
	Effort
	Logins int
	Odd    Counts        // messages that came without having been sent
	Took   time.Duration // from the first to the last, without the time to settle
}

// PerLogin is the server's CPU time for one login.
func (r *LoginResult) PerLogin() time.Duration { return r.Per(r.Logins) }

// Login runs the scenario.
func Login(t *Target, cfg LoginConfig) (*LoginResult, error) {
	cfg.Count, cfg.AtOnce = cmp.Or(cfg.Count, 500), cmp.Or(cfg.AtOnce, 32)
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	defer l.close()
	everybody, err := t.gather(l, cfg.First, cfg.Count, profile{mechanism: cfg.Mechanism, sm: cfg.SM, presence: true})
	if err != nil {
		return nil, err
	}
	m, err := t.meter()
	if err != nil {
		return nil, err
	}
	if err := everybody.login(cfg.AtOnce); err != nil {
		return nil, err
	}
	r := &LoginResult{Logins: cfg.Count, Took: time.Since(m.started)}
	if err := l.settle(t.PIDs, 2*time.Second); err != nil {
		return nil, err
	}
	if r.Effort, err = m.read(); err != nil {
		return nil, err
	}
	everybody.logout()
	r.Odd = everybody.odd
	return r, l.settle(t.PIDs, 2*time.Second)
}
