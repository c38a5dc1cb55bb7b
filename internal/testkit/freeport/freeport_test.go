package freeport

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
)

const child = "HOLDFAST_TEST_FREEPORT_CHILD"

// TestTake has two processes search the same ports at the same time.
func TestTake(t *testing.T) {
	const ports = 50
	if os.Getenv(child) != "" {
		last = 0
		for range ports {
			if _, err := os.Stdout.WriteString(Addr(t) + "\n"); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = os.Stdin.Read(make([]byte, 1)) // until the other has its own
		os.Exit(0)
	}
	if runtime.GOOS != "linux" {
		t.Skip("between processes on Linux only")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestTake$")
	cmd.Env = append(os.Environ(), child+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last = 0
	all := make(map[string]bool)
	for range ports {
		addr := Addr(t)
		all[addr] = true
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
	}
	lines := bufio.NewScanner(stdout)
	for range ports {
		if !lines.Scan() {
			t.Fatal("the other process found too few")
		}
		all[lines.Text()] = true
	}
	if len(all) != 2*ports {
		t.Errorf("%d different ports, want %d", len(all), 2*ports)
	}
	_ = stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
