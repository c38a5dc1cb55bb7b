//go:build linux

package main

import (
	"errors"
	"fmt"
	"time"

	"holdfast/bench"
	"holdfast/internal/testkit/freeport"
	"holdfast/internal/testkit/postgresproc"
)

// Bounds of offline messages: CPU of the gateway for each, whatever the database.
const (
	storeBound = 50 // µs
	drainBound = 15 // µs
)

// mailRows is what is said of offline messages in one database.
type mailRows struct {
	store, drain         *row // CPU of the gateway
	storeRate, drainRate *row
}

func (s *suite) mailRows(database string) mailRows {
	work := "offline messages, " + database + ": "
	rows := mailRows{
		store:     s.table.limit(work+"store", "µs/message", storeBound),
		storeRate: s.table.limit(work+"stored in a second", "messages/s", 0),
		drain:     s.table.limit(work+"drain at login", "µs/message", drainBound),
		drainRate: s.table.limit(work+"drained in a second", "messages/s", 0),
	}
	rows.storeRate.free, rows.drainRate.free = true, true
	return rows
}

func (r mailRows) fail(err error) bool {
	for _, row := range []*row{r.store, r.storeRate, r.drain, r.drainRate} {
		row.fail(err)
	}
	return err != nil
}

// mail measures storing messages for users who are away, and their delivery, once. It reports false when it could not.
func (s *suite) mail(target *bench.Target, first int, rows mailRows) (r *bench.OfflineResult, ok bool) {
	r, err := bench.Offline(target, bench.OfflineConfig{First: first, Mechanism: bench.Plain})
	if rows.fail(err) {
		return nil, false
	}
	s.table.counts.Add(r.Counts)
	if r.LeftOver > 0 {
		rows.drain.fail(errors.New("messages came again at the login after"))
	}
	n := float64(r.Messages)
	rows.store.server = append(rows.store.server, micros(r.Store.Per(r.Messages)))
	rows.storeRate.server = append(rows.storeRate.server, n/r.Stored.Seconds())
	rows.drain.server = append(rows.drain.server, micros(r.Drain.Per(r.Messages)))
	rows.drainRate.server = append(rows.drainRate.server, n/r.Drained.Seconds())
	return r, true
}

// offline is about SQLite.
func (s *suite) offline() {
	rows := s.mailRows("SQLite")
	for range s.rounds {
		if _, ok := s.mail(s.gatewayTarget, 600, rows); !ok {
			return
		}
	}
}

// offlinePostgres is the same with a gateway whose messages are in PostgreSQL, both started for it.
func (s *suite) offlinePostgres() {
	rows := s.mailRows("PostgreSQL")
	storeCPU := s.table.limit("offline messages, PostgreSQL: store, CPU of PostgreSQL", "µs/message", 0)
	drainCPU := s.table.limit("offline messages, PostgreSQL: drain, CPU of PostgreSQL", "µs/message", 0)
	storeCPU.free, drainCPU.free = true, true
	target, end, err := s.startWithPostgres(100)
	defer end()
	if rows.fail(err) {
		storeCPU.fail(err)
		drainCPU.fail(err)
		return
	}
	for range s.rounds {
		r, ok := s.mail(target, 0, rows)
		if !ok {
			return
		}
		storeCPU.server = append(storeCPU.server, r.Store.Beside[postgresCPU]/float64(r.Messages))
		drainCPU.server = append(drainCPU.server, r.Drain.Beside[postgresCPU]/float64(r.Messages))
	}
}

// startWithPostgres starts a PostgreSQL and a gateway over it, on the servers' core, with so many users. end ends what was
// started, also beside an error.
func (s *suite) startWithPostgres(users int) (target *bench.Target, end func(), err error) {
	const data = "data-postgres"
	var gateway *process
	end = func() {
		if gateway != nil {
			s.lose(gateway, (*process).stop)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if used, err := s.beside.cpu(); err == nil {
			s.ended += used
		}
		s.beside.close()
		s.beside = nil
	}
	b := &beside{}
	if b.postgres, err = postgresproc.Run(); err != nil {
		return nil, end, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	s.mu.Lock()
	s.beside = b
	s.mu.Unlock()
	if core := s.serverCores(); len(core) > 0 {
		for _, pid := range b.postgres.PIDs() {
			if err := bench.PinProcess(pid, core...); err != nil {
				return nil, end, err
			}
		}
	}
	url, err := b.postgres.Database("holdfast")
	if err != nil {
		return nil, end, fmt.Errorf("making the database: %w", err)
	}
	database := "HOLDFAST_DATABASE_URL=" + url
	accounts := bench.NumberedAccounts("u", users, password)
	if err := s.importInto(data, accounts, database); err != nil {
		return nil, end, err
	}
	var addresses [2]string
	for i := range addresses {
		if addresses[i], err = freeport.TakeAddr(); err != nil {
			return nil, end, err
		}
	}
	env := s.gatewayEnv(data, addresses[0], addresses[1], database)
	if gateway, err = launch("gateway-postgres", s.dir, s.serverCores(), env, addresses[0], s.gateway); err != nil {
		return nil, end, err
	}
	s.keep(gateway)
	fmt.Fprintf(s.progress, "%6.1fs a gateway with PostgreSQL listens on %s\n", time.Since(s.started).Seconds(), addresses[0])
	target = &bench.Target{
		Name: "gateway with PostgreSQL", URL: "ws://" + addresses[0] + "/xmpp-websocket", Domain: domain,
		Accounts: accounts, PIDs: []int{gateway.cmd.Process.Pid},
		Probe: func() (bench.Counters, error) {
			used, err := b.postgresCPU()
			return bench.Counters{postgresCPU: micros(used)}, err
		},
	}
	return target, end, ready(addresses[1])
}
