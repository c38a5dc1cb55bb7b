//go:build linux

// Command suite runs every measurement of the gateway and of the bare relays in one go and prints them side by side,
// each with its bound and a verdict: "make bench". Server and relay have one core, this program has the other. With
// -cluster it measures two gateways with their Redis and PostgreSQL instead: "make bench-cluster".
//
// It ends with status 1 when a bound is missed, when a message was lost, repeated or out of order, or when something
// could not be measured.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"holdfast/bench"
)

type options struct {
	gateway    string
	dir        string
	env        list
	rounds     int
	short      bool
	serverCore int
	loadCore   int
	limit      time.Duration
	only       string
	cluster    bool
	report     string
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

func main() {
	if served, err := serveRelay(); served {
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
	ok, err := run(os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "suite:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("suite", flag.ContinueOnError)
	f.StringVar(&o.gateway, "gateway", "bin/gateway", "the gateway's binary")
	f.StringVar(&o.dir, "dir", "", "directory for data and logs, kept; a temporary one, removed, when empty")
	f.Var(&o.env, "env", "NAME=value for the gateway; may be repeated")
	f.IntVar(&o.rounds, "rounds", 0, "rounds of each measurement, whose median counts (0: 3, or 1 with -short)")
	f.BoolVar(&o.short, "short", false, "less of everything, in a minute")
	f.IntVar(&o.serverCore, "server-core", 0, "core for the gateway and the relay")
	f.IntVar(&o.loadCore, "load-core", 1, "core for the load; -1 to pin nothing")
	f.DurationVar(&o.limit, "limit", 0, "give up after this time (0: 12m, or 3m with -short; half as much again with -cluster)")
	f.StringVar(&o.only, "only", "", "comma-separated: login, chat, paced, allocs, resume, offline, room, idle, bosh or one of\n"+
		"offline-postgres, bosh-chat, bosh-paced, bosh-idle (empty: all);\n"+
		"with -cluster: idle, chat, paced, offline, cut, storm, kill, lease")
	f.BoolVar(&o.cluster, "cluster", false, "measure a cluster of two gateways, Redis and PostgreSQL")
	f.StringVar(&o.report, "json", "", "file for all figures of all rounds")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("what is %q?", f.Arg(0))
	}
	if o.limit == 0 {
		o.limit = 12 * time.Minute
		if o.short {
			o.limit = 3 * time.Minute
		}
		if o.cluster {
			o.limit += o.limit / 2
		}
	}
	if o.rounds == 0 {
		o.rounds = 3
		if o.short {
			o.rounds = 1
		}
	}
	return o, nil
}

func run(args []string, out, progress io.Writer) (ok bool, err error) {
	o, err := parse(args)
	if err != nil {
		return false, err
	}
	if o.loadCore >= 0 {
		if o.loadCore == o.serverCore {
			return false, errors.New("load and server need a core each")
		}
		if err := bench.Confine(o.loadCore); err != nil {
			return false, err
		}
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "holdfast-bench-"); err != nil {
			return false, fmt.Errorf("making a directory: %w", err)
		}
		defer os.RemoveAll(o.dir)
	} else if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return false, fmt.Errorf("making a directory: %w", err)
	}
	s := &suite{options: o, progress: progress, started: time.Now()}
	measure := s.run
	if o.cluster {
		measure = (&cluster{suite: s}).run
	}
	defer s.stop()
	timeout := time.AfterFunc(o.limit, func() {
		fmt.Fprintf(progress, "giving up after %v\n", o.limit)
		s.kill()
		os.Exit(1)
	})
	defer timeout.Stop()
	if err := measure(); err != nil {
		return false, err
	}
	ok = s.table.print(out)
	if o.report != "" {
		err = s.table.writeReport(o.report)
	}
	return ok, err
}
