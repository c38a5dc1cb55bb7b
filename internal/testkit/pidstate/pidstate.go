// Package pidstate says what the kernel says of a process that a test has started.
package pidstate

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// Lives reports whether a process still runs. One that has ended and that nobody has waited for does not.
func Lives(pid int) bool { return !strings.ContainsAny(letter(fmt.Sprintf("/proc/%d", pid)), "ZX") }

// AwaitStopped returns when every thread of a process that was sent SIGSTOP stands still, or is gone: a signal is not
// delivered at once, and until then they go on.
func AwaitStopped(pid int, most time.Duration) error {
	for deadline := time.Now().Add(most); !stopped(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d goes on %v after SIGSTOP", pid, most)
		}
	}
	return nil
}

func stopped(pid int) bool {
	tasks := fmt.Sprintf("/proc/%d/task/", pid)
	threads, err := os.ReadDir(tasks)
	if err != nil {
		return true // it is gone
	}
	for _, thread := range threads {
		if !strings.ContainsAny(letter(tasks+thread.Name()), "TtZX") {
			return false
		}
	}
	return true
}

// letter is the kernel's for what a process or thread does, X when there is none.
func letter(dir string) string {
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return "X"
	}
	if _, state, ok := strings.Cut(string(b), ") "); ok {
		return state[:1]
	}
	return "X"
}
