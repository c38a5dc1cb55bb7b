package httpconn

import (
	"bufio"
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/internal/admit"
)

// Config is what a Pool serves, and its limits. A limit of 0 is none.
type Config struct {
	Path  string        // of the requests
	Idle  time.Duration // between two requests
	Head  time.Duration // for the rest of a request's head, once it begins
	Write time.Duration // for a response
}

// Pool is the connections that were taken.
type Pool struct {
	cfg   Config
	start []byte // what a request begins with
	tick  time.Duration
	now   atomic.Int64           // in ticks
	date  atomic.Pointer[[]byte] // the Date field as of now

	door  admit.Door // for conns
	mu    sync.Mutex
	conns map[*Conn]struct{} // guarded by mu
	// thrown says that Drain does not wait any more; guarded by mu.
	thrown bool
	stop   chan struct{}
	done   chan struct{}
}

// NewPool makes a Pool and starts its goroutine, which Drain ends.
func NewPool(cfg Config) *Pool {
	p := &Pool{
		cfg: cfg, start: []byte("POST " + cfg.Path + " HTTP/1.1\r\n"), conns: make(map[*Conn]struct{}),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	p.tick = time.Second
	for _, limit := range []time.Duration{cfg.Idle, cfg.Write} {
		if limit > 0 {
			p.tick = min(p.tick, max(limit/8, time.Millisecond))
		}
	}
	p.tell(time.Now())
	go p.run()
	return p
}

// Take takes the connection of a request, whose body has been read, from net/http: the handler returns, and a goroutine
// of the caller's answers. It returns nil when the connection has to stay where it is.
func (p *Pool) Take(w http.ResponseWriter, r *http.Request) *Conn {
	web, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	// What encrypts the connection is known by its type, which would be lost on the way back.
	if !ok || r.TLS != nil || r.ProtoMajor != 1 || r.ProtoMinor < 1 || r.Close || r.URL.Path != p.cfg.Path || !p.door.Join() {
		return nil
	}
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		p.door.Leave()
		return nil
	}
	c := &Conn{pool: p, web: web, nc: nc, remote: r.RemoteAddr, ahead: make([]byte, aheadSize), wake: make(chan struct{}, 1)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	early, _ := rw.Reader.Peek(rw.Reader.Buffered()) // cannot fail: they are there
	var rest []byte
	if back, ok := nc.(*replay); ok { // it has been here before
		c.nc, rest = back.Conn, back.ahead
	}
	c.holds(early, rest)
	c.set(busy)
	p.mu.Lock()
	p.conns[c] = struct{}{}
	thrown := p.thrown
	p.mu.Unlock()
	if thrown {
		c.hangUp()
	}
	return c
}

func (p *Pool) leave(c *Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	p.door.Leave()
}

// Len is how many connections there are.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// Drain closes the connections that wait for a request, has the others closed when theirs is answered, and waits for that;
// when ctx ends they are closed at once. It does not wait for ever for who does not notice that.
func (p *Pool) Drain(ctx context.Context) {
	if !p.door.Shut() {
		<-p.done
		return
	}
	p.each(func(c *Conn) { c.closeIf(idle, -1) })
	_ = p.door.Wait(ctx, p.throwOut, time.Second)
	close(p.stop)
	<-p.done
}

func (p *Pool) throwOut() {
	p.mu.Lock()
	p.thrown = true
	p.mu.Unlock()
	p.each((*Conn).hangUp)
}

func (p *Pool) each(f func(*Conn)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		f(c)
	}
}

// run ticks, and closes who has been too slow.
func (p *Pool) run() {
	defer close(p.done)
	ticker := time.NewTicker(p.tick)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			return
		case at := <-ticker.C:
			p.tell(at)
			p.look()
		}
	}
}

// tell notes the time.
func (p *Pool) tell(at time.Time) {
	p.now.Add(1)
	date := at.UTC().AppendFormat([]byte("Date: "), http.TimeFormat)
	date = append(date, "\r\n"...)
	p.date.Store(&date)
}

func (p *Pool) look() {
	p.each(func(c *Conn) {
		if p.cfg.Idle > 0 {
			c.closeIf(idle, int64(p.cfg.Idle/p.tick))
		}
		if p.cfg.Write > 0 {
			c.closeIf(writing, int64(p.cfg.Write/p.tick))
		}
	})
}

// headSize is the largest head of a request that is read here.
const headSize = 4 << 10

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, headSize) }}
