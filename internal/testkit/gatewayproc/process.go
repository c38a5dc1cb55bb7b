package gatewayproc

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"holdfast/internal/testkit/pidstate"
)

// Launch starts the process and does not wait until it is ready. It may be called from any goroutine.
func (g *Gateway) Launch() error {
	cmd, err := g.prepare("serve")
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = g.log, g.log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started, exited := make(chan error, 1), make(chan struct{})
	go func() {
		// The signal comes when the thread that started the process ends, so this one stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the state tells
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cmd, g.exited = cmd, exited
	return nil
}

func (g *Gateway) process() (*exec.Cmd, chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cmd, g.exited
}

// Signal sends the process a signal.
func (g *Gateway) Signal(sig os.Signal) error {
	cmd, _ := g.process()
	return cmd.Process.Signal(sig)
}

// Pause stops the process where it is (SIGSTOP): its connections stay, nothing is answered.
func (g *Gateway) Pause() {
	g.t.Helper()
	if err := g.Signal(syscall.SIGSTOP); err != nil {
		g.t.Fatalf("SIGSTOP: %v", err)
	}
	cmd, _ := g.process()
	if err := pidstate.AwaitStopped(cmd.Process.Pid, 10*time.Second); err != nil {
		g.t.Fatal(err)
	}
}

// Resume lets a paused process go on (SIGCONT).
func (g *Gateway) Resume() {
	g.t.Helper()
	if err := g.Signal(syscall.SIGCONT); err != nil {
		g.t.Fatalf("SIGCONT: %v", err)
	}
}

// Kill ends the process with SIGKILL, as a crash or the kernel would, and waits until it is gone.
func (g *Gateway) Kill() {
	cmd, exited := g.process()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill() // fails when it has ended already
	<-exited
}

// Restart kills the process and runs it again on the same ports and data.
func (g *Gateway) Restart() {
	g.t.Helper()
	g.Kill()
	g.Run()
}

// Term asks the process to go and waits for it. It returns the exit code and how long that took.
func (g *Gateway) Term(limit time.Duration) (code int, took time.Duration) {
	g.t.Helper()
	start := time.Now()
	if err := g.Signal(syscall.SIGTERM); err != nil {
		g.t.Fatalf("SIGTERM: %v", err)
	}
	return g.AwaitExit(limit), time.Since(start)
}

// AwaitExit waits for the end of the process, whatever brings it, and returns the exit code; -1 after a signal.
func (g *Gateway) AwaitExit(limit time.Duration) (code int) {
	g.t.Helper()
	cmd, exited := g.process()
	select {
	case <-exited:
	case <-time.After(limit):
		g.t.Fatalf("the gateway has not ended after %v", limit)
	}
	return cmd.ProcessState.ExitCode()
}

// Process is one of those that a gateway runs one after the other.
type Process struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// Process returns the one that runs now, or the last that did.
func (g *Gateway) Process() Process {
	cmd, exited := g.process()
	return Process{cmd, exited}
}

// Signal sends it a signal: os.ErrProcessDone when it has ended.
func (p Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Exited returns a channel that is closed when it has ended.
func (p Process) Exited() <-chan struct{} { return p.exited }

// ExitCode is for when it has ended; -1 after a signal.
func (p Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// Alive reports whether the process runs.
func (g *Gateway) Alive() bool {
	_, exited := g.process()
	select {
	case <-exited:
		return false
	default:
		return true
	}
}
