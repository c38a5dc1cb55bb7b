package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// CPUTime is the user and system time of a process so far, its ended threads included: clock_gettime on the
// process's CPU clock, whose id is made as clock_getcpuclockid(3) makes it.
func CPUTime(pid int) (time.Duration, error) {
	const perProcessSched = 2
	clock := int32(^pid<<3 | perProcessSched)
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("bench: CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Resident is the resident memory of a process in bytes (smaps_rollup, whose count is exact where statm's is not).
func Resident(pid int) (int64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, fmt.Errorf("bench: memory: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		if value, ok := bytes.CutPrefix(lines.Bytes(), []byte("Rss:")); ok {
			kib, err := strconv.ParseInt(string(bytes.TrimSuffix(bytes.TrimSpace(value), []byte(" kB"))), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("bench: memory of process %d: %w", pid, err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("bench: memory of process %d: no Rss in smaps_rollup", pid)
}

// Pin binds the calling thread, and what is started from it, to cores.
func Pin(cores ...int) error {
	var set unix.CPUSet
	for _, core := range cores {
		set.Set(core)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("bench: pinning to cores %v: %w", cores, err)
	}
	return nil
}

// PinProcess binds a process that runs, with all its threads, to cores. What it starts from now on is bound, too. One that has
// ended is left alone.
func PinProcess(pid int, cores ...int) error {
	var set unix.CPUSet
	for _, core := range cores {
		set.Set(core)
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // one of a database's helpers that has done its work
	}
	if err != nil {
		return fmt.Errorf("bench: pinning: %w", err)
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			return fmt.Errorf("bench: pinning: %w", err)
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("bench: pinning process %d to cores %v: %w", pid, cores, err)
		}
	}
	return nil
}

// Confine makes the whole process run on one core: it binds the thread and executes the program again from it, since
// Go's runtime sizes itself by the cores that it finds at the start.
func Confine(core int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if cores, err := Cores(); err != nil || len(cores) == 1 && cores[0] == core {
		return err
	}
	if err := Pin(core); err != nil {
		return err
	}
	if err := unix.Exec("/proc/self/exe", os.Args, os.Environ()); err != nil {
		return fmt.Errorf("bench: executing again: %w", err)
	}
	return nil
}

// Cores lists the cores that the calling thread may run on.
func Cores() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("bench: cores: %w", err)
	}
	var cores []int
	for i := range 1024 {
		if set.IsSet(i) {
			cores = append(cores, i)
		}
	}
	return cores, nil
}

// CoreBusy is the time that cores have spent on anything since the machine was started, what the hypervisor took
// from them included, to 10 ms.
func CoreBusy(cores ...int) (total time.Duration, err error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("bench: cores: %w", err)
	}
	for _, core := range cores {
		_, line, ok := bytes.Cut(raw, fmt.Appendf(nil, "\ncpu%d ", core))
		if !ok {
			return 0, fmt.Errorf("bench: core %d is not in /proc/stat", core)
		}
		line, _, _ = bytes.Cut(line, []byte("\n"))
		const user, nice, system, irq, softirq, steal = 0, 1, 2, 5, 6, 7 // proc(5)
		fields := bytes.Fields(line)
		if len(fields) <= steal {
			return 0, fmt.Errorf("bench: core %d has an odd line in /proc/stat", core)
		}
		for _, i := range []int{user, nice, system, irq, softirq, steal} {
			ticks, err := strconv.ParseInt(string(fields[i]), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("bench: core %d in /proc/stat: %w", core, err)
			}
			total += time.Duration(ticks) * (time.Second / 100) // USER_HZ
		}
	}
	return total, nil
}

func cpuOf(pids []int) (total time.Duration, err error) {
	for _, pid := range pids {
		t, err := CPUTime(pid)
		if err != nil {
			return 0, err
		}
		total += t
	}
	return total, nil
}

func residentOf(pids []int) (total int64, err error) {
	for _, pid := range pids {
		n, err := Resident(pid)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}
