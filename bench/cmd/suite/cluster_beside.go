//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"holdfast/bench"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/internal/testkit/redisproc"
)

// beside is what a cluster's gateways share: one Redis, one PostgreSQL. A single gateway has no Redis. A nil *beside is
// neither.
type beside struct {
	redis    *redisproc.Server
	postgres *postgresproc.Server

	// What looking cost so far, which is none of the gateways' doing.
	ownIn, ownOut float64
}

// Names of the counters. A command of Redis is its own name behind commandMark.
const (
	redisCPU    = "redis CPU"
	postgresCPU = "postgres CPU"
	commands    = "commands"
	bytesIn     = "bytes in"
	bytesOut    = "bytes out"
	commandMark = "command "
)

func startBeside(cores []int) (b *beside, err error) {
	b = &beside{}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.redis, err = redisproc.Run(redisproc.EverySecond...); err != nil {
		return nil, err
	}
	if b.postgres, err = postgresproc.Run(); err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	if len(cores) == 0 {
		return b, nil
	}
	for _, pid := range append(b.postgres.PIDs(), b.redis.PID()) {
		if err := bench.PinProcess(pid, cores...); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *beside) close() {
	if b == nil {
		return
	}
	if b.redis != nil {
		b.redis.Close()
	}
	if b.postgres != nil {
		b.postgres.Close()
	}
}

// cpu is the time that both have used.
func (b *beside) cpu() (time.Duration, error) {
	if b == nil {
		return 0, nil
	}
	var redis time.Duration
	if b.redis != nil {
		var err error
		if redis, err = bench.CPUTime(b.redis.PID()); err != nil {
			return 0, err
		}
	}
	postgres, err := b.postgresCPU()
	return redis + postgres, err
}

// postgresCPU counts the processes that live, and those that the first one has waited for.
func (b *beside) postgresCPU() (total time.Duration, err error) {
	pids := b.postgres.PIDs()
	for i, pid := range pids {
		cpu, err := bench.CPUTime(pid)
		if i > 0 && err != nil {
			continue // ended since it was listed
		}
		if err != nil {
			return 0, err
		}
		total += cpu
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pids[0]))
	if err != nil {
		return 0, fmt.Errorf("PostgreSQL: %w", err)
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	const cutime, cstime = 13, 14 // proc(5), from the state on
	fields := strings.Fields(rest)
	if len(fields) <= cstime {
		return 0, errors.New("PostgreSQL: odd line in /proc")
	}
	for _, i := range []int{cutime, cstime} {
		ticks, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("PostgreSQL: %w", err)
		}
		total += time.Duration(ticks) * (time.Second / 100) // USER_HZ
	}
	return total, nil
}

// infoCommand is the question as it goes to Redis.
const infoCommand = "*3\r\n$4\r\ninfo\r\n$5\r\nstats\r\n$12\r\ncommandstats\r\n"

// read looks at everything; it is a bench.Target's Probe. Redis counts the calls of scripts and, besides, of every
// command that a script calls; bytes that came in with the question that it answers, and bytes that went out without
// the answer.
func (b *beside) read() (bench.Counters, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	info, err := b.redis.Admin().Info(ctx, "stats", "commandstats").Result()
	if err != nil {
		return nil, fmt.Errorf("counters of Redis: %w", err)
	}
	b.ownIn += float64(len(infoCommand))
	c, err := parseInfo(info)
	if err != nil {
		return nil, err
	}
	c[bytesIn] -= b.ownIn
	c[bytesOut] -= b.ownOut
	b.ownOut += float64(len(fmt.Sprintf("$%d\r\n%s\r\n", len(info), info)))
	redis, err := bench.CPUTime(b.redis.PID())
	if err != nil {
		return nil, err
	}
	postgres, err := b.postgresCPU()
	if err != nil {
		return nil, err
	}
	c[redisCPU], c[postgresCPU] = micros(redis), micros(postgres)
	return c, nil
}

// parseInfo takes the calls of every command, this suite's own INFO left out, and the bytes.
func parseInfo(info string) (bench.Counters, error) {
	c := bench.Counters{}
	lines := bufio.NewScanner(strings.NewReader(info))
	for lines.Scan() {
		name, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), ":")
		command, isCommand := strings.CutPrefix(name, "cmdstat_")
		if isCommand {
			value, _, _ = strings.Cut(strings.TrimPrefix(value, "calls="), ",")
		}
		if command == "info" || !isCommand && name != "total_net_input_bytes" && name != "total_net_output_bytes" {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("counters of Redis: %q: %w", lines.Text(), err)
		}
		switch name {
		case "total_net_input_bytes":
			c[bytesIn] = n
		case "total_net_output_bytes":
			c[bytesOut] = n
		default:
			c[commandMark+command] = n
			c[commands] += n
		}
	}
	return c, lines.Err()
}
