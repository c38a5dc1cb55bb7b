package cutproxy

import (
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers every connection with what it hears.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

func through(t *testing.T) (*Proxy, net.Conn) {
	t.Helper()
	p, err := Listen(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	say(t, c, "hello")
	hear(t, c, "hello")
	return p, c
}

func say(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, c net.Conn, want string) {
	t.Helper()
	buf := make([]byte, len(want))
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != want {
		t.Fatalf("heard %q, %v; want %q", buf, err, want)
	}
}

func silent(t *testing.T, c net.Conn, d time.Duration) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(d))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v; want silence", n, err)
	}
}

func TestCutResets(t *testing.T) {
	p, c := through(t)
	if n := p.Each((*Link).Cut); n != 1 {
		t.Fatalf("%d live links, want 1", n)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read after a cut: %v", err)
	}
}

func TestStallLosesNothing(t *testing.T) {
	p, c := through(t)
	p.Each((*Link).Stall)
	say(t, c, "later")
	silent(t, c, 50*time.Millisecond)
	p.Each((*Link).Flow)
	hear(t, c, "later")
}

func TestHalfOpenSwallows(t *testing.T) {
	p, c := through(t)
	p.Each((*Link).HalfOpen)
	say(t, c, "gone")
	silent(t, c, 50*time.Millisecond)
	if n := len(p.Live()); n != 0 {
		t.Fatalf("%d live links, want none", n)
	}
	p.Each((*Link).Flow)
	say(t, c, "still gone")
	silent(t, c, 50*time.Millisecond)
}

func TestSlow(t *testing.T) {
	p, c := through(t)
	p.Each(func(l *Link) { l.Slow(1000) })
	start := time.Now()
	say(t, c, string(make([]byte, 100)))
	hear(t, c, string(make([]byte, 100)))
	if d := time.Since(start); d < 100*time.Millisecond {
		t.Fatalf("100 bytes at 1000 a second took %v", d)
	}
}

func TestTargetDown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := l.Addr().String()
	_ = l.Close()
	p, err := Listen(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		return // reset before the dialling side noticed that it was connected
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read from a target that is down: %v", err)
	}
}

func TestPlanRepeats(t *testing.T) {
	s := Script{Seed: 7, Clients: 4, Count: map[Kind]int{Cut: 20, Kill: 3, Stall: 5}, Pause: time.Second, Hold: time.Second}
	a, b := Plan(s), Plan(s)
	if !reflect.DeepEqual(a, b) || len(a) != 28 {
		t.Fatalf("two plans of one seed differ, or have %d events", len(a))
	}
	for _, e := range a {
		if e.Kind == Kill && e.Target > 0 {
			t.Errorf("there is one server, and %v", e)
		}
	}
	s.Seed = 8
	if reflect.DeepEqual(a, Plan(s)) {
		t.Fatal("two seeds gave one plan")
	}
}
