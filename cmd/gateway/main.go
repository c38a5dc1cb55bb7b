// Command gateway is Holdfast: an XMPP gateway for mobile apps and browser chat widgets. It is configured by
// HOLDFAST_* environment variables; `gateway config` prints them all.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"holdfast/auth"
)

const usage = `gateway: an XMPP gateway over WebSocket.

  gateway [serve]          serve until SIGTERM or SIGINT
  gateway user ...         add, change, remove, list and import accounts
  gateway offline ...      list, count, export and purge the messages kept for a user
  gateway config           print every setting with its value (--markdown: the table of defaults)
  gateway version          print the version

Settings are HOLDFAST_* environment variables.
`

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	command := "serve"
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "version":
		fmt.Println(version())
		return 0
	case "help", "-h", "--help":
		fmt.Print(usage)
		return 0
	case "serve", "user", "offline", "config":
	default:
		fmt.Fprintf(os.Stderr, "gateway: unknown command %q\n\n%s", command, usage)
		return 2
	}
	cfg, err := loadConfig(os.Environ())
	if err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	switch command {
	case "config":
		runConfig(args, &cfg, os.Stdout)
		return 0
	case "user":
		open := func(ctx context.Context) (*auth.Accounts, func() error, error) {
			return openAccounts(ctx, &cfg, slog.New(slog.DiscardHandler))
		}
		return runUser(ctx, args, os.Stdin, os.Stdout, os.Stderr, open, cfg.Domains)
	case "offline":
		open := func(ctx context.Context) (*mailboxes, error) { return openMailboxes(ctx, &cfg) }
		return runOffline(ctx, args, os.Stdout, os.Stderr, open, cfg.Domains)
	}
	if err := serve(ctx, &cfg, newLogger(&cfg, os.Stderr)); err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		if errors.Is(err, errFenced) {
			return 3
		}
		return 1
	}
	return 0
}

// openAccounts opens what the operator's commands work on, beside a running gateway.
func openAccounts(ctx context.Context, cfg *Config, log *slog.Logger) (*auth.Accounts, func() error, error) {
	k, err := openKept(ctx, cfg, nil)
	if err != nil {
		return nil, nil, err
	}
	accounts, err := auth.OpenAccounts(ctx, cfg.Auth, k.accounts, log)
	if err != nil {
		return nil, nil, errors.Join(err, k.Close())
	}
	return accounts, k.Close, nil
}

// version is the module's version, or the revision it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = s.Value[:min(12, len(s.Value))]
		}
	}
	if v == "" {
		return "(devel)"
	}
	return v
}
