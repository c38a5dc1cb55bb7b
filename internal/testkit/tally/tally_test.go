package tally

import (
	"strings"
	"testing"
)

func TestCounts(t *testing.T) {
	var tl Tally
	s := Stream{"a", "b"}
	for range 6 {
		tl.Send(s)
	}
	for _, n := range []int{1, 2, 3, 4, 5} {
		tl.Acknowledge(s, n)
	}
	for _, n := range []int{1, 3, 2, 3, 6, 9} {
		tl.Arrive(s, n)
	}
	want := Counts{Sent: 6, Acknowledged: 5, Delivered: 4, Lost: 2, Repeated: 1, OutOfOrder: 1, Unknown: 1}
	if got := tl.Counts(); got != want || got.Clean() || got.Complete() {
		t.Fatalf("counts %+v, want %+v", got, want)
	}
	for _, line := range []string{"2 arrived after 3", "3 arrived again after 3", "9 arrived but was never sent", "not acknowledged: 6", "not delivered: 4-5", "acknowledged were 4 at "} {
		if !strings.Contains(tl.Faults(), line) {
			t.Errorf("faults miss %q:\n%s", line, tl.Faults())
		}
	}
}

func TestClean(t *testing.T) {
	var tl Tally
	for _, s := range []Stream{{"a", "b"}, {"b", "a"}} {
		for range 3 {
			n := tl.Send(s)
			tl.Acknowledge(s, n)
			tl.Arrive(s, n)
		}
	}
	if c := tl.Counts(); !c.Clean() || !c.Complete() || c.Sent != 6 {
		t.Fatalf("counts %+v", c)
	}
}

func TestBounces(t *testing.T) {
	var tl Tally
	s := Stream{"a", "b"}
	for range 4 {
		tl.Acknowledge(s, tl.Send(s))
	}
	tl.Arrive(s, 1)
	tl.Bounce(s, 2)
	tl.Arrive(s, 3)
	if c := tl.Counts(); c.Lost != 1 || c.Bounced != 1 || c.Complete() {
		t.Fatalf("counts %+v", c)
	}
	tl.Bounce(s, 4)
	if c := tl.Counts(); !c.Clean() || !c.Complete() {
		t.Fatalf("counts %+v", c)
	}
	tl.Bounce(s, 3)
	tl.Arrive(s, 4)
	if c := tl.Counts(); c.Repeated != 2 {
		t.Fatalf("counts %+v", c)
	}
}
