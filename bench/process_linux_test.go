package bench

import (
	"os"
	"testing"
	"time"
)

func TestProcess(t *testing.T) {
	before, err := CPUTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	cores, err := Cores()
	if err != nil || len(cores) == 0 {
		t.Fatal(cores, err)
	}
	busy, err := CoreBusy(cores...)
	if err != nil {
		t.Fatal(err)
	}
	// A tick is counted on whoever it meets, which under a quota of CPU time may take a while.
	now := busy
	for start := time.Now(); now <= busy && time.Since(start) < 10*time.Second; {
		if now, err = CoreBusy(cores...); err != nil {
			t.Fatal(err)
		}
	}
	if now <= busy {
		t.Errorf("cores were busy for %v, then for %v", busy, now)
	}
	after, err := CPUTime(os.Getpid())
	if err != nil || after <= before || after > before+10*time.Second {
		t.Errorf("from %v to %v: %v", before, after, err)
	}
	if rss, err := Resident(os.Getpid()); err != nil || rss < 1<<20 || rss > 1<<34 {
		t.Errorf("%d bytes resident: %v", rss, err)
	}
}

func TestProcessThatIsNot(t *testing.T) {
	const none = 1 << 22 // beyond the largest process id
	if _, err := CPUTime(none); err == nil {
		t.Error("CPU time of no process")
	}
	if _, err := Resident(none); err == nil {
		t.Error("memory of no process")
	}
	if _, err := CoreBusy(5000); err == nil {
		t.Error("time of no core")
	}
}
