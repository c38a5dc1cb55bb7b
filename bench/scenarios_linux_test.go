package bench

import (
	"errors"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"holdfast/bench/internal/fakexmpp"
	"holdfast/bench/relay"
)

func fakeTarget(t *testing.T, copies func(int) int) *Target {
	t.Helper()
	server := httptest.NewServer(&fakexmpp.Server{
		Domain:   "localhost",
		Password: func(user string) (string, bool) { return "pencil", strings.HasPrefix(user, "u0") },
		Copies:   copies,
	})
	t.Cleanup(server.Close)
	return &Target{
		Name: "fake", URL: "ws" + strings.TrimPrefix(server.URL, "http"), Domain: "localhost",
		Accounts: NumberedAccounts("u", 60, "pencil"), PIDs: []int{os.Getpid()},
	}
}

func relayTarget(t *testing.T) *Target {
	t.Helper()
	server := httptest.NewServer(relay.New())
	t.Cleanup(server.Close)
	return &Target{
		Name: "relay", Relay: true, URL: "ws" + strings.TrimPrefix(server.URL, "http") + "/relay",
		PIDs: []int{os.Getpid()},
	}
}

func TestChat(t *testing.T) {
	quick := ChatConfig{Pairs: 5, Warmup: 20 * time.Millisecond, Duration: 200 * time.Millisecond}
	with := func(change func(*ChatConfig)) ChatConfig {
		cfg := quick
		change(&cfg)
		return cfg
	}
	for _, test := range []struct {
		name   string
		target *Target
		cfg    ChatConfig
	}{
		{"relay at saturation", relayTarget(t), quick},
		{"relay paced", relayTarget(t), with(func(c *ChatConfig) { c.Rate = 500 })},
		{"plain", fakeTarget(t, nil), quick},
		{"plain with PLAIN", fakeTarget(t, nil), with(func(c *ChatConfig) { c.Login = Plain })},
		{"XEP-0198", fakeTarget(t, nil), with(func(c *ChatConfig) { c.SM = true })},
		{"XEP-0198 and XEP-0184", fakeTarget(t, nil), with(func(c *ChatConfig) { c.SM, c.Receipts = true, true })},
		{"paced", fakeTarget(t, nil), with(func(c *ChatConfig) { c.Rate = 500 })},
		{"long poll", pollTarget(t), quick},
		{"long poll paced", pollTarget(t), with(func(c *ChatConfig) { c.Rate = 500 })},
		{"long poll, together", pollTarget(t), with(func(c *ChatConfig) { c.Together = -1 })},
		{"BOSH", fakeBOSHTarget(t, nil), quick},
		{"BOSH, together", fakeBOSHTarget(t, nil), with(func(c *ChatConfig) { c.Together = -1 })},
		{"BOSH with PLAIN", fakeBOSHTarget(t, nil), with(func(c *ChatConfig) { c.Login = Plain })},
		{"BOSH paced", fakeBOSHTarget(t, nil), with(func(c *ChatConfig) { c.Rate = 500 })},
		{"BOSH, XEP-0198 and XEP-0184", fakeBOSHTarget(t, nil), with(func(c *ChatConfig) { c.SM, c.Receipts = true, true })},
	} {
		t.Run(test.name, func(t *testing.T) {
			var marks int
			test.cfg.Mark = func() { marks++ }
			var began time.Time
			r := measured(t, func() (*ChatResult, bool, error) {
				marks, began = 0, time.Now()
				r, err := Chat(test.target, test.cfg)
				return r, err == nil && r.Clean() && r.Done == 0, err
			})
			if !r.Clean() || r.Done == 0 || r.PerMessage() <= 0 || marks != 2 {
				t.Errorf("counts %+v, %d done, %v each, %d marks", r.Counts, r.Done, r.PerMessage(), marks)
			}
			if test.cfg.Rate > 0 {
				checkPaced(t, r.Sent, test.cfg.Rate, test.cfg.Warmup+test.cfg.Duration, time.Since(began))
			}
			if test.target.URL[:4] == "http" && (r.Requests == 0 || test.cfg.Together == 0 && r.Requests < r.Done) {
				t.Errorf("%d requests for %d messages", r.Requests, r.Done)
			}
			if n := r.Latency.Count(); n != uint64(r.Done) || r.Latency.Quantile(0.5) <= 0 {
				t.Errorf("%d latencies of %d messages, p50 %v", n, r.Done, r.Latency.Quantile(0.5))
			}
		})
	}
}

// measured runs a scenario, and again when it is idle: on a machine that stands still, nothing may be done in the time
// measured.
func measured[R any](t *testing.T, run func() (r R, idle bool, err error)) R {
	t.Helper()
	for tries := 5; ; tries-- {
		r, idle, err := run()
		if err != nil {
			t.Fatal(err)
		}
		if !idle || tries == 1 {
			return r
		}
	}
}

// A generator that does not notice loss and repetition would find every server faultless.
func TestChatNoticesFaults(t *testing.T) {
	cfg := ChatConfig{Pairs: 2, Warmup: 20 * time.Millisecond, Duration: 100 * time.Millisecond}
	t.Run("repeated", func(t *testing.T) {
		twice := func(n int) int { return 1 + n%2 }
		for _, target := range []*Target{fakeTarget(t, twice), fakeBOSHTarget(t, twice)} {
			r, err := Chat(target, cfg)
			if err != nil {
				t.Fatal(err)
			}
			if r.Repeated == 0 || r.Lost != 0 || r.Clean() {
				t.Errorf("counts %+v, want repetitions alone", r.Counts)
			}
		}
	})
	t.Run("lost", func(t *testing.T) {
		if testing.Short() {
			t.Skip("waits for the scenario's patience to end")
		}
		shortPatience(t)
		r, err := Chat(fakeTarget(t, func(n int) int {
			if n == 7 {
				return 0
			}
			return 1
		}), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if r.Lost != 1 || r.Repeated != 0 || r.Clean() {
			t.Errorf("counts %+v, want one loss", r.Counts)
		}
	})
}

// shortPatience is for a test in which something is lost.
func shortPatience(t *testing.T) {
	was := lastPatience
	lastPatience = 5 * time.Second
	t.Cleanup(func() { lastPatience = was })
}

func TestLogin(t *testing.T) {
	for _, test := range []struct {
		name   string
		target *Target
		cfg    LoginConfig
	}{
		{"RFC 7677 SCRAM-SHA-256", fakeTarget(t, nil), LoginConfig{Count: 20, Mechanism: ScramSHA256, SM: true}},
		{"RFC 4616 PLAIN", fakeTarget(t, nil), LoginConfig{Count: 20, Mechanism: Plain, SM: true}},
		{"relay", relayTarget(t), LoginConfig{Count: 20}},
		{"BOSH, SCRAM-SHA-256", fakeBOSHTarget(t, nil), LoginConfig{Count: 20, Mechanism: ScramSHA256, SM: true}},
		{"BOSH, PLAIN", fakeBOSHTarget(t, nil), LoginConfig{Count: 20, Mechanism: Plain}},
		{"long poll", pollTarget(t), LoginConfig{Count: 20}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := Login(test.target, test.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if r.Logins != 20 || r.PerLogin() <= 0 {
				t.Errorf("%d logins, %v each", r.Logins, r.PerLogin())
			}
		})
	}
	t.Run("RFC 6120 §6.5.10 not-authorized", func(t *testing.T) {
		for _, target := range []*Target{fakeTarget(t, nil), fakeBOSHTarget(t, nil)} {
			target.Accounts = NumberedAccounts("u", 3, "wrong")
			for _, mechanism := range []Mechanism{ScramSHA256, Plain} {
				_, err := Login(target, LoginConfig{Count: 3, Mechanism: mechanism})
				if err == nil || !strings.Contains(err.Error(), "not-authorized") {
					t.Errorf("%s with a wrong password: %v", mechanism, err)
				}
			}
		}
	})
	t.Run("too few accounts", func(t *testing.T) {
		if _, err := Login(fakeTarget(t, nil), LoginConfig{Count: 61}); err == nil {
			t.Error("no error")
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		target := relayTarget(t)
		for _, target.URL = range []string{"ws://127.0.0.1:1/relay", "http://127.0.0.1:1/poll"} {
			if _, err := Login(target, LoginConfig{Count: 1}); err == nil || errors.Is(err, ErrPatience) {
				t.Errorf("got %v, want the connection's error", err)
			}
		}
	})
}

func TestIdle(t *testing.T) {
	for _, target := range []*Target{fakeTarget(t, nil), relayTarget(t), fakeBOSHTarget(t, nil), pollTarget(t)} {
		steps, err := Idle(target, IdleConfig{Sessions: []int{20, 40}, Before: 5, SM: true, Patience: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if len(steps) != 2 || steps[0].Sessions != 20 || steps[1].Sessions != 40 {
			t.Errorf("%s: %+v", target.Name, steps)
		}
	}
}

func TestResume(t *testing.T) {
	for _, atOnce := range []int{0, 4} {
		r, err := Resume(fakeTarget(t, nil), ResumeConfig{Sessions: 20, Senders: 3, AtOnce: atOnce, Mechanism: Plain})
		if err != nil {
			t.Fatal(err)
		}
		if !r.Clean() || r.Sent != 100 || r.Resumed != 20 || r.Latency.Count() != 20 {
			t.Errorf("counts %+v, %d resumed, %d latencies", r.Counts, r.Resumed, r.Latency.Count())
		}
	}
}

func TestOffline(t *testing.T) {
	r, err := Offline(fakeTarget(t, nil), OfflineConfig{Recipients: 10, Messages: 30, Mechanism: Plain})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Clean() || r.Sent != 300 || r.LeftOver != 0 || r.Store.Per(r.Messages) <= 0 || r.Drain.Per(r.Messages) <= 0 {
		t.Errorf("%+v", r)
	}
}
