package relay

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// poller sends requests to a Poll under test.
type poller struct {
	t    *testing.T
	poll *Poll
	url  string
}

func newPoller(t *testing.T) *poller {
	p := NewPoll()
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	return &poller{t: t, poll: p, url: server.URL + "/poll?id="}
}

// say sends a request; what it is answered with comes later.
func (p *poller) say(ctx context.Context, id, lines string) <-chan string {
	p.t.Helper()
	answer := make(chan string, 1)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+id, strings.NewReader(lines))
	if err != nil {
		p.t.Fatal(err)
	}
	go func() {
		defer close(answer)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return // the test ended it
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err == nil {
			answer <- resp.Status[:3] + " " + string(body)
		}
	}()
	return answer
}

func (p *poller) want(answer <-chan string, want string) {
	p.t.Helper()
	select {
	case got := <-answer:
		if got != want {
			p.t.Errorf("answered with %q, want %q", got, want)
		}
	case <-time.After(5 * time.Second):
		p.t.Errorf("no answer, want %q", want)
	}
}

// held waits until a request of a client is held.
func (p *poller) held(id string, held bool) {
	p.t.Helper()
	for until := time.Now().Add(5 * time.Second); time.Now().Before(until); time.Sleep(time.Millisecond) {
		p.poll.mu.RLock()
		b := p.poll.boxes[id]
		p.poll.mu.RUnlock()
		is := false
		if b != nil {
			b.mu.Lock()
			is = b.held != nil
			b.mu.Unlock()
		}
		if is == held {
			return
		}
	}
	p.t.Fatalf("held: want %v", held)
}

func TestPoll(t *testing.T) {
	p := newPoller(t)
	ctx, cancel := context.WithCancel(t.Context())
	p.want(p.say(ctx, "aaaaaaaa&new", ""), "200 ")
	p.want(p.say(ctx, "bbbbbbbb&new", ""), "200 ")
	p.want(p.say(ctx, "short", ""), "400 id has the wrong length\n")

	first := p.say(ctx, "bbbbbbbb", "")
	p.held("bbbbbbbb", true)
	sender := p.say(ctx, "aaaaaaaa", "bbbbbbbb1\nnobody..2\n")
	p.want(first, "200 bbbbbbbb1\n")
	p.held("aaaaaaaa", true)
	next := p.say(ctx, "aaaaaaaa", "bbbbbbbb3\nbbbbbbbb4\n")
	p.want(sender, "200 ") // one request is held, no more
	p.want(p.say(ctx, "bbbbbbbb", ""), "200 bbbbbbbb3\nbbbbbbbb4\n")

	cancel()
	if _, ok := <-next; ok {
		t.Error("a request that was let go of is answered")
	}
	p.held("aaaaaaaa", false)
}
