//go:build linux

package main

import (
	"time"

	"holdfast/bench"
)

// longPoll is what BOSH is compared with.
const longPoll = "long poll"

func (s *suite) comparePoll(work, unit string, bound float64) *row {
	r := s.table.compare(work, unit, bound)
	r.versus = longPoll
	return r
}

// boshChat compares saturated chat over BOSH with a bare long poll.
func (s *suite) boshChat() {
	kinds := []struct {
		row *row
		cfg bench.ChatConfig
	}{
		{s.comparePoll("BOSH chat, 50 pairs, 8 outstanding, 100 bytes", "µs/message", 1.6), bench.ChatConfig{}},
		{s.comparePoll("the same, one request for all that waits", "µs/message", 0), bench.ChatConfig{Together: -1}},
	}
	kinds[1].row.free = true
	for round := range s.rounds {
		for _, k := range kinds {
			k.cfg.Duration = scale(s, 3*time.Second, 1500*time.Millisecond)
			poll, err := bench.Chat(s.pollTarget, k.cfg)
			if k.row.fail(err) {
				return
			}
			if !poll.Clean() {
				s.table.note("the long poll itself was not clean: %+v", poll.Counts)
			}
			gateway, err := bench.Chat(s.boshTarget, k.cfg)
			if k.row.fail(err) {
				return
			}
			k.row.relay = append(k.row.relay, micros(poll.PerMessage()))
			k.row.server = append(k.row.server, micros(gateway.PerMessage()))
			s.table.counts.Add(gateway.Counts)
			if round == 0 {
				s.saturation(longPoll, poll)
				s.saturation(k.row.work, gateway)
			}
		}
	}
}

// boshPaced compares latencies at an even rate.
func (s *suite) boshPaced() {
	p50 := s.comparePoll("BOSH, 1,000 messages/s evenly paced: p50", "ms", 0)
	p99 := s.comparePoll("BOSH, 1,000 messages/s evenly paced: p99", "ms", 2)
	p50.free = true
	cfg := bench.ChatConfig{Rate: 1000, Duration: scale(s, 5*time.Second, 2*time.Second)}
	for range s.rounds {
		poll, err := bench.Chat(s.pollTarget, cfg)
		if p50.fail(err) || p99.fail(err) {
			return
		}
		gateway, err := bench.Chat(s.boshTarget, cfg)
		if p50.fail(err) || p99.fail(err) {
			return
		}
		p50.relay = append(p50.relay, millis(poll.Latency.Quantile(0.5)))
		p99.relay = append(p99.relay, millis(poll.Latency.Quantile(0.99)))
		p50.server = append(p50.server, millis(gateway.Latency.Quantile(0.5)))
		p99.server = append(p99.server, millis(gateway.Latency.Quantile(0.99)))
		s.table.counts.Add(gateway.Counts)
		s.table.note("BOSH paced: p99.9 %.2f ms, %s %.2f ms; CPU %.0f and %.0f µs for each message",
			millis(gateway.Latency.Quantile(0.999)), longPoll, millis(poll.Latency.Quantile(0.999)),
			micros(gateway.PerMessage()), micros(poll.PerMessage()))
	}
}

// boshIdle compares the memory of sessions that wait.
func (s *suite) boshIdle() {
	sessions := scale(s, []int{5_000, 10_000}, []int{1_000})
	var rows []*row
	for _, n := range sessions {
		rows = append(rows, s.comparePoll("idle BOSH session with a held request, "+thousands(n), "KiB", 1.3))
	}
	s.idleSessions(rows, sessions, false, func() []*bench.Target { return []*bench.Target{s.pollTarget, s.boshTarget} })
}
