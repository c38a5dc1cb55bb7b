package bench

import (
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"holdfast/bench/internal/fakexmpp"
	"holdfast/bench/relay"
)

func fakeBOSHTarget(t *testing.T, copies func(int) int) *Target {
	t.Helper()
	server := httptest.NewServer(&fakexmpp.BOSH{Server: &fakexmpp.Server{
		Domain:   "localhost",
		Password: func(user string) (string, bool) { return "pencil", strings.HasPrefix(user, "u0") },
		Copies:   copies,
	}})
	t.Cleanup(server.Close)
	return &Target{
		Name: "fake", URL: server.URL + "/http-bind", Domain: "localhost",
		Accounts: NumberedAccounts("u", 60, "pencil"), PIDs: []int{os.Getpid()},
	}
}

func pollTarget(t *testing.T) *Target {
	t.Helper()
	server := httptest.NewServer(relay.NewPoll())
	t.Cleanup(server.Close)
	return &Target{Name: "poll", Relay: true, URL: server.URL + "/poll", PIDs: []int{os.Getpid()}}
}

// XEP-0124 §8: the order is that of the requests, whichever response is read first.
func TestResponsesInOrder(t *testing.T) {
	c := &client{target: &Target{}, stage: ready}
	b := newBOSH(c)
	b.up, b.ask, b.due, b.next = true, ended, 5, 8
	var got []string
	c.onMessage = func(f []byte) { got = append(got, string(f)) }
	say := func(rid uint64, text string) { b.answered(rid, response{status: 200, body: []byte(text)}) }
	say(6, "<body><message>c</message><message>d</message></body>")
	if len(got) > 0 {
		t.Errorf("%q came before what was to come first", got)
	}
	say(5, "<body><message>a</message><message>b</message></body>")
	say(7, "<body><message>e</message></body>")
	if text := strings.Join(got, ""); text != "<message>a</message><message>b</message><message>c</message>"+
		"<message>d</message><message>e</message>" {
		t.Errorf("came in this order: %s", text)
	}
}

func TestSessionLost(t *testing.T) {
	for name, r := range map[string]response{
		"status":       {status: 503},
		"no body":      {status: 200, body: []byte("<html></html>")},
		"terminate":    {status: 200, body: []byte("<body type='terminate' condition='item-not-found'/>")},
		"stream error": {status: 200, body: []byte("<body type='terminate'><stream:error/></body>")},
	} {
		var failed error
		c := &client{target: &Target{}, stage: ready, onFail: func(err error) { failed = err }}
		b := newBOSH(c)
		c.carrier = b
		b.up, b.ask, b.due, b.next = true, ended, 5, 6
		if b.answered(5, r); failed == nil || b.up {
			t.Errorf("%s: the client goes on", name)
		}
	}
}
