//go:build linux

package main

import (
	"fmt"
	"time"

	"holdfast/bench"
)

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
func millis(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// scale picks the figure for a whole or a short run.
func scale[T any](s *suite, whole, short T) T {
	if s.short {
		return short
	}
	return whole
}

func (r *row) fail(err error) bool {
	if err != nil && r.err == nil {
		r.err = err
	}
	return err != nil
}

// login compares a login with an accepted connection, and PLAIN of users seen before with SCRAM of the same users.
func (s *suite) login() {
	count := scale(s, 1000, 400)
	scram := s.table.compare("login: open, SCRAM-SHA-256, bind, SM, presence", "µs", 8)
	plain := s.table.compare("PLAIN login of a user seen before", "µs", 1)
	plain.versus = "SCRAM"
	for round := range s.rounds {
		relay, err := bench.Login(s.relayTarget, bench.LoginConfig{Count: count})
		if scram.fail(err) {
			return
		}
		scram.relay = append(scram.relay, micros(relay.PerLogin()))
		first := round * count % (len(s.accounts) - count + 1) // other users each time: none is remembered
		cfg := bench.LoginConfig{First: first, Count: count, SM: true, Mechanism: bench.ScramSHA256}
		gateway, err := bench.Login(s.gatewayTarget, cfg)
		if scram.fail(err) {
			return
		}
		scram.server = append(scram.server, micros(gateway.PerLogin()))
		if round == 0 {
			s.table.note("SCRAM logins: %.0f/s, the generator's share of it %v each",
				float64(gateway.Logins)/gateway.Took.Seconds(), (gateway.LoadCPU / time.Duration(gateway.Logins)).Round(time.Microsecond))
		}

		cfg.Count = count / 2
		again, err := bench.Login(s.gatewayTarget, cfg)
		if plain.fail(err) {
			return
		}
		plain.relay = append(plain.relay, micros(again.PerLogin()))
		cfg.Mechanism = bench.Plain
		if _, err := bench.Login(s.gatewayTarget, cfg); plain.fail(err) { // seen for the first time
			return
		}
		s.table.counts.Add(gateway.Odd)
		s.table.counts.Add(again.Odd)
		seen, err := bench.Login(s.gatewayTarget, cfg)
		if plain.fail(err) {
			return
		}
		plain.server = append(plain.server, micros(seen.PerLogin()))
	}
}

// chat compares saturated one-to-one chat in three degrees of care with the relay's.
func (s *suite) chat() {
	kinds := []struct {
		row *row
		cfg bench.ChatConfig
	}{
		{s.table.compare("plain chat, 50 pairs, 8 outstanding, 100 bytes", "µs/message", 2), bench.ChatConfig{}},
		{s.table.compare("chat with SM, <r/> every 5", "µs/message", 2.5), bench.ChatConfig{SM: true}},
		{s.table.compare("chat with SM and receipts, way back included", "µs/message", 5), bench.ChatConfig{SM: true, Receipts: true}},
	}
	duration := scale(s, 3*time.Second, 1500*time.Millisecond)
	for round := range s.rounds {
		relay, err := bench.Chat(s.relayTarget, bench.ChatConfig{Duration: duration})
		if kinds[0].row.fail(err) {
			return
		}
		if !relay.Clean() {
			s.table.note("the relay itself was not clean: %+v", relay.Counts)
		}
		if round == 0 {
			s.saturation("relay", relay)
		}
		for _, k := range kinds {
			k.row.relay = append(k.row.relay, micros(relay.PerMessage()))
			if k.row.err != nil {
				continue
			}
			k.cfg.Duration = duration
			r, err := bench.Chat(s.gatewayTarget, k.cfg)
			if k.row.fail(err) {
				continue
			}
			k.row.server = append(k.row.server, micros(r.PerMessage()))
			s.table.counts.Add(r.Counts)
			if round == 0 {
				s.saturation(k.row.work, r)
			}
		}
	}
}

// saturation notes the throughput and which core was the limit.
func (s *suite) saturation(what string, r *bench.ChatResult) {
	share := func(d time.Duration) float64 { return 100 * d.Seconds() / r.Wall.Seconds() }
	requests := ""
	if r.Requests > 0 {
		requests = fmt.Sprintf(", %.2f requests for each", float64(r.Requests)/float64(max(r.Done, 1)))
	}
	s.table.note("%s: %.0f messages/s%s, p50 %.2f ms; server's core %.0f %% busy, load's core %.0f %%", what,
		float64(r.Done)/r.Wall.Seconds(), requests, millis(r.Latency.Quantile(0.5)), share(r.ServerCPU), share(r.LoadCPU))
}

// paced compares latencies at a moderate, even rate.
func (s *suite) paced() {
	p50 := s.table.compare("2,000 messages/s evenly paced: p50", "ms", 1.3)
	p99 := s.table.compare("2,000 messages/s evenly paced: p99", "ms", 2)
	cfg := bench.ChatConfig{Rate: 2000, Duration: scale(s, 5*time.Second, 2*time.Second)}
	for range s.rounds {
		relay, err := bench.Chat(s.relayTarget, cfg)
		if p50.fail(err) || p99.fail(err) {
			return
		}
		gateway, err := bench.Chat(s.gatewayTarget, cfg)
		if p50.fail(err) || p99.fail(err) {
			return
		}
		p50.relay = append(p50.relay, millis(relay.Latency.Quantile(0.5)))
		p99.relay = append(p99.relay, millis(relay.Latency.Quantile(0.99)))
		p50.server = append(p50.server, millis(gateway.Latency.Quantile(0.5)))
		p99.server = append(p99.server, millis(gateway.Latency.Quantile(0.99)))
		s.table.counts.Add(gateway.Counts)
		s.table.note("paced p99.9: gateway %.2f ms, relay %.2f ms",
			millis(gateway.Latency.Quantile(0.999)), millis(relay.Latency.Quantile(0.999)))
	}
}

// allocs counts what the gateway allocates during plain chat, less what looking costs.
func (s *suite) allocs() {
	row := s.table.limit("allocations per routed message, plain chat", "allocations", 2)
	var seen []float64
	look := func() {
		n, err := metric(s.admin, "go_memstats_mallocs_total")
		row.fail(err)
		seen = append(seen, n)
	}
	look()
	look()
	r, err := bench.Chat(s.gatewayTarget, bench.ChatConfig{Duration: time.Second, Mark: look})
	if row.fail(err) || row.err != nil {
		return
	}
	s.table.counts.Add(r.Counts)
	looking := seen[1] - seen[0]
	row.server = append(row.server, max(seen[3]-seen[2]-looking, 0)/float64(r.Done))
}

// resumersAtOnce is how many of the 500 are on their way at a time where the latency is judged. The figures of other
// servers that the bound was set by (20 ms at 1,160 µs of CPU each) belong to about 17 at a time; with all 500 at once
// every server's p99 is that many times its cost of one, and the generator's own on top.
const resumersAtOnce = 32

// resume measures storms of sessions that come back.
func (s *suite) resume() {
	each := s.table.limit("resume of 500 cut sessions with 5 queued messages", "µs", 300)
	p99 := s.table.limit("resume of 500, 32 at a time: p99 to the last message", "ms", 10)
	p99.below = true
	cfg := bench.ResumeConfig{Mechanism: bench.Plain}
	for round := range s.rounds {
		cfg.AtOnce = resumersAtOnce
		few, err := bench.Resume(s.gatewayTarget, cfg)
		if p99.fail(err) {
			return
		}
		s.table.counts.Add(few.Counts)
		p99.server = append(p99.server, millis(few.Latency.Quantile(0.99)))
		cfg.AtOnce = 0
		all, err := bench.Resume(s.gatewayTarget, cfg)
		if each.fail(err) {
			return
		}
		s.table.counts.Add(all.Counts)
		each.server = append(each.server, micros(all.PerResume()))
		if round == 0 {
			s.table.note("resume of 500, 32 at a time: %.0f µs each; all 500 at once: p50 %.2f ms, p99 %.2f ms",
				micros(few.PerResume()), millis(all.Latency.Quantile(0.5)), millis(all.Latency.Quantile(0.99)))
		}
	}
}

// idle compares the memory of sessions that do nothing. Both servers are started anew for it, since memory that was
// taken for something else before would serve the sessions.
func (s *suite) idle() {
	sessions := scale(s, []int{5_000, 10_000}, []int{1_000})
	var rows []*row
	for _, n := range sessions {
		rows = append(rows, s.table.compare("idle session with SM, "+thousands(n), "KiB", 1))
	}
	s.idleSessions(rows, sessions, true, func() []*bench.Target { return []*bench.Target{s.relayTarget, s.gatewayTarget} })
}

// idleSessions fills rows, one for each number of sessions. Both servers are started anew, and targets looked up then.
func (s *suite) idleSessions(rows []*row, sessions []int, sm bool, targets func() []*bench.Target) {
	s.stop()
	if err := s.start(); err != nil {
		for _, r := range rows {
			r.fail(err)
		}
		return
	}
	for _, target := range targets() {
		steps, err := bench.Idle(target, bench.IdleConfig{
			Sessions: sessions, SM: sm, Mechanism: bench.ScramSHA256, Patience: scale(s, 12*time.Second, 5*time.Second),
		})
		for i, r := range rows {
			if i >= len(steps) {
				r.fail(err)
				continue
			}
			kib := float64(steps[i].PerSession) / 1024
			if target.Relay {
				r.relay = append(r.relay, kib)
			} else {
				r.server = append(r.server, kib)
			}
		}
	}
}
