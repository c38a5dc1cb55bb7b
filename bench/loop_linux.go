package bench

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// ErrPatience is returned when a server did not do what a scenario waits for in the time that it has.
var ErrPatience = errors.New("bench: the server took too long")

// loop turns one epoll instance over all connections of a scenario. Everything it calls runs on the goroutine that called
// run; nothing here is safe for another one.
type loop struct {
	ep       int
	ticker   int // timerfd, armed by every
	tick     func()
	sockets  map[int32]*socket // by file descriptor
	events   []unix.EpollEvent
	buf      []byte // what one read takes; lent to one connection at a time
	out      []byte // the frame or request that is being built
	body     []byte // and the request's body
	gen      int32
	requests int // HTTP requests that were sent
	origin   time.Time
	pending  []func() // run once the events at hand are dealt with
}

func newLoop() (*loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("bench: epoll: %w", err)
	}
	ticker, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		unix.Close(ep)
		return nil, fmt.Errorf("bench: timerfd: %w", err)
	}
	l := &loop{
		ep: ep, ticker: ticker, sockets: make(map[int32]*socket), events: make([]unix.EpollEvent, 256),
		buf: make([]byte, 256<<10), out: make([]byte, 0, 4<<10), origin: time.Now(),
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(ticker)}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, ticker, &event); err != nil {
		l.close()
		return nil, fmt.Errorf("bench: epoll: %w", err)
	}
	return l, nil
}

// close drops every connection and the loop's own descriptors.
func (l *loop) close() {
	for _, k := range l.sockets {
		k.drop()
	}
	unix.Close(l.ticker)
	unix.Close(l.ep)
}

// now is the time in nanoseconds since the loop was made, from the monotonic clock.
func (l *loop) now() int64 { return int64(time.Since(l.origin)) }

// every calls tick about once in a period until every is called with zero.
func (l *loop) every(period time.Duration, tick func()) error {
	l.tick = tick
	spec := unix.NsecToTimespec(int64(period))
	if err := unix.TimerfdSettime(l.ticker, 0, &unix.ItimerSpec{Interval: spec, Value: spec}, nil); err != nil {
		return fmt.Errorf("bench: timerfd: %w", err)
	}
	return nil
}

// pace calls send, with how often it was called before, at the times of an even schedule, until every is called with zero. What
// was missed, because this side or the server's back-pressure was late, is sent as soon as possible, and due is when it was meant to be.
func (l *loop) pace(rate float64, send func(i int, due int64)) error {
	gap := float64(time.Second) / rate
	start, sent := float64(l.now()), 0
	return l.every(time.Duration(max(gap, float64(100*time.Microsecond))), func() {
		for now := float64(l.now()); ; sent++ {
			due := start + float64(sent)*gap
			if due > now {
				return
			}
			send(sent, int64(due))
		}
	})
}

// later calls do after the events at hand, so that a callback of a client can start other ones.
func (l *loop) later(do func()) { l.pending = append(l.pending, do) }

// run turns the loop until done says so, or fails with ErrPatience.
func (l *loop) run(patience time.Duration, done func() bool) error {
	deadline := time.Now().Add(patience)
	for {
		for len(l.pending) > 0 {
			todo := l.pending
			l.pending = nil
			for _, do := range todo {
				do()
			}
		}
		if done() {
			return nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return ErrPatience
		}
		wait := min(left, 50*time.Millisecond) // done may look at the clock
		n, err := unix.EpollWait(l.ep, l.events, int(wait.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("bench: epoll: %w", err)
		}
		for i := range max(n, 0) {
			e := &l.events[i]
			if e.Fd == int32(l.ticker) {
				var expired [8]byte
				if _, err := unix.Read(l.ticker, expired[:]); err == nil && l.tick != nil {
					l.tick()
				}
				continue
			}
			// A descriptor that was closed and used again for these events' successor has another generation.
			if k := l.sockets[e.Fd]; k != nil && k.gen == e.Pad {
				k.handle(e.Events)
			}
		}
	}
}

// runFor turns the loop for a time.
func (l *loop) runFor(d time.Duration) error {
	end := time.Now().Add(d)
	return l.run(d+time.Second, func() bool { return !time.Now().Before(end) })
}

// await turns the loop while do runs on another goroutine, so that the clients go on answering.
func (l *loop) await(patience time.Duration, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	var result error
	err := l.run(patience, func() bool {
		select {
		case result = <-done:
			return true
		default:
			return false
		}
	})
	return errors.Join(err, result)
}

// settle turns the loop until the processes have used less than 2 % of a core for a fifth of a second, so that what
// a step left them to do is charged to it, or until patience ends.
func (l *loop) settle(pids []int, patience time.Duration) error {
	const window = 200 * time.Millisecond
	last, err := cpuOf(pids)
	if err != nil {
		return err
	}
	for until := time.Now().Add(patience); time.Now().Before(until); {
		if err := l.runFor(window); err != nil {
			return err
		}
		now, err := cpuOf(pids)
		if err != nil {
			return err
		}
		if now-last < window/50 {
			return nil
		}
		last = now
	}
	return nil
}
