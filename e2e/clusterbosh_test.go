package e2e

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/internal/testkit/boshclient"
	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/tally"
	"holdfast/internal/testkit/xmppclient"
)

// turns hands each request to the next gateway, and to the one after that when it is not there: a balancer that knows no
// sessions.
type turns struct {
	nodes []*gatewayproc.Gateway
	n     atomic.Uint64
}

func (b *turns) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	var err error
	if r.Body != nil {
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	for range b.nodes {
		next := r.Clone(r.Context())
		next.URL.Host = b.nodes[b.n.Add(1)%uint64(len(b.nodes))].Addr()
		next.Body = io.NopCloser(bytes.NewReader(body))
		var resp *http.Response
		if resp, err = http.DefaultTransport.RoundTrip(next); err == nil || r.Context().Err() != nil {
			return resp, err
		}
	}
	return nil, err
}

// startTurns runs such a balancer and returns where clients post.
func startTurns(t *testing.T, nodes []*gatewayproc.Gateway) (service string) {
	t.Helper()
	s := httptest.NewServer(&httputil.ReverseProxy{
		Transport: &turns{nodes: nodes},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", nodes[0].Addr()
			r.SetXForwarded()
		},
	})
	t.Cleanup(s.Close)
	return s.URL + "/http-bind"
}

// TestClusterBOSHStockClients is TestBOSHStockClients where every request lands on another gateway.
func TestClusterBOSHStockClients(t *testing.T) {
	long(t)
	needClients(t)
	nodes := startCluster(t, 3, leased(longLease, forPages()))
	service := startTurns(t, nodes)
	start := func(t *testing.T, library, name string) *nodeClient {
		t.Helper()
		if library == chromium {
			return startChromium(t, name, service)
		}
		return startNode(t, library, name, service, false, nil)
	}
	for _, p := range [][2]string{{stropheBOSH, stropheBOSH}, {chromium, stropheBOSH}} {
		t.Run(p[0]+" and "+p[1], func(t *testing.T) {
			romeo, juliet := "romeo-"+p[0], "juliet-"+p[0]
			nodes[0].AddUsers(romeo, juliet)
			meet(t, start, p, romeo, juliet)
		})
	}
}

// TestClusterBOSHReload: one gateway after the other is killed, the session's own among them, and a page goes on with its
// session on those that are left, also when it is reloaded then.
func TestClusterBOSHReload(t *testing.T) {
	long(t)
	needClients(t)
	nodes := startCluster(t, 3, forPages())
	service := startTurns(t, nodes)
	nodes[0].AddUsers("romeo", "juliet")
	r, j := startChromium(t, "romeo", service), startNode(t, stropheBOSH, "juliet", service, false, nil)
	r.awaitOnline()
	j.awaitOnline()
	interested(r, j)
	subscribe(t, j, r)
	jid := r.jid
	for i, how := range []string{"attach", "restore", "attach"} {
		nodes[i].Kill()
		if e := r.iq("get", gatewayproc.Domain, "<ping xmlns='urn:xmpp:ping'/>"); e.Attr("type") != "result" {
			t.Errorf("a ping of the server: %v", e)
		}
		id := how + string(rune('0'+i))
		r.command(map[string]any{"cmd": "reload", "how": how})
		r.wait("the session again", func() bool { return r.resumed == i+1 })
		j.send("%s", requesting(r.jid, id, "you after "+how))
		r.expect(id, withID(id))
		r.send("%s", receipt(j.jid, id))
		j.expect("the receipt", func(e *xmppclient.Element) bool { return e.Child("urn:xmpp:receipts", "received").Attr("id") == id })
		nodes[i].Run()
	}
	if r.jid != jid || r.fresh != 1 || j.fresh != 1 {
		t.Errorf("%d and %d sessions, now as %q, began as %q", r.fresh, j.fresh, r.jid, jid)
	}
	r.nothingMore("message")
	j.nothingMore("presence")
	r.stop()
	j.expect("the other's leaving", func(e *xmppclient.Element) bool { return presence(e, jid, "unavailable") })
	j.stop()
}

// TestClusterBOSHServedThrough: the session of a user whose other device is connected to another node, which therefore is the
// home, goes on when the node that it began at is killed, and when the home is.
func TestClusterBOSHServedThrough(t *testing.T) {
	long(t)
	nodes := startCluster(t, 3, nil)
	nodes[0].AddUsers("anna", "cleo")
	count := new(tally.Tally)
	cleo := runModel(t, "cleo", nodes[2].Addr(), xmppclient.Config{
		OnStanza: func(e *xmppclient.Element) { countStanza("cleo", e, count, false) },
		OnAck:    func(id string) { countAck(id, count) },
	})
	device := runModel(t, "anna", nodes[0].Addr(), xmppclient.Config{OnStanza: func(*xmppclient.Element) {}})
	cleo.awaitAvailable(t)
	device.awaitAvailable(t)
	client := boshclient.New(boshclient.ClientConfig{
		Config:   boshclient.Config{URL: startTurns(t, nodes), RepeatEvery: 5, Batch: 2}, // the second gateway has the first turn
		Account:  account("anna", "page"),
		OnStanza: func(e *xmppclient.Element) { countStanza("anna", e, count, false) },
		OnAck:    func(id string) { countAck(id, count) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { client.Run(ctx) })
	defer run.Wait()
	defer cancel()
	page := &boshUser{name: "anna", client: client}
	page.awaitAvailable(t)
	through := func() float64 { return metric(nodes[1], "holdfast_session_proxied_connections_total") }
	if !await(within(t, 10*time.Second), func() bool { return through() == 1 }) {
		t.Fatalf("%v connections are served through where the session began", through())
	}
	say := func(n int) {
		for range n {
			s := tally.Stream{From: "anna", To: "cleo"}
			client.Send(chatMessage(s, count.Send(s)))
			s = tally.Stream{From: "cleo", To: "anna"}
			cleo.client.Send(chatMessage(s, count.Send(s)))
			time.Sleep(2 * time.Millisecond) // spread over what happens
		}
	}
	say(100)
	for _, victim := range []int{1, 0} {
		go func() {
			time.Sleep(100 * time.Millisecond) // in the midst of it
			nodes[victim].Kill()
		}()
		say(200)
		await(within(t, 20*time.Second), func() bool { return count.Counts().Complete() })
		nodes[victim].Run()
		awaitMembers(t, nodes, 3)
		device.awaitOnline(t)
	}
	say(100)
	await(within(t, 30*time.Second), func() bool { return count.Counts().Complete() })
	await(within(t, time.Second), func() bool { return !count.Counts().Clean() })
	report(t, "a page and a device of one user", count)
	checkBOSH(t, page)
	page.leave(t)
	device.leave(t)
	cleo.leave(t)
}
