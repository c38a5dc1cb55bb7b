package e2e

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/xmppclient"
)

// TestConnectionsThatNeverSpeak opens thousands of connections that say nothing, or stop halfway. Those over the cap
// are refused, the others end by their deadline, and who behaves is served all the time.
func TestConnectionsThatNeverSpeak(t *testing.T) {
	long(t)
	const mute, room = 3000, 1000
	g := gatewayproc.Start(t, map[string]string{
		"HOLDFAST_WS_MAX_UNAUTHENTICATED":          "1000",
		"HOLDFAST_WS_MAX_UNAUTHENTICATED_PER_ADDR": "0", // here all come from one address
		"HOLDFAST_WS_HANDSHAKE_TIMEOUT":            "4s",
		"HOLDFAST_WS_AUTH_TIMEOUT":                 "5s",
	})
	g.AddUsers("witness", "latecomer")
	witness := available(t, g, "witness", "")
	before := g.ResidentMiB()

	var let, refused, failed, timedOut atomic.Int32
	var all sync.WaitGroup
	dialling := make(chan struct{}, 64)
	for range mute {
		all.Go(func() {
			dialling <- struct{}{}
			c, resp, err := xmppclient.DialOptions(t.Context(), g.URL(), &websocket.DialOptions{Subprotocols: []string{"xmpp"}})
			<-dialling
			switch {
			case err == nil:
				let.Add(1)
				defer c.Abort()
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				for {
					e, err := c.Read(ctx)
					if err != nil {
						return
					}
					if e.Is(xmppclient.NSStream, "error") && e.Condition() == "connection-timeout" {
						timedOut.Add(1)
					}
				}
			case resp != nil && resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
				refused.Add(1)
			default:
				failed.Add(1)
			}
		})
	}
	// Connections that do not even finish the request's header.
	var silent []net.Conn
	for range 500 {
		c, err := net.Dial("tcp", g.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("GET /xmpp-websocket HTTP/1.1\r\nHost: ")); err != nil {
			t.Fatal(err)
		}
		silent = append(silent, c)
	}
	for range 10 {
		witness.alive()
	}
	all.Wait()
	t.Logf("%d connections let in, %d refused with 503, %d failed, %d told of their timeout; %d MiB resident before, %d after",
		let.Load(), refused.Load(), failed.Load(), timedOut.Load(), before, g.ResidentMiB())
	if refused.Load() == 0 || failed.Load() > 0 {
		t.Errorf("%d refused with 503, %d failed otherwise", refused.Load(), failed.Load())
	}
	if let.Load() < room/2 || timedOut.Load() != let.Load() {
		t.Errorf("%d of the %d let in were told of their timeout", timedOut.Load(), let.Load())
	}
	available(t, g, "latecomer", "").alive()
	witness.alive()
	// The unfinished requests end by the header's deadline.
	for _, c := range silent {
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		for {
			_, err := c.Read(make([]byte, 512))
			if err == nil {
				continue
			}
			if strings.Contains(err.Error(), "timeout") {
				t.Fatal("a connection without a request stays open")
			}
			break
		}
		_ = c.Close()
	}
	witness.alive()
}
