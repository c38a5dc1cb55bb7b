package bench

import (
	"strings"
	"testing"
	"time"
)

func TestRoom(t *testing.T) {
	quick := RoomConfig{Rooms: 3, Occupants: 5, Warmup: 20 * time.Millisecond, Duration: 200 * time.Millisecond}
	with := func(change func(*RoomConfig)) RoomConfig {
		cfg := quick
		change(&cfg)
		return cfg
	}
	for _, test := range []struct {
		name   string
		target *Target
		cfg    RoomConfig
	}{
		{"plain", fakeTarget(t, nil), quick},
		{"plain with PLAIN", fakeTarget(t, nil), with(func(c *RoomConfig) { c.Login = Plain })},
		{"XEP-0198", fakeTarget(t, nil), with(func(c *RoomConfig) { c.SM = true })},
		{"paced", fakeTarget(t, nil), with(func(c *RoomConfig) { c.SM, c.Rate = true, 200 })},
		{"more than may be on their way into rooms", fakeTarget(t, nil), with(func(c *RoomConfig) { c.Occupants = 20 })},
		{"alone", fakeTarget(t, nil), with(func(c *RoomConfig) { c.Occupants = 1 })},
		{"BOSH", fakeBOSHTarget(t, nil), with(func(c *RoomConfig) { c.SM = true })},
	} {
		t.Run(test.name, func(t *testing.T) {
			for range 2 { // the rooms of the first time are gone
				var began time.Time
				r := measured(t, func() (*RoomResult, bool, error) {
					began = time.Now()
					r, err := Room(test.target, test.cfg)
					return r, err == nil && r.Clean() && r.Done == 0, err
				})
				if !r.Clean() || r.Done == 0 || r.PerCopy() <= 0 || r.Sent%test.cfg.Occupants != 0 {
					t.Errorf("counts %+v, %d done, %v each", r.Counts, r.Done, r.PerCopy())
				}
				if slack := 64 * test.cfg.Occupants; r.Copies < r.Done*test.cfg.Occupants-slack || r.Copies > r.Done*test.cfg.Occupants+slack {
					t.Errorf("%d copies of %d messages", r.Copies, r.Done)
				}
				if test.cfg.Rate > 0 {
					const settling = 2 * 200 * time.Millisecond // at least, after entering and after leaving
					checkPaced(t, r.Sent/test.cfg.Occupants, test.cfg.Rate, test.cfg.Warmup+test.cfg.Duration, time.Since(began)-settling)
				}
				if n := r.Latency.Count(); n != uint64(r.Done) || r.Latency.Quantile(0.5) <= 0 {
					t.Errorf("%d latencies of %d messages, p50 %v", n, r.Done, r.Latency.Quantile(0.5))
				}
			}
		})
	}
}

func TestRoomNoticesFaults(t *testing.T) {
	cfg := RoomConfig{Rooms: 2, Occupants: 4, SM: true, Warmup: 20 * time.Millisecond, Duration: 100 * time.Millisecond}
	t.Run("repeated", func(t *testing.T) {
		r, err := Room(fakeTarget(t, func(n int) int { return 1 + n%2 }), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if r.Repeated == 0 || r.Lost != 0 || r.Clean() {
			t.Errorf("counts %+v, want repetitions alone", r.Counts)
		}
	})
	t.Run("lost for one occupant", func(t *testing.T) {
		if testing.Short() {
			t.Skip("waits for the scenario's patience to end")
		}
		shortPatience(t)
		r, err := Room(fakeTarget(t, func(n int) int {
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
	t.Run("no rooms", func(t *testing.T) {
		_, err := Room(relayTarget(t), cfg)
		if err == nil || !strings.Contains(err.Error(), "no rooms") {
			t.Errorf("a relay: %v", err)
		}
	})
	t.Run("too few accounts", func(t *testing.T) {
		if _, err := Room(fakeTarget(t, nil), RoomConfig{Occupants: 61, Rooms: 1}); err == nil {
			t.Error("no error")
		}
	})
}

// What an occupant takes for its own entry, for a message, and for neither.
func TestOccupant(t *testing.T) {
	const (
		own     = `<presence from='r@c/me'><x xmlns='http://jabber.org/protocol/muc#user'><item/><status code='110'/></x></presence>`
		others  = `<presence from='r@c/you'><x xmlns='http://jabber.org/protocol/muc#user'><item/></x></presence>`
		gone    = `<presence from='r@c/me' type='unavailable'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x></presence>`
		refused = `<presence from='r@c/me' type='error'/>`
		subject = `<message from='r@c' type='groupchat'><subject/></message>`
		bounced = `<message from='r@c' type='error'/>`
		other   = `<message from='r@c' type='groupchat'><body>hello</body></message>`
	)
	letter := string(groupLetter("r@c", 0, 100).fill(0, 1))
	stranger := string(groupLetter("r@c", 1, 100).fill(0, 1))
	for _, test := range []struct {
		name   string
		frames []string
		place  place
		odd    Counts
		fails  bool
	}{
		{"XEP-0045 §7.1", []string{others, own, subject}, inside, Counts{}, false},
		{"others alone", []string{others, others}, outside, Counts{}, false},
		{"the subject first", []string{subject, own}, greeted, Counts{Unknown: 1}, false},
		{"a message before the subject", []string{own, letter}, greeted, Counts{Unknown: 1}, false},
		{"messages", []string{own, subject, letter}, inside, Counts{}, false},
		{"another room's message", []string{own, subject, stranger}, inside, Counts{Unknown: 1}, false},
		{"what nobody sent", []string{own, subject, other}, inside, Counts{Unknown: 1}, false},
		{"XEP-0045 §7.4 an error", []string{own, subject, bounced}, inside, Counts{Errors: 1}, false},
		{"XEP-0045 §8.2 removed", []string{own, subject, gone}, inside, Counts{Unknown: 1}, false},
		{"XEP-0045 §7.2.8 a conflict", []string{refused}, outside, Counts{}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &rooms{crowd: &crowd{loop: &loop{}}, result: &RoomResult{}}
			m := &room{rooms: r, missing: []int{1}}
			o := &occupant{room: m, addr: "r@c/me"}
			m.occupants = []*occupant{o}
			o.ledger.Send()
			for _, f := range test.frames {
				if strings.HasPrefix(f, "<presence") {
					o.presence([]byte(f))
				} else {
					o.message([]byte(f))
				}
			}
			odd := r.crowd.odd
			odd.Odd = ""
			if o.place != test.place || odd != test.odd || (r.crowd.err != nil) != test.fails {
				t.Errorf("place %d, odd %+v, error %v", o.place, r.crowd.odd, r.crowd.err)
			}
			if n := o.ledger.Counts().Delivered; (n == 1) != (test.name == "messages") {
				t.Errorf("%d delivered", n)
			}
		})
	}
}
