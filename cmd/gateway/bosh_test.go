package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/internal/testkit/boshclient"
	"holdfast/internal/testkit/xmppclient"
)

// overBOSH is authenticated, over BOSH.
func (n *node) overBOSH(user string) *client {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn := boshclient.Dial(boshclient.Config{
		URL: "http://" + n.cfg.Listen + "/http-bind", Domain: n.cfg.Domains[0], Wait: 10 * time.Second,
	})
	n.t.Cleanup(conn.Abort)
	if err := conn.Prepare(ctx, n.account(user)); err != nil {
		n.t.Fatalf("%s: %v", user, err)
	}
	return &client{t: n.t, Conn: conn}
}

// takeUp has c go on with the session of old.
func (c *client) takeUp(old *client, h int) {
	c.t.Helper()
	c.in, c.token, c.JID = old.in, old.token, old.JID
	c.send(fmt.Sprintf("<resume xmlns='%s' previd='%s' h='%d'/>", xmppclient.NSSM, old.token, old.in))
	if e := c.next(); !e.Is(xmppclient.NSSM, "resumed") || e.Attr("h") != fmt.Sprint(h) {
		c.t.Fatalf("%v in answer to <resume/>, want h=%d", e, h)
	}
}

// A session that began over BOSH goes on over WebSocket, and back: it is the same one, and nothing is lost or repeated.
func TestSessionMovesBetweenTransports(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	n.addUsers("juliet", "romeo")
	juliet := n.managed("juliet", "")
	juliet.available()
	romeo := n.overBOSH("romeo")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := romeo.Bind(ctx, "test"); err != nil {
		t.Fatal(err)
	}
	romeo.send("<enable xmlns='" + xmppclient.NSSM + "' resume='true'/>")
	enabled := romeo.next()
	if romeo.token = enabled.Attr("id"); romeo.token == "" {
		t.Fatalf("%v in answer to <enable/>", enabled)
	}
	romeo.available()
	romeo.chat(juliet.JID, "1")
	juliet.chat(romeo.JID, "a", "b")
	if got := romeo.bodies(2); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("over BOSH %q", got)
	}
	romeo.acked(2) // presence and a message
	romeo.Abort()

	juliet.chat(romeo.JID, "c")
	web := n.authenticated("romeo")
	web.takeUp(romeo, 2)
	juliet.chat(romeo.JID, "d")
	if got := web.bodies(2); !slices.Equal(got, []string{"c", "d"}) {
		t.Errorf("over WebSocket %q", got)
	}
	web.chat(juliet.JID, "2")
	web.acked(3)
	web.Abort()

	juliet.chat(romeo.JID, "e")
	again := n.overBOSH("romeo")
	again.takeUp(web, 3)
	juliet.chat(romeo.JID, "f")
	if got := again.bodies(2); !slices.Equal(got, []string{"e", "f"}) {
		t.Errorf("over BOSH again %q", got)
	}
	again.chat(juliet.JID, "3")
	if got := juliet.bodies(3); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("juliet got %q", got)
	}
	// The first BOSH session is over: its client would have the stanzas of two transports.
	if _, err := romeo.read(); err == nil {
		t.Error("the first BOSH session goes on")
	}
}

// A gateway that is asked to end leaves its BOSH sessions to the next one, at once.
func TestBOSHSessionSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, dir, nil)
	n.addUsers("juliet", "romeo")
	romeo := n.overBOSH("romeo")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := romeo.Bind(ctx, "test"); err != nil {
		t.Fatal(err)
	}
	romeo.available()
	start := time.Now()
	n.stop()
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the gateway took %v to end", took)
	}
	next := n.next(dir, map[string]string{"LISTEN": n.cfg.Listen})
	juliet := next.bound("juliet")
	juliet.chat(romeo.JID, "after")
	if got := romeo.bodies(1); !slices.Equal(got, []string{"after"}) {
		t.Errorf("got %q", got)
	}
	if logged := next.log.String(); !strings.Contains(logged, "session goes on") {
		t.Error("the session began anew")
	}
}
