//go:build linux

package main

import (
	"fmt"
	"time"

	"holdfast/bench"
)

// versusChat is what a copy of a room's message is compared with.
const versusChat = "chat with SM"

// room compares a copy of a message in a room with a message between two, all with XEP-0198, and holds the latency at a moderate
// rate against a bound.
func (s *suite) room() {
	kinds := []struct {
		row *row
		cfg bench.RoomConfig
	}{
		{
			s.table.compare("copy of a message in a room of 20, against a message between two", "µs/copy", 1.1),
			bench.RoomConfig{Rooms: 10, Occupants: 20},
		},
		{
			s.table.compare("copy of a message in a room of 200, against the same", "µs/copy", 0.95),
			bench.RoomConfig{Rooms: 1, Occupants: 200},
		},
	}
	duration := scale(s, 3*time.Second, 1500*time.Millisecond)
	for round := range s.rounds {
		chat, err := bench.Chat(s.gatewayTarget, bench.ChatConfig{SM: true, Duration: duration})
		if kinds[0].row.fail(err) || kinds[1].row.fail(err) {
			return
		}
		s.table.counts.Add(chat.Counts)
		for _, k := range kinds {
			k.row.versus = versusChat
			if k.row.err != nil {
				continue
			}
			k.cfg.SM, k.cfg.Duration = true, duration
			r, err := bench.Room(s.gatewayTarget, k.cfg)
			if k.row.fail(err) {
				continue
			}
			k.row.relay = append(k.row.relay, micros(chat.PerMessage()))
			k.row.server = append(k.row.server, micros(r.PerCopy()))
			s.table.counts.Add(r.Counts)
			if round == 0 {
				s.roomSaturation(k.cfg, r)
			}
		}
	}
	s.roomPaced()
}

// roomSaturation notes the throughput and which core was the limit.
func (s *suite) roomSaturation(cfg bench.RoomConfig, r *bench.RoomResult) {
	seconds := r.Wall.Seconds()
	s.table.note("%d rooms of %d: %.0f messages/s, %.0f copies/s, p50 %.2f ms to the last occupant; server's core %.0f %% busy, load's core %.0f %%",
		cfg.Rooms, cfg.Occupants, float64(r.Done)/seconds, float64(r.Copies)/seconds, millis(r.Latency.Quantile(0.5)),
		100*r.ServerCPU.Seconds()/seconds, 100*r.LoadCPU.Seconds()/seconds)
}

// roomPaced is as many deliveries in a second as paced has messages.
func (s *suite) roomPaced() {
	cfg := bench.RoomConfig{
		Rooms: 10, Occupants: 20, Rate: 100, SM: true, Duration: scale(s, 10*time.Second, 5*time.Second),
	}
	work := fmt.Sprintf("rooms of %d, %.0f messages/s evenly paced, to the last occupant: ", cfg.Occupants, cfg.Rate)
	p50, p99 := s.table.limit(work+"p50", "ms", 0), s.table.limit(work+"p99", "ms", 10)
	p50.free = true
	for range s.rounds {
		r, err := bench.Room(s.gatewayTarget, cfg)
		if p50.fail(err) || p99.fail(err) {
			return
		}
		p50.server = append(p50.server, millis(r.Latency.Quantile(0.5)))
		p99.server = append(p99.server, millis(r.Latency.Quantile(0.99)))
		s.table.counts.Add(r.Counts)
		s.table.note("rooms paced: longest %.2f ms; CPU %.0f µs for each copy", millis(r.Latency.Max()), micros(r.PerCopy()))
	}
}
