package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"time"

	"holdfast/auth"
	"holdfast/offline"
	"holdfast/stanza"
)

const offlineUsage = `Look at the messages that are kept for a user who is away, or remove them. The gateway may be running meanwhile.

  gateway offline list USER [--json]         print a line for each message: id, time, type, size in bytes, sender
  gateway offline count USER [--json]        print how many there are, and how many bytes
  gateway offline export USER                write them as XML (XEP-0227), with the times at which they were sent
  gateway offline purge USER [--wait 10s]    remove them, and print how many they were

USER is name or name@domain; without a domain it is of the first in HOLDFAST_DOMAINS. --json prints one object a line.
list, count and export read the database, which has what the gateway took after HOLDFAST_OFFLINE_WINDOW at the latest;
what a killed gateway has only in its journal comes when it starts again. purge is carried out by the gateway that serves
the user, within a second or two, and concerns what was there when it was asked for. When none has done it within the
time of --wait, the exit status is 4, and it will be done when one runs.
`

// exitPending says that a purge is recorded but was not carried out yet.
const exitPending = 4

// mailboxes is what `gateway offline` works on.
type mailboxes struct {
	accounts *auth.Accounts
	store    offline.Backend
	purges   offline.Purges
	close    func() error
}

// openMailboxes opens them beside a running gateway.
func openMailboxes(ctx context.Context, cfg *Config) (*mailboxes, error) {
	k, err := openKept(ctx, cfg, nil)
	if err != nil {
		return nil, err
	}
	accounts, err := auth.OpenAccounts(ctx, cfg.Auth, k.accounts, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return &mailboxes{accounts: accounts, store: k.mailboxes, purges: k.purges, close: k.Close}, nil
}

// offlineCommand is one run of `gateway offline`.
type offlineCommand struct {
	*mailboxes
	user   stanza.Addr
	stdout *bufio.Writer
	stderr io.Writer
	json   bool
	wait   time.Duration
}

// runOffline is `gateway offline`. It returns the exit status.
func runOffline(ctx context.Context, args []string, stdout, stderr io.Writer,
	open func(ctx context.Context) (*mailboxes, error), domains []string,
) (status int) {
	if len(args) == 0 {
		_, _ = io.WriteString(stderr, offlineUsage)
		return exitUsage
	}
	c := &offlineCommand{stdout: bufio.NewWriter(stdout), stderr: stderr}
	fs := flag.NewFlagSet("gateway offline "+args[0], flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	var run func(context.Context) error
	switch args[0] {
	case "list":
		run = c.list
		fs.BoolVar(&c.json, "json", false, "")
	case "count":
		run = c.count
		fs.BoolVar(&c.json, "json", false, "")
	case "export":
		run = c.export
	case "purge":
		run = c.purge
		fs.DurationVar(&c.wait, "wait", 10*time.Second, "")
	case "help", "-h", "-help", "--help":
		_, _ = io.WriteString(stdout, offlineUsage)
		return exitOK
	default:
		_, _ = fmt.Fprintf(stderr, "gateway offline: there is no command %q\n\n%s", args[0], offlineUsage)
		return exitUsage
	}
	names, err := parseMixed(fs, args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(stdout, offlineUsage)
		return exitOK
	case err == nil && len(names) != 1:
		err = fmt.Errorf("gateway offline %s: wrong number of arguments", args[0])
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "%v\n\n%s", err, offlineUsage)
		return exitUsage
	}
	if c.user, err = parseUser(names[0], domains); err == nil {
		if c.mailboxes, err = open(ctx); err == nil {
			err = errors.Join(c.run(ctx, run), c.close())
		}
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "gateway offline %s: %v\n", args[0], err)
	}
	switch {
	case errors.Is(err, errPending):
		return exitPending
	case err != nil:
		return exitFailed
	}
	return exitOK
}

// run runs a command for a user who exists.
func (c *offlineCommand) run(ctx context.Context, command func(context.Context) error) error {
	exists, err := c.accounts.Exists(ctx, c.user)
	if err == nil && !exists {
		err = auth.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.user, err)
	}
	return errors.Join(command(ctx), c.stdout.Flush())
}

func (c *offlineCommand) count(ctx context.Context) error {
	t, err := c.store.Totals(ctx, c.user.String())
	if err != nil {
		return err
	}
	if c.json {
		return json.NewEncoder(c.stdout).Encode(struct {
			User     string `json:"user"`
			Messages int    `json:"messages"`
			Bytes    int64  `json:"bytes"`
		}{c.user.String(), t.Messages, t.Bytes})
	}
	_, err = fmt.Fprintf(c.stdout, "%d messages, %d bytes\n", t.Messages, t.Bytes)
	return err
}

// listed is one message in a list.
type listed struct {
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
	Type string    `json:"type"`
	Size int       `json:"size"` // bytes
	From string    `json:"from"`
}

func (c *offlineCommand) list(ctx context.Context) error {
	const columns = "%-36s  %-24s  %-9s  %8v  %s\n"
	out := json.NewEncoder(c.stdout)
	if !c.json {
		if _, err := fmt.Fprintf(c.stdout, columns, "ID", "TIME", "TYPE", "SIZE", "FROM"); err != nil {
			return err
		}
	}
	return c.each(ctx, func(r offline.Row) error {
		// One that can't be read is listed with what is known of it beside its text.
		l := listed{ID: r.ID.String(), Time: r.ID.Time().UTC(), Type: "?", Size: r.Bytes, From: r.Sender}
		if st, err := stanza.Parse(r.Raw, r.ID); err == nil {
			l.From, l.Type = st.From.String(), string(st.TypeRaw())
			if l.Type == "" {
				l.Type = "normal" // RFC 6121 §5.2.2
			}
		}
		if c.json {
			return out.Encode(l)
		}
		_, err := fmt.Fprintf(c.stdout, columns, l.ID, l.Time.Format("2006-01-02T15:04:05.000Z"), l.Type, l.Size, l.From)
		return err
	})
}

// export writes the mailbox as XEP-0227 §4 has it, each message with its delay stamp (XEP-0203).
func (c *offlineCommand) export(ctx context.Context) error {
	var name, host []byte
	name, host = stanza.AppendEscaped(name, c.user.Local()), stanza.AppendEscaped(host, c.user.Domain())
	_, err := fmt.Fprintf(c.stdout, "<?xml version='1.0' encoding='UTF-8'?>\n<server-data xmlns='urn:xmpp:pie:0'>\n<host jid='%s'>\n<user name='%s'>\n<offline-messages>\n", host, name)
	if err != nil {
		return err
	}
	unreadable := 0
	err = c.each(ctx, func(r offline.Row) error {
		st, err := offline.Message{ID: r.ID, At: r.ID.Time(), Raw: r.Raw}.Stanza(c.user)
		if err != nil {
			unreadable++
			_, _ = fmt.Fprintf(c.stderr, "message %v: %v\n", r.ID, err)
			return nil
		}
		_, err = c.stdout.Write(append(st.Raw(), '\n'))
		return err
	})
	if err != nil {
		return err
	}
	if _, err := io.WriteString(c.stdout, "</offline-messages>\n</user>\n</host>\n</server-data>\n"); err != nil {
		return err
	}
	if unreadable > 0 {
		return fmt.Errorf("%d messages could not be read and were left out", unreadable)
	}
	return nil
}

// Bounds of a page, which is all that is in memory.
const (
	exportMessages = 256
	exportBytes    = 1 << 20
)

// each calls f for every message, oldest first. While f waits for who reads the output nothing is read, so that no
// transaction is held open.
func (c *offlineCommand) each(ctx context.Context, f func(offline.Row) error) error {
	in := offline.Range{Bodies: true}
	page := make([]offline.Row, 0, exportMessages)
	for {
		page = page[:0]
		bytes, more := 0, false
		err := c.store.Scan(ctx, c.user.String(), in, func(r offline.Row) bool {
			page = append(page, r)
			bytes += len(r.Raw)
			more = len(page) == exportMessages || bytes >= exportBytes
			return !more
		})
		if err != nil {
			return err
		}
		for _, r := range page {
			if err := f(r); err != nil {
				return err
			}
			in.After = r.ID
		}
		clear(page) // the messages are not needed while the next are read
		if !more {
			return nil
		}
	}
}

var errPending = errors.New("not carried out yet: it is recorded, and the messages that are there now go when the gateway that serves the user runs")

const purgePoll = 50 * time.Millisecond

func (c *offlineCommand) purge(ctx context.Context) error {
	to, err := offline.PurgeBound(ctx, c.store, c.user.String())
	if err != nil {
		return err
	}
	seq, err := c.purges.AskPurge(ctx, c.user.String(), to)
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, c.wait)
	defer cancel()
	tick := time.NewTicker(purgePoll)
	defer tick.Stop()
	for {
		removed, done, err := c.purges.PurgeOutcome(ctx, seq)
		if err != nil {
			return err
		}
		if done {
			_, err := fmt.Fprintf(c.stdout, "%d messages removed\n", removed)
			return err
		}
		select {
		case <-tick.C:
		case <-waiting.Done():
			return fmt.Errorf("%s: %w", c.user, errors.Join(errPending, ctx.Err()))
		}
	}
}
