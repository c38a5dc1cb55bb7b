package bench

import (
	"math"
	"testing"
	"time"
)

// What is sent at a pace is sent when it is due, never before, and all of it, also when the loop was held up.
func TestPace(t *testing.T) {
	const rate = 500
	l, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	var sent int
	var first int64
	earliest := l.now()
	err = l.pace(rate, func(i int, due int64) {
		if i == 0 {
			first = due
		}
		even := float64(first) + float64(i)*float64(time.Second)/rate
		if i != sent || math.Abs(float64(due)-even) > 1000 || due > l.now() {
			t.Errorf("call %d as the %dth, due at %d, at %d", i, sent, due, l.now())
		}
		sent++
	})
	latest := l.now()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.run(10*time.Second, func() bool { return sent >= 20 }); err != nil {
		t.Fatalf("%d calls: %v", sent, err)
	}
	if first < earliest || first > latest {
		t.Errorf("begins at %d, not between %d and %d", first, earliest, latest)
	}

	time.Sleep(50 * time.Millisecond) // held up
	before := l.now()
	l.tick()
	after := l.now()
	by := func(now int64) int { return 1 + int(rate*(now-first)/int64(time.Second)) }
	if sent < by(before)-1 || sent > by(after)+1 {
		t.Errorf("%d calls, want %d to %d", sent, by(before), by(after))
	}

	if err := l.every(0, nil); err != nil {
		t.Fatal(err)
	}
	was := sent
	if err := l.runFor(20 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if sent != was {
		t.Errorf("%d calls after the end", sent-was)
	}
}

// checkPaced compares the messages of a whole run with its rate; the run sent for a time between the two given. How many
// of them fall into a part of it is up to the machine.
func checkPaced(t *testing.T, sent int, rate float64, least, most time.Duration) {
	t.Helper()
	// A loop that is held up at the end does not catch up.
	if low, high := rate*least.Seconds()/4, rate*most.Seconds()+1; float64(sent) < low || float64(sent) > high {
		t.Errorf("%d messages in %v to %v at a rate of %v", sent, least, most, rate)
	}
}
