package ws

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What an idle connection costs is measured from outside: the test binary runs itself as a server, so that the
// clients' memory is not in the figure.
const idleServerEnv = "HOLDFAST_TEST_IDLE_SERVER"

func runIdleServer() bool {
	kind := os.Getenv(idleServerEnv)
	if kind == "" {
		return false
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println("error", err)
		return true
	}
	var h http.Handler = http.HandlerFunc(relay)
	if kind == "holdfast" {
		h = echoHandler(idleTB{})
	}
	go func() { _ = http.Serve(ln, h) }()
	fmt.Println(ln.Addr())
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		runtime.GC()
		runtime.GC()
		debug.FreeOSMemory()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Println(rss(), m.HeapInuse, m.StackInuse)
	}
	return true
}

// idleTB is enough of a testing.TB for echoHandler outside of a test.
type idleTB struct{ testing.TB }

func (idleTB) Fatal(args ...any) { panic(fmt.Sprint(args...)) }
func (idleTB) Cleanup(func())    {}

func rss() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, _ := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// idleCost opens n connections that have sent one message each and returns bytes per connection.
func idleCost(tb testing.TB, kind string, n int) (perRSS, perHeap, perStack float64) {
	tb.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), idleServerEnv+"="+kind)
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		_ = cmd.Wait()
	}()
	lines := bufio.NewScanner(out)
	lines.Scan()
	addr := lines.Text()
	ask := func() (v [3]int64) {
		if _, err := fmt.Fprintln(in); err != nil {
			tb.Fatal(err)
		}
		lines.Scan()
		if _, err := fmt.Sscan(lines.Text(), &v[0], &v[1], &v[2]); err != nil {
			tb.Fatalf("%q: %v", lines.Text(), err)
		}
		return v
	}
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	open := func(k int) {
		for range k {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				tb.Fatal(err)
			}
			conns = append(conns, conn)
			c := upgradeRaw(tb, conn)
			if _, err := conn.Write([]byte(maskedText(openElement) + maskedText(chat))); err != nil {
				tb.Fatal(err)
			}
			_ = c.next()
			if kind == "relay" {
				_ = c.next()
			}
		}
	}
	open(100)
	time.Sleep(100 * time.Millisecond)
	before := ask()
	open(n)
	time.Sleep(300 * time.Millisecond)
	after := ask()
	per := func(i int) float64 { return float64(after[i]-before[i]) / float64(n) }
	return per(0), per(1), per(2)
}

func BenchmarkIdle(b *testing.B) {
	for _, kind := range []string{"relay", "holdfast"} {
		b.Run(kind, func(b *testing.B) {
			for b.Loop() {
				r, h, s := idleCost(b, kind, 5000)
				b.ReportMetric(r, "rss-B/conn")
				b.ReportMetric(h, "heap-B/conn")
				b.ReportMetric(s, "stack-B/conn")
			}
		})
	}
}

// An idle connection costs at most half of the bare library's.
func TestIdleMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's memory is in the figure")
	}
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	ours, heap, stack := idleCost(t, "holdfast", 1000)
	theirs, _, _ := idleCost(t, "relay", 1000)
	t.Logf("resident bytes a connection: %.0f (heap %.0f, stack %.0f), bare library %.0f", ours, heap, stack, theirs)
	if heap+stack > 12<<10 || ours > 0.6*theirs {
		t.Errorf("an idle connection costs %.0f bytes, the bare library's %.0f", ours, theirs)
	}
}
