package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"holdfast/auth"
	"holdfast/stanza"
)

const userUsage = `Manage the users of this gateway. It may be running meanwhile.

  gateway user add NAME [--generate]      add a user
  gateway user passwd NAME [--generate]   set a user's password
  gateway user remove NAME...             remove users
  gateway user disable NAME...            let users log in no more (who is online stays)
  gateway user enable NAME...             let them log in again
  gateway user list                       print all users, one a line
  gateway user import FILE                add a user for each line name,password of FILE, - for standard input

NAME is name or name@domain; without a domain it is of the first in HOLDFAST_DOMAINS.
add and passwd read the password from the first line of standard input (--password-stdin says so expressly);
with --generate they make one and print it. Passwords with a comma or quotes are quoted in FILE as in CSV.
What else the gateway keeps of a removed user goes within a second when it runs, and otherwise when it next starts.
Until then nobody can log in with that name, or write to it, though it is added again.
`

// Exit statuses.
const (
	exitOK = iota
	exitFailed
	exitUsage
)

// importBatch is how many accounts are hashed and then stored in one transaction.
const importBatch = 512

// usableWithin is how long add waits for a gateway to remove what an earlier user of the name had.
const usableWithin = 3 * time.Second

// userCommand is one run of `gateway user`.
type userCommand struct {
	accounts       *auth.Accounts
	stdin          io.Reader
	stdout, stderr io.Writer
	domains        []string
	generate       bool
}

// runUser is `gateway user`. It returns the exit status.
func runUser(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer,
	open func(ctx context.Context) (*auth.Accounts, func() error, error), domains []string,
) (status int) {
	if len(args) == 0 {
		_, _ = io.WriteString(stderr, userUsage)
		return exitUsage
	}
	c := &userCommand{stdin: stdin, stdout: stdout, stderr: stderr, domains: domains}
	var run func(context.Context, []string) error
	least, most := 1, 1
	password := false
	switch args[0] {
	case "add":
		run, password = c.add, true
	case "passwd":
		run, password = c.passwd, true
	case "remove":
		run, most = c.each(func(u stanza.Addr) error { return c.accounts.Remove(ctx, u) }), len(args)
	case "disable":
		run, most = c.each(func(u stanza.Addr) error { return c.accounts.SetDisabled(ctx, u, true) }), len(args)
	case "enable":
		run, most = c.each(func(u stanza.Addr) error { return c.accounts.SetDisabled(ctx, u, false) }), len(args)
	case "list":
		run, least, most = c.list, 0, 0
	case "import":
		run = c.importFile
	case "help", "-h", "-help", "--help":
		_, _ = io.WriteString(stdout, userUsage)
		return exitOK
	default:
		_, _ = fmt.Fprintf(stderr, "gateway user: there is no command %q\n\n%s", args[0], userUsage)
		return exitUsage
	}
	names, err := c.flags(args[0], args[1:], password)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(stdout, userUsage)
		return exitOK
	case err == nil && (len(names) < least || len(names) > most):
		err = fmt.Errorf("gateway user %s: wrong number of arguments", args[0])
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "%v\n\n%s", err, userUsage)
		return exitUsage
	}
	accounts, closeAccounts, err := open(ctx)
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "gateway user: %v\n", err)
		return exitFailed
	}
	c.accounts = accounts
	if err := errors.Join(run(ctx, names), closeAccounts()); err != nil {
		_, _ = fmt.Fprintf(stderr, "gateway user %s: %v\n", args[0], err)
		return exitFailed
	}
	return exitOK
}

// flags takes flags and names in any order.
func (c *userCommand) flags(command string, args []string, password bool) (names []string, err error) {
	fs := flag.NewFlagSet("gateway user "+command, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	stdin := false
	if password {
		fs.BoolVar(&c.generate, "generate", false, "")
		fs.BoolVar(&stdin, "password-stdin", false, "")
	}
	if names, err = parseMixed(fs, args); err != nil {
		return nil, err
	}
	if c.generate && stdin {
		return nil, errors.New("--generate and --password-stdin exclude each other")
	}
	return names, nil
}

// parseMixed takes flags and names in any order, and returns the names.
func parseMixed(fs *flag.FlagSet, args []string) (names []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		if fs.NArg() == 0 {
			return names, nil
		}
		names, args = append(names, fs.Arg(0)), fs.Args()[1:]
	}
}

// user reads NAME.
func (c *userCommand) user(name string) (stanza.Addr, error) { return parseUser(name, c.domains) }

// parseUser reads name or name@domain, of one of the domains; without a domain it is the first.
func parseUser(name string, domains []string) (stanza.Addr, error) {
	local, domain, ok := strings.Cut(name, "@")
	if !ok {
		domain = domains[0]
	}
	u, err := stanza.NewAddr(local, domain, "")
	if err != nil || u.Local() == "" {
		return stanza.Addr{}, fmt.Errorf("%q is not a user's name", name)
	}
	if !slices.Contains(domains, u.Domain()) {
		return stanza.Addr{}, fmt.Errorf("%s is not one of the domains of this gateway (%s)", u.Domain(), strings.Join(domains, ", "))
	}
	return u, nil
}

func (c *userCommand) add(ctx context.Context, names []string) error {
	return c.withPassword(names[0], func(u stanza.Addr, password string) error {
		if err := c.accounts.Create(ctx, u, password); err != nil {
			return err
		}
		return c.awaitUsable(ctx, u)
	})
}

// awaitUsable waits a while for what an earlier user of the name had to be gone.
func (c *userCommand) awaitUsable(ctx context.Context, u stanza.Addr) error {
	for end := time.Now().Add(usableWithin); ; time.Sleep(usableWithin / 30) {
		usable, err := c.accounts.Exists(ctx, u)
		if err != nil || usable {
			return err
		}
		if time.Now().After(end) {
			_, err := fmt.Fprintf(c.stderr, "%s was added, and can log in when a gateway has removed what the user of that name before had\n", u)
			return err
		}
	}
}

func (c *userCommand) passwd(ctx context.Context, names []string) error {
	return c.withPassword(names[0], func(u stanza.Addr, password string) error {
		return c.accounts.SetPassword(ctx, u, password)
	})
}

func (c *userCommand) withPassword(name string, f func(stanza.Addr, string) error) error {
	u, err := c.user(name)
	if err != nil {
		return err
	}
	password := auth.GeneratePassword()
	if !c.generate {
		line, err := bufio.NewReader(io.LimitReader(c.stdin, 64<<10)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("password: %w", err)
		}
		if password = strings.TrimRight(line, "\r\n"); password == "" {
			return errors.New("no password on standard input (--generate makes one)")
		}
	}
	if err := f(u, password); err != nil {
		return fmt.Errorf("%s: %w", u, err)
	}
	if c.generate {
		// Only now: a password that was printed is one that works.
		_, err = fmt.Fprintln(c.stdout, password)
	}
	return err
}

// each runs f for every name, also after one failed.
func (c *userCommand) each(f func(stanza.Addr) error) func(context.Context, []string) error {
	return func(_ context.Context, names []string) error {
		var errs []error
		for _, name := range names {
			u, err := c.user(name)
			if err == nil {
				if err = f(u); err != nil {
					err = fmt.Errorf("%s: %w", u, err)
				}
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
}

func (c *userCommand) list(ctx context.Context, _ []string) error {
	out := bufio.NewWriter(c.stdout)
	var after stanza.Addr
	for {
		page, err := c.accounts.List(ctx, after, 1000)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return out.Flush()
		}
		for _, a := range page {
			note := ""
			if a.Disabled {
				note = "\tdisabled"
			}
			_, _ = fmt.Fprintf(out, "%s%s\n", a.Addr, note) // Flush has the error
		}
		after = page[len(page)-1].Addr
	}
}

func (c *userCommand) importFile(ctx context.Context, names []string) error {
	in := c.stdin
	if names[0] != "-" {
		f, err := os.Open(names[0])
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	im := importer{c: c, csv: csv.NewReader(in)}
	im.csv.FieldsPerRecord = -1 // a line with too few is reported, not the end
	im.csv.ReuseRecord = true
	err := im.run(ctx)
	_, _ = fmt.Fprintf(c.stdout, "%d users imported, %d lines not\n", im.imported, im.bad)
	if err == nil && im.bad > 0 {
		err = fmt.Errorf("%d lines were not imported", im.bad)
	}
	return err
}

type importer struct {
	c             *userCommand
	csv           *csv.Reader
	accounts      []auth.NewAccount
	lines         []int // of accounts
	imported, bad int
}

func (im *importer) run(ctx context.Context) error {
	for {
		record, err := im.csv.Read()
		var syntax *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			return im.store(ctx)
		case errors.As(err, &syntax):
			im.report(syntax.StartLine, syntax.Err)
			continue
		case err != nil:
			return err
		}
		line, _ := im.csv.FieldPos(0)
		if len(record) != 2 {
			im.report(line, fmt.Errorf("has %d fields where name,password was expected", len(record)))
			continue
		}
		u, err := im.c.user(record[0])
		if err != nil {
			im.report(line, err)
			continue
		}
		im.accounts = append(im.accounts, auth.NewAccount{Addr: u, Password: record[1]})
		im.lines = append(im.lines, line)
		if len(im.accounts) == importBatch {
			if err := im.store(ctx); err != nil {
				return err
			}
		}
	}
}

func (im *importer) store(ctx context.Context) error {
	errs, err := im.c.accounts.Import(ctx, im.accounts)
	if err != nil {
		return err
	}
	for i, err := range errs {
		if err != nil {
			im.report(im.lines[i], fmt.Errorf("%s: %w", im.accounts[i].Addr, err))
			continue
		}
		im.imported++
	}
	im.accounts, im.lines = im.accounts[:0], im.lines[:0]
	return nil
}

// report never shows a field: it may be a password.
func (im *importer) report(line int, err error) {
	im.bad++
	_, _ = fmt.Fprintf(im.c.stderr, "line %d: %v\n", line, err)
}
