package cutproxy

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// Proxy forwards the connections that it accepts to one target.
type Proxy struct {
	listener net.Listener
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu     sync.Mutex
	target string
	links  []*Link
	total  int
}

// Listen starts a proxy on a free port of 127.0.0.1 in front of target, which may be down for a while: a
// connection that cannot be forwarded is reset.
func Listen(target string) (*Proxy, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cutproxy: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Proxy{listener: l, target: target, ctx: ctx, cancel: cancel}
	p.wg.Add(1)
	go p.accept()
	return p, nil
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Retarget makes the connections to come go elsewhere.
func (p *Proxy) Retarget(target string) {
	p.mu.Lock()
	p.target = target
	p.mu.Unlock()
}

// Accepted counts the connections since the start.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}

// Live lists the links that forward, or will again: what is half-open is as good as gone.
func (p *Proxy) Live() []*Link {
	p.mu.Lock()
	defer p.mu.Unlock()
	var live []*Link
	for _, l := range p.links {
		if l.live() {
			live = append(live, l)
		}
	}
	return live
}

// Each does something to every live link and reports how many there were.
func (p *Proxy) Each(do func(*Link)) int {
	live := p.Live()
	for _, l := range live {
		do(l)
	}
	return len(live)
}

// Close cuts all links, stops listening and returns when no goroutine is left.
func (p *Proxy) Close() {
	p.cancel()
	_ = p.listener.Close() // the only error is that it was closed before
	p.mu.Lock()
	links := slices.Clone(p.links)
	p.mu.Unlock()
	for _, l := range links {
		l.Cut()
	}
	p.wg.Wait()
}

func (p *Proxy) accept() {
	defer p.wg.Done()
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Add(1)
		go p.open(c.(*net.TCPConn))
	}
}

func (p *Proxy) open(client *net.TCPConn) {
	defer p.wg.Done()
	d := net.Dialer{Timeout: 2 * time.Second}
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	c, err := d.DialContext(p.ctx, "tcp", target)
	if err != nil {
		reset(client)
		return
	}
	l := newLink(client, c.(*net.TCPConn))
	p.mu.Lock()
	p.links = append(p.links, l)
	p.total++
	p.mu.Unlock()
	if p.ctx.Err() != nil {
		l.Cut()
	}
	p.wg.Add(2)
	go p.pump(l, l.server, l.client)
	go p.pump(l, l.client, l.server)
}

// pump carries one direction. The last of a link's two pumps takes it off the list.
func (p *Proxy) pump(l *Link, dst, src *net.TCPConn) {
	defer p.wg.Done()
	l.carry(dst, src)
	if !l.leave() {
		return
	}
	reset(l.client)
	reset(l.server)
	p.mu.Lock()
	p.links = slices.DeleteFunc(p.links, func(other *Link) bool { return other == l })
	p.mu.Unlock()
}
