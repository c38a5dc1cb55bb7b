package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/auth"
	"holdfast/internal/sqlx"
)

// userCLI runs `gateway user` against one data directory, as separate processes would.
type userCLI struct {
	t   *testing.T
	dir string
}

func authConfig() auth.Config {
	cfg := auth.DefaultConfig()
	cfg.Iterations, cfg.Mechanisms = 4096, []string{auth.ScramSHA256, auth.Plain}
	return cfg
}

func (u userCLI) open(ctx context.Context) (*auth.Accounts, func() error, error) {
	cfg := sqlx.DefaultConfig()
	cfg.Dir = u.dir
	db, err := sqlx.Open(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	store, err := auth.OpenSQLite(ctx, db)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	accounts, err := auth.OpenAccounts(ctx, authConfig(), store, slog.New(slog.DiscardHandler))
	return accounts, db.Close, err
}

func (u userCLI) run(want int, stdin string, args ...string) (stdout, stderr string) {
	u.t.Helper()
	var out, errs bytes.Buffer
	if got := runUser(u.t.Context(), args, strings.NewReader(stdin), &out, &errs, u.open, []string{"localhost", "example.org"}); got != want {
		u.t.Errorf("gateway user %v: exit %d, want %d; %s", args, got, want, errs.String())
	}
	return out.String(), errs.String()
}

// accepts logs in, with PLAIN for brevity.
func (u userCLI) accepts(domain, name, password string) bool {
	u.t.Helper()
	accounts, closeAccounts, err := u.open(u.t.Context())
	if err != nil {
		u.t.Fatal(err)
	}
	defer func() { _ = closeAccounts() }()
	s, err := auth.New(authConfig(), accounts, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		u.t.Fatal(err)
	}
	e, err := s.Begin(auth.Plain, domain, netip.Addr{}, true)
	if err != nil {
		u.t.Fatal(err)
	}
	_, done, _ := e.Step(u.t.Context(), []byte("\x00"+name+"\x00"+password))
	return done
}

func TestUser(t *testing.T) {
	u := userCLI{t, t.TempDir()}
	u.run(exitOK, "one\n", "add", "alice")
	u.run(exitOK, "two\r\nmore\n", "add", "--password-stdin", "alice@example.org")
	generated, _ := u.run(exitOK, "", "add", "Bob", "--generate")
	for _, c := range []struct{ domain, name, password string }{
		{"localhost", "alice", "one"}, {"example.org", "alice", "two"}, {"localhost", "bob", strings.TrimSpace(generated)},
	} {
		if !u.accepts(c.domain, c.name, c.password) {
			t.Errorf("%+v was not accepted", c)
		}
	}
	if _, stderr := u.run(exitFailed, "x\n", "add", "alice"); !strings.Contains(stderr, "alice@localhost: account exists") {
		t.Errorf("twice: %q", stderr)
	}
	u.run(exitOK, "three", "passwd", "alice")
	if u.accepts("localhost", "alice", "one") || !u.accepts("localhost", "alice", "three") {
		t.Error("passwd did not change the password")
	}
	u.run(exitFailed, "x\n", "passwd", "nobody")
	u.run(exitOK, "", "disable", "alice")
	if u.accepts("localhost", "alice", "three") {
		t.Error("a disabled user logged in")
	}
	if out, _ := u.run(exitOK, "", "list"); out != "alice@example.org\nalice@localhost\tdisabled\nbob@localhost\n" {
		t.Errorf("list: %q", out)
	}
	u.run(exitOK, "", "enable", "alice")
	if !u.accepts("localhost", "alice", "three") {
		t.Error("an enabled user did not log in")
	}
	if _, stderr := u.run(exitFailed, "", "remove", "alice", "nobody", "bob"); !strings.Contains(stderr, "nobody@localhost: no such account") {
		t.Errorf("remove: %q", stderr)
	}
	if out, _ := u.run(exitOK, "", "list"); out != "alice@example.org\n" {
		t.Errorf("list: %q", out)
	}
}

func TestUserRefuses(t *testing.T) {
	u := userCLI{t, t.TempDir()}
	for name, c := range map[string]struct {
		exit int
		args []string
	}{
		"nothing":            {exitUsage, nil},
		"no such command":    {exitUsage, []string{"frobnicate"}},
		"no name":            {exitUsage, []string{"add"}},
		"two names":          {exitUsage, []string{"add", "a", "b"}},
		"no such flag":       {exitUsage, []string{"add", "a", "--password=x"}},
		"flag of another":    {exitUsage, []string{"remove", "a", "--generate"}},
		"both sources":       {exitUsage, []string{"add", "a", "--generate", "--password-stdin"}},
		"list with a name":   {exitUsage, []string{"list", "a"}},
		"no file":            {exitUsage, []string{"import"}},
		"a missing file":     {exitFailed, []string{"import", filepath.Join(t.TempDir(), "none")}},
		"another's domain":   {exitFailed, []string{"add", "a@example.com", "--generate"}},
		"a bad name":         {exitFailed, []string{"add", "a b", "--generate"}},
		"no localpart":       {exitFailed, []string{"add", "@localhost", "--generate"}},
		"a resource":         {exitFailed, []string{"add", "a@localhost/x", "--generate"}},
		"nothing on stdin":   {exitFailed, []string{"add", "a"}},
		"nothing to disable": {exitFailed, []string{"disable", "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			u := userCLI{t, u.dir}
			stdout, stderr := u.run(c.exit, "", c.args...)
			if stdout != "" || stderr == "" || (c.exit == exitUsage) != strings.Contains(stderr, "gateway user import FILE") {
				t.Errorf("stdout %q, stderr %q", stdout, stderr)
			}
		})
	}
	for _, help := range [][]string{{"help"}, {"--help"}, {"add", "-h"}} {
		if out, stderr := u.run(exitOK, "", help...); out != userUsage || stderr != "" {
			t.Errorf("%v: %q, %q", help, out, stderr)
		}
	}
	if out, _ := u.run(exitOK, "", "list"); out != "" {
		t.Errorf("something was added: %q", out)
	}
}

func TestUserOpenFails(t *testing.T) {
	var out, errs bytes.Buffer
	open := func(context.Context) (*auth.Accounts, func() error, error) { return nil, nil, errors.New("no disk") }
	if got := runUser(t.Context(), []string{"list"}, nil, &out, &errs, open, []string{"localhost"}); got != exitFailed || !strings.Contains(errs.String(), "no disk") {
		t.Errorf("%d, %q", got, errs.String())
	}
}

func TestUserImport(t *testing.T) {
	u := userCLI{t, t.TempDir()}
	u.run(exitOK, "before\n", "add", "taken")
	lines := []string{
		`alice,one`,
		`bob@example.org,"two, with ""comma"""`,
		``,
		`taken,after`,
		`lonely`,
		`a,b,sesame`,
		`bad name,sesame`,
		`carol@example.com,sesame`,
		`nopassword,`,
		`dave,pass"sesame`,
		"erin,three\r",
		`alice,again`,
	}
	file := filepath.Join(t.TempDir(), "users.csv")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr := u.run(exitFailed, "", "import", file)
	if stdout != "3 users imported, 8 lines not\n" {
		t.Errorf("stdout %q", stdout)
	}
	for i := range lines {
		bad := i >= 3 && i != 10
		if got := strings.Contains(stderr, fmt.Sprintf("line %d:", i+1)); got != bad {
			t.Errorf("line %d reported: %v\n%s", i+1, got, stderr)
		}
	}
	if strings.Contains(stderr, "sesame") {
		t.Errorf("a password was shown: %s", stderr)
	}
	for _, c := range []struct{ domain, name, password string }{
		{"localhost", "alice", "one"}, {"example.org", "bob", `two, with "comma"`}, {"localhost", "erin", "three"}, {"localhost", "taken", "before"},
	} {
		if !u.accepts(c.domain, c.name, c.password) {
			t.Errorf("%+v was not accepted", c)
		}
	}
}

func TestUserImportThousands(t *testing.T) {
	if testing.Short() {
		t.Skip("hashes many passwords")
	}
	const users = importBatch + 100
	var in strings.Builder
	for i := range users {
		fmt.Fprintf(&in, "user%04d,password %d\n", i, i)
	}
	u := userCLI{t, t.TempDir()}
	if stdout, stderr := u.run(exitOK, in.String(), "import", "-"); stdout != fmt.Sprintf("%d users imported, 0 lines not\n", users) || stderr != "" {
		t.Errorf("%q, %q", stdout, stderr)
	}
	if out, _ := u.run(exitOK, "", "list"); strings.Count(out, "\n") != users {
		t.Errorf("%d users listed", strings.Count(out, "\n"))
	}
	if !u.accepts("localhost", "user0611", "password 611") {
		t.Error("the last user was not accepted")
	}
}
