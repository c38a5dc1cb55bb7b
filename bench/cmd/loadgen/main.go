//go:build linux

// Command loadgen measures an XMPP server that speaks WebSocket (RFC 7395) or BOSH (XEP-0124), or the bare relay, with
// one scenario of package bench. See bench/README.md.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"holdfast/bench"
)

type options struct {
	target              bench.Target
	scenario            string
	mechanism           bench.Mechanism
	prefix, password    string
	csv, pids, sessions string
	users, first, count int
	chat                bench.ChatConfig
	rooms               bench.RoomConfig
	atOnce, queued      int
	core                int
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "loadgen:", err)
		}
		os.Exit(1)
	}
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("loadgen", flag.ContinueOnError)
	f.StringVar(&o.target.URL, "url", "ws://127.0.0.1:5280/xmpp-websocket",
		"the server's address: ws:// for WebSocket, http:// for BOSH")
	f.StringVar(&o.target.Domain, "domain", "localhost", "XMPP domain")
	f.BoolVar(&o.target.Relay, "relay", false, "the server is bench/relay (ws://…/relay or http://…/poll)")
	f.StringVar(&o.scenario, "scenario", "chat", "chat, room, login, idle, resume or offline")
	f.StringVar((*string)(&o.mechanism), "mechanism", string(bench.ScramSHA256), "SCRAM-SHA-256 or PLAIN")
	f.StringVar(&o.prefix, "prefix", "u", "users are this and a number of five digits from 00000")
	f.StringVar(&o.password, "password", "pencil", "password of all of them")
	f.IntVar(&o.users, "users", 10_000, "how many there are")
	f.StringVar(&o.csv, "csv", "", "file with name,password lines of the users, instead")
	f.StringVar(&o.pids, "pid", "", "processes of the server, comma-separated, whose CPU time and memory are read")
	f.IntVar(&o.core, "core", -1, "core to run on, -1 for any")
	f.IntVar(&o.first, "first", 0, "room, login, resume, offline: number of the first user")
	f.IntVar(&o.count, "count", 0, "login: logins; resume: sessions; offline: recipients (0: the scenario's own number)")
	f.IntVar(&o.atOnce, "at-once", 0, "login, resume: connections under way at a time (0: 32 for login, all for resume)")
	f.IntVar(&o.queued, "queued", 0, "resume, offline: messages for each (0: 5 and 100)")
	f.StringVar(&o.sessions, "sessions", "5000,10000", "idle: sessions to measure at")
	f.IntVar(&o.chat.Pairs, "pairs", 50, "chat: pairs of users")
	f.IntVar(&o.rooms.Rooms, "rooms", 10, "room: how many")
	f.IntVar(&o.rooms.Occupants, "occupants", 20, "room: users in each, of whom one writes")
	f.StringVar(&o.rooms.Host, "room-host", "", "room: where the rooms are (empty: conference. before the domain)")
	f.IntVar(&o.chat.Window, "outstanding", 0, "chat, room: messages of a pair, or of a room, on their way at a time (0: 8 and 4)")
	f.Float64Var(&o.chat.Rate, "rate", 0, "chat, room: messages a second in all, evenly paced (0: as many as get through)")
	f.IntVar(&o.chat.Body, "body", 100, "chat, room: bytes of a body")
	f.DurationVar(&o.chat.Duration, "duration", 5*time.Second, "chat, room: time measured")
	f.DurationVar(&o.chat.Warmup, "warmup", 500*time.Millisecond, "chat, room: time before")
	f.BoolVar(&o.chat.SM, "sm", false, "chat, room, login, idle: stream management")
	f.IntVar(&o.chat.AckEvery, "ack-every", 5, "chat, room: stanzas between two <r/>")
	f.IntVar(&o.chat.Together, "together", 1, "chat over HTTP: stanzas in one request at most, -1 for all that wait")
	f.BoolVar(&o.chat.Receipts, "receipts", false, "chat: delivery receipts")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("what is %q?", f.Arg(0))
	}
	o.target.Name = o.target.URL
	o.chat.Login = o.mechanism
	return o, o.resolve()
}

func (o *options) resolve() error {
	if o.mechanism != bench.ScramSHA256 && o.mechanism != bench.Plain {
		return fmt.Errorf("-mechanism is %s or %s", bench.ScramSHA256, bench.Plain)
	}
	pids, err := numbers(o.pids)
	if err != nil {
		return fmt.Errorf("-pid: %w", err)
	}
	o.target.PIDs = pids
	switch {
	case o.target.Relay:
	case o.csv != "":
		file, err := os.Open(o.csv)
		if err != nil {
			return fmt.Errorf("-csv: %w", err)
		}
		defer file.Close()
		if o.target.Accounts, err = bench.ReadAccounts(file); err != nil {
			return err
		}
	default:
		o.target.Accounts = bench.NumberedAccounts(o.prefix, o.users, o.password)
	}
	return nil
}

func numbers(list string) (all []int, err error) {
	for text := range strings.SplitSeq(list, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

func run(args []string, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.core >= 0 {
		if err := bench.Confine(o.core); err != nil {
			return err
		}
	}
	switch o.scenario {
	case "chat":
		return o.runChat(out)
	case "room":
		return o.runRoom(out)
	case "login":
		return o.runLogin(out)
	case "idle":
		return o.runIdle(out)
	case "resume":
		return o.runResume(out)
	case "offline":
		return o.runOffline(out)
	}
	return fmt.Errorf("there is no scenario %q", o.scenario)
}

func (o *options) runChat(out io.Writer) error {
	r, err := bench.Chat(&o.target, o.chat)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "messages   %d in %v, %.0f/s\n", r.Done, r.Wall.Round(time.Millisecond), float64(r.Done)/r.Wall.Seconds())
	if r.Requests > 0 {
		fmt.Fprintf(out, "requests   %.2f for each message\n", float64(r.Requests)/float64(max(r.Done, 1)))
	}
	effort(out, r.Effort, r.Done, "message")
	latency(out, &r.Latency)
	return counts(out, r.Counts)
}

func (o *options) runRoom(out io.Writer) error {
	cfg := o.rooms
	cfg.First, cfg.Login, cfg.Window, cfg.Rate, cfg.Body = o.first, o.mechanism, o.chat.Window, o.chat.Rate, o.chat.Body
	cfg.SM, cfg.AckEvery, cfg.Warmup, cfg.Duration = o.chat.SM, o.chat.AckEvery, o.chat.Warmup, o.chat.Duration
	r, err := bench.Room(&o.target, cfg)
	if err != nil {
		return err
	}
	seconds := r.Wall.Seconds()
	fmt.Fprintf(out, "messages   %d in %v, %.0f/s\n", r.Done, r.Wall.Round(time.Millisecond), float64(r.Done)/seconds)
	fmt.Fprintf(out, "copies     %d, %.0f/s\n", r.Copies, float64(r.Copies)/seconds)
	effort(out, r.Effort, r.Copies, "copy")
	latency(out, &r.Latency)
	return counts(out, r.Counts)
}

func (o *options) runLogin(out io.Writer) error {
	r, err := bench.Login(&o.target, bench.LoginConfig{
		First: o.first, Count: o.count, AtOnce: o.atOnce, Mechanism: o.mechanism, SM: o.chat.SM,
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "logins     %d in %v, %.0f/s\n", r.Logins, r.Took.Round(time.Millisecond), float64(r.Logins)/r.Took.Seconds())
	effort(out, r.Effort, r.Logins, "login")
	return nil
}

func (o *options) runIdle(out io.Writer) error {
	sessions, err := numbers(o.sessions)
	if err != nil {
		return fmt.Errorf("-sessions: %w", err)
	}
	steps, err := bench.Idle(&o.target, bench.IdleConfig{Sessions: sessions, SM: o.chat.SM, Mechanism: o.mechanism})
	for _, s := range steps {
		fmt.Fprintf(out, "idle       %d sessions, %.1f KiB each\n", s.Sessions, float64(s.PerSession)/1024)
	}
	return err
}

func (o *options) runResume(out io.Writer) error {
	r, err := bench.Resume(&o.target, bench.ResumeConfig{
		First: o.first, Sessions: o.count, Queued: o.queued, AtOnce: o.atOnce, Mechanism: o.mechanism,
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "resumed    %d\n", r.Resumed)
	effort(out, r.Effort, r.Resumed, "session")
	latency(out, &r.Latency)
	return counts(out, r.Counts)
}

func (o *options) runOffline(out io.Writer) error {
	r, err := bench.Offline(&o.target, bench.OfflineConfig{
		First: o.first, Recipients: o.count, Messages: o.queued, Mechanism: o.mechanism,
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "store      %d messages\n", r.Messages)
	effort(out, r.Store, r.Messages, "message")
	fmt.Fprintln(out, "drain")
	effort(out, r.Drain, r.Messages, "message")
	if r.LeftOver > 0 {
		fmt.Fprintf(out, "left over  %d\n", r.LeftOver)
	}
	return counts(out, r.Counts)
}

func effort(out io.Writer, e bench.Effort, n int, what string) {
	fmt.Fprintf(out, "server     %v CPU, %.2f µs for each %s\n", e.ServerCPU.Round(time.Millisecond),
		float64(e.Per(n).Nanoseconds())/1000, what)
	fmt.Fprintf(out, "generator  %v CPU in %v\n", e.LoadCPU.Round(time.Millisecond), e.Wall.Round(time.Millisecond))
}

func latency(out io.Writer, h *bench.Histogram) {
	fmt.Fprintf(out, "latency    p50 %v, p99 %v, p99.9 %v, max %v\n", h.Quantile(0.5), h.Quantile(0.99), h.Quantile(0.999), h.Max())
}

func counts(out io.Writer, c bench.Counts) error {
	fmt.Fprintf(out, "counts     %d sent, %d delivered, %d lost, %d repeated, %d out of order, %d unexpected, %d errors, %d unacknowledged\n",
		c.Sent, c.Delivered, c.Lost, c.Repeated, c.OutOfOrder, c.Unknown, c.Errors, c.Unacked)
	if c.Odd != "" {
		fmt.Fprintf(out, "           the first message that was not expected: %s\n", c.Odd)
	}
	if !c.Clean() {
		return errors.New("not every message came once, in order, and was acknowledged")
	}
	return nil
}
