//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"holdfast/bench"
	"holdfast/internal/testkit/freeport"
)

// suite is one run. The servers are guarded by mu, since the time limit ends them from another goroutine.
type suite struct {
	*options
	progress io.Writer
	started  time.Time
	table    table
	accounts []*bench.Account

	mu      sync.Mutex
	servers []*process
	ended   time.Duration // CPU time of those that were stopped
	beside  *beside       // of a cluster: its databases

	gatewayTarget, relayTarget *bench.Target
	boshTarget, pollTarget     *bench.Target // the same two over HTTP
	admin                      string
}

const (
	domain   = "localhost"
	password = "pencil"
)

// run measures everything that was asked for. Only what makes any measurement impossible is an error; what befalls
// one measurement stands in its row.
func (s *suite) run() error {
	if err := s.prepare(); err != nil {
		return err
	}
	s.measure([]step{
		{"login", s.login},
		{"chat", s.chat},
		{"paced", s.paced},
		{"allocs", s.allocs},
		{"resume", s.resume},
		{"offline", s.offline},
		{"room", s.room},
		{"offline-postgres", s.offlinePostgres},
		{"idle", s.idle},
		{"bosh-chat", s.boshChat},
		{"bosh-paced", s.boshPaced},
		{"bosh-idle", s.boshIdle},
	})
	return nil
}

// step is a part of a run that may be asked for by its name, or by the first word of it.
type step struct {
	name string
	run  func()
}

func (s *suite) measure(steps []step) {
	for _, step := range steps {
		word, _, _ := strings.Cut(step.name, "-")
		asked := strings.Split(s.only, ",")
		if s.only != "" && !slices.Contains(asked, step.name) && !slices.Contains(asked, word) {
			continue
		}
		fmt.Fprintf(s.progress, "%6.1fs %s\n", time.Since(s.started).Seconds(), step.name)
		s.alone(step.name, step.run)
	}
	fmt.Fprintf(s.progress, "%6.1fs done\n\n", time.Since(s.started).Seconds())
}

// alone runs a step and warns when other programs had a share of the cores meanwhile: CPU times suffer a little from
// that, latencies a lot.
func (s *suite) alone(name string, run func()) {
	if s.loadCore < 0 {
		run()
		return
	}
	started := time.Now()
	before, err := s.strangers()
	run()
	after, err2 := s.strangers()
	if err := errors.Join(err, err2); err != nil {
		s.table.note("%s: who else used the cores is not known: %v", name, err)
		return
	}
	if share := (after - before).Seconds() / time.Since(started).Seconds() / 2; share > 0.03 {
		s.table.note("WARNING: %s: other programs took %.0f %% of the two cores; do not trust its latencies", name, 100*share)
	}
}

// strangers is the time for which the two cores have been busy with anything but this run.
func (s *suite) strangers() (time.Duration, error) {
	busy, err := bench.CoreBusy(s.serverCore, s.loadCore)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	own, err := s.beside.cpu()
	if err != nil {
		return 0, err
	}
	own += s.ended
	for _, pid := range append(s.pids(), os.Getpid()) {
		cpu, err := bench.CPUTime(pid)
		if err != nil {
			return 0, err
		}
		own += cpu
	}
	return busy - own, nil
}

func (s *suite) pids() (all []int) {
	for _, p := range s.servers {
		all = append(all, p.cmd.Process.Pid)
	}
	return all
}

// prepare makes the users and starts both servers.
func (s *suite) prepare() error {
	if err := s.importUsers(scale(s, 10_000, 1_500)); err != nil {
		return err
	}
	return s.start()
}

// importUsers makes the users. more is settings of the gateway.
func (s *suite) importUsers(users int, more ...string) error {
	s.accounts = bench.NumberedAccounts("u", users, password)
	return s.importInto("data", s.accounts, more...)
}

// importInto makes users in the database of a gateway with that data directory and those settings.
func (s *suite) importInto(data string, accounts []*bench.Account, more ...string) error {
	file := filepath.Join(s.dir, "users.csv")
	if err := writeUsers(file, accounts); err != nil {
		return err
	}
	fmt.Fprintf(s.progress, "%6.1fs importing %d users\n", time.Since(s.started).Seconds(), len(accounts))
	imports := exec.Command(s.gateway, "user", "import", file)
	imports.Env = s.gatewayEnv(data, "", "", more...)
	var said []byte
	if err := onCores(s.cores(), func() (err error) { said, err = imports.CombinedOutput(); return err }); err != nil {
		return fmt.Errorf("importing users: %w: %s", err, said)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended += imports.ProcessState.UserTime() + imports.ProcessState.SystemTime()
	return nil
}

func writeUsers(path string, accounts []*bench.Account) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("writing users: %w", err)
	}
	w := bufio.NewWriter(file)
	for _, a := range accounts {
		fmt.Fprintf(w, "%s,%s\n", a.Name, a.Password)
	}
	if err := errors.Join(w.Flush(), file.Close()); err != nil {
		return fmt.Errorf("writing users: %w", err)
	}
	return nil
}

// gatewayEnv is the gateway's settings: its own defaults, but for addresses, the data directory, and fewer SCRAM
// iterations (the least that RFC 7677 §4 allows), which are spent by the import and by clients, not by its logins.
func (s *suite) gatewayEnv(data, listen, admin string, more ...string) []string {
	own := []string{
		"HOLDFAST_DATA_DIR=" + filepath.Join(s.dir, data),
		"HOLDFAST_DOMAINS=" + domain,
		"HOLDFAST_AUTH_SCRAM_ITERATIONS=4096",
	}
	if listen != "" {
		own = append(own, "HOLDFAST_LISTEN="+listen, "HOLDFAST_ADMIN_LISTEN="+admin)
	}
	return environment(append(append(own, more...), s.env...)...)
}

func (s *suite) cores() []int {
	if s.loadCore < 0 {
		return nil
	}
	return []int{s.serverCore, s.loadCore}
}

// serverCores is where what is measured runs.
func (s *suite) serverCores() []int {
	if s.loadCore < 0 {
		return nil
	}
	return []int{s.serverCore}
}

// start starts gateway and relay on the servers' core.
func (s *suite) start() error {
	var addresses [3]string
	for i := range addresses {
		var err error
		if addresses[i], err = freeport.TakeAddr(); err != nil {
			return err
		}
	}
	own, err := os.Executable()
	if err != nil {
		return fmt.Errorf("looking for this program: %w", err)
	}
	core := s.serverCores()
	s.admin = addresses[1]
	gateway, err := launch("gateway", s.dir, core, s.gatewayEnv("data", addresses[0], s.admin), addresses[0], s.gateway)
	if err != nil {
		return err
	}
	s.keep(gateway)
	relay, err := launch("relay", s.dir, core, environment(relayVariable+"="+addresses[2]), addresses[2], own)
	if err != nil {
		return err
	}
	s.keep(relay)
	s.gatewayTarget = &bench.Target{
		Name: "gateway", URL: "ws://" + addresses[0] + "/xmpp-websocket", Domain: domain,
		Accounts: s.accounts, PIDs: []int{gateway.cmd.Process.Pid},
	}
	s.relayTarget = &bench.Target{
		Name: "relay", URL: "ws://" + addresses[2] + "/relay", Relay: true, PIDs: []int{relay.cmd.Process.Pid},
	}
	bosh, poll := *s.gatewayTarget, *s.relayTarget
	bosh.Name, bosh.URL = "gateway over BOSH", "http://"+addresses[0]+"/http-bind"
	poll.Name, poll.URL = longPoll, "http://"+addresses[2]+"/poll"
	s.boshTarget, s.pollTarget = &bosh, &poll
	return ready(s.admin)
}

// ready waits for a gateway's own word.
func ready(admin string) error {
	client := http.Client{Timeout: time.Second}
	for until := time.Now().Add(15 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		resp, err := client.Get("http://" + admin + "/readyz")
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
	}
	return errors.New("gateway: /readyz did not say that it is ready")
}

func (s *suite) keep(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.servers = append(s.servers, p)
}

func (s *suite) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.servers {
		p.stop()
		s.ended += p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
	}
	s.servers = nil
	s.beside.close()
	s.beside = nil
}

// lose ends a server, and goes on without it.
func (s *suite) lose(p *process, end func(*process)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	end(p)
	s.ended += p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
	s.servers = slices.DeleteFunc(s.servers, func(o *process) bool { return o == p })
}

func (s *suite) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.servers {
		p.kill()
	}
	s.beside.close()
}

// metric reads a value without labels from a gateway's metrics.
func metric(admin, name string) (float64, error) {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + admin + "/metrics")
	if err != nil {
		return 0, fmt.Errorf("metrics: %w", err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0, fmt.Errorf("metrics: %w", err)
			}
			return n, nil
		}
	}
	return 0, errors.Join(errors.New("metrics: no "+name), lines.Err())
}
