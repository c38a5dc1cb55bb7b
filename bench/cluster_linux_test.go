package bench

import (
	"errors"
	"testing"
	"time"
)

// twice is one server that passes for two nodes of a cluster.
func twice(t *testing.T, copies func(int) int) *Target {
	target := fakeTarget(t, copies)
	target.Nodes = []string{target.URL, target.URL}
	target.URL = ""
	return target
}

func TestChatOverTwoNodes(t *testing.T) {
	target := twice(t, nil)
	looks := 0
	target.Probe = func() (Counters, error) {
		looks++
		return Counters{"looks": float64(looks)}, nil
	}
	cfg := ChatConfig{First: 10, To: 1, Pairs: 2, SM: true, Warmup: 20 * time.Millisecond, Duration: 100 * time.Millisecond}
	r, err := Chat(target, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Clean() || r.Done == 0 || looks != 2 || r.Beside["looks"] != 1 {
		t.Errorf("%+v, %d done, beside %v", r.Counts, r.Done, r.Beside)
	}
	cfg.To = 2
	if _, err := Chat(target, cfg); err == nil {
		t.Error("no error for a node that is not there")
	}
}

func TestFailover(t *testing.T) {
	kills, restored := 0, 0
	kill := func() error { kills++; return nil }
	for _, test := range []struct {
		name string
		cfg  FailoverConfig
	}{
		{"cut", FailoverConfig{Rounds: 4}},
		{"killed", FailoverConfig{Rounds: 3, Kill: kill, Restore: func() error { restored++; return nil }}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := Failover(twice(t, nil), test.cfg)
			if err != nil {
				t.Fatal(err)
			}
			rounds := test.cfg.Rounds
			if !r.Clean() || r.Sent != 3*rounds || r.Resume.Count() != uint64(rounds) || r.Away.Max() < r.Resume.Max() {
				t.Errorf("%+v, %d resumptions", r.Counts, r.Resume.Count())
			}
		})
	}
	if kills != 3 || restored != 3 {
		t.Errorf("%d kills, %d restored", kills, restored)
	}
	t.Run("repeated", func(t *testing.T) {
		r, err := Failover(twice(t, func(int) int { return 2 }), FailoverConfig{Rounds: 1})
		if err != nil {
			t.Fatal(err)
		}
		if r.Repeated == 0 || r.Clean() {
			t.Errorf("%+v, want repetitions", r.Counts)
		}
	})
	t.Run("the kill fails", func(t *testing.T) {
		why := errors.New("why")
		_, err := Failover(twice(t, nil), FailoverConfig{Rounds: 1, Kill: func() error { return why }})
		if !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
	})
	if _, err := Failover(fakeTarget(t, nil), FailoverConfig{}); err == nil {
		t.Error("no error with a single node")
	}
}

// What was written to the connections before the kill is not the clients' yet.
func TestResumeOfKilledNode(t *testing.T) {
	killed := false
	r, err := Resume(twice(t, nil), ResumeConfig{
		Sessions: 20, Senders: 3, AtOnce: 4, Back: 1, Kill: func() error { killed = true; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if !killed || !r.Clean() || r.Sent != 100 || r.Resumed != 20 || r.Took < r.Latency.Max() {
		t.Errorf("counts %+v, %d resumed in %v", r.Counts, r.Resumed, r.Took)
	}
}
