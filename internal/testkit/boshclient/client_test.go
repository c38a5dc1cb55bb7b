package boshclient

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/internal/testkit/xmppclient"
)

// talk has a model client send n messages to itself over f and leave, and returns it.
func talk(t *testing.T, f *fake, n int, cfg Config) *Client {
	t.Helper()
	var mu sync.Mutex
	var came, acked []string
	cfg.URL = f.URL
	c := New(ClientConfig{
		Config: cfg, Account: xmppclient.Account{Domain: "localhost", User: "a", Password: "p", Mechanism: "PLAIN"},
		OnStanza: func(e *xmppclient.Element) {
			mu.Lock()
			defer mu.Unlock()
			came = append(came, e.Attr("id"))
		},
		OnAck: func(id string) {
			mu.Lock()
			defer mu.Unlock()
			acked = append(acked, id)
		},
	})
	var run sync.WaitGroup
	run.Go(func() { c.Run(t.Context()) })
	var want []string
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for i := range n {
		id := fmt.Sprint(i)
		want = append(want, id)
		c.Send(id, "<message xmlns='jabber:client' id='"+id+"'/>")
		if i%5 == 0 {
			if err := c.Await(ctx, func() bool { return c.Unacknowledged() < 10 }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Await(ctx, func() bool { return c.Unacknowledged() == 0 }); err != nil {
		t.Fatal(err)
	}
	if err := c.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	run.Wait()
	list := strings.Join(want, " ")
	for what, got := range map[string][]string{"the server got": f.got, "the client got": came, "acknowledged were": acked} {
		if strings.Join(got, " ") != list {
			t.Errorf("%s %v", what, got)
		}
	}
	t.Logf("%+v", c.Stats())
	return c
}

func TestClient(t *testing.T) {
	for _, cfg := range []Config{{}, {Acks: true}, {Keys: 2}, {Keys: 7, Acks: true, RepeatEvery: 3}} {
		t.Run(fmt.Sprintf("acks %v, %d keys, every %d again", cfg.Acks, cfg.Keys, cfg.RepeatEvery), func(t *testing.T) {
			c := talk(t, startFake(t), 200, cfg)
			if f := c.Faults(); len(f) > 0 {
				t.Errorf("faults: %q", f)
			}
			if s := c.Stats(); s.Bound != 1 || s.Ended["terminated"] != 1 || s.Early > 0 || cfg.RepeatEvery > 0 && s.Repeated == 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestClientGoesOn loses connections before and after the request was handled.
func TestClientGoesOn(t *testing.T) {
	f := startFake(t)
	lose := func(uint64) bool { return rand.IntN(5) == 0 }
	f.before, f.after = lose, lose
	c := talk(t, f, 300, Config{Acks: true, Keys: 5, RepeatEvery: 4, Backoff: time.Millisecond})
	if f := c.Faults(); len(f) > 0 {
		t.Errorf("faults: %q", f)
	}
	if s := c.Stats(); s.Retried == 0 {
		t.Errorf("%+v", s)
	}
}

// TestFaults has the server break the rules.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		want  string
		spoil func(rid uint64, again bool, text string) string
	}{
		{"was sent again", func(_ uint64, again bool, text string) string {
			if again {
				return strings.Replace(text, "<body ", "<body a='1' ", 1)
			}
			return text
		}},
		{"ack is", func(rid uint64, _ bool, text string) string {
			return strings.Replace(text, "<body ", fmt.Sprintf("<body ack='%d' ", rid+7), 1)
		}},
		{"wrong report", func(_ uint64, _ bool, text string) string {
			return strings.Replace(text, "<body ", "<body report='x' ", 1)
		}},
		{"namespace of <body/>", func(_ uint64, _ bool, text string) string {
			return strings.Replace(text, "</body>", "<stray/></body>", 1)
		}},
	} {
		t.Run(c.want, func(t *testing.T) {
			f := startFake(t)
			f.spoil = func(rid uint64, again bool, text string) string {
				if strings.Contains(text, " ack=") || !strings.Contains(text, "<message") {
					return text
				}
				return c.spoil(rid, again, text)
			}
			client := talk(t, f, 20, Config{RepeatEvery: 1})
			if all := strings.Join(client.Faults(), "\n"); !strings.Contains(all, c.want) {
				t.Errorf("faults: %q", all)
			}
		})
	}
}

// TestLostSession: a session that the server does not know any more is told, and another one begins.
func TestLostSession(t *testing.T) {
	f := startFake(t)
	c := New(ClientConfig{Config: Config{URL: f.URL}, Account: xmppclient.Account{Domain: "localhost", User: "a", Password: "p", Mechanism: "PLAIN"}})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var run sync.WaitGroup
	run.Go(func() { c.Run(ctx) })
	if err := c.Await(ctx, func() bool { return c.Online() && c.Unacknowledged() == 0 }); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.lost = true
	f.mu.Unlock()
	if err := c.Await(ctx, func() bool { return c.Stats().Bound == 2 }); err != nil {
		t.Fatal(err)
	}
	cancel()
	run.Wait()
	if s := c.Stats(); s.Ended["item-not-found"] != 1 || len(c.Faults()) != 1 {
		t.Errorf("%+v, %q", s, c.Faults())
	}
}
