package auth

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caarlos0/env/v11"
	"pgregory.net/rapid"
)

func TestLRU(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(0, 5).Draw(t, "size")
		l := newLRU[int, int](size)
		var order []int // most recently used first
		values := map[int]int{}
		for i := range rapid.IntRange(0, 200).Draw(t, "steps") {
			k := rapid.IntRange(0, 9).Draw(t, "key")
			at := slices.Index(order, k)
			switch rapid.SampledFrom([]string{"get", "get", "put", "put", "put", "remove", "clear"}).Draw(t, "op") {
			case "get":
				v, ok := l.get(k)
				if ok != (at >= 0) || ok && v != values[k] {
					t.Fatalf("get %d: %d, %v", k, v, ok)
				}
				if ok {
					order = slices.Insert(slices.Delete(order, at, at+1), 0, k)
				}
			case "put":
				l.put(k, i)
				values[k] = i
				if at >= 0 {
					order = slices.Delete(order, at, at+1)
				} else if size > 0 && len(order) == size {
					order = order[:size-1]
				}
				order = slices.Insert(order, 0, k)
			case "remove":
				l.remove(k)
				if at >= 0 {
					order = slices.Delete(order, at, at+1)
				}
			case "clear":
				if i%5 == 0 {
					l.clear()
					order = nil
				}
			}
			if l.len() != len(order) {
				t.Fatalf("%d entries, want %v", l.len(), order)
			}
		}
	})
}

func TestRateSlides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRate[string](10, 0)
		for i := range 12 {
			if ok := r.take("a"); ok != (i < 10) {
				t.Errorf("%d: %v", i, ok)
			}
		}
		if !r.over("a") || r.over("b") {
			t.Error("over is wrong")
		}
		time.Sleep(90 * time.Second) // half of the ten still counts
		n := 0
		for r.take("a") {
			n++
		}
		if n != 5 {
			t.Errorf("%d taken after a minute and a half", n)
		}
		time.Sleep(2 * time.Minute)
		if r.over("a") {
			t.Error("still over after two minutes")
		}
	})
}

func TestRateTableIsBounded(t *testing.T) {
	r := newRate[int](1, 100)
	for i := range 1000 {
		r.count(i)
	}
	if n := r.table.len(); n != 100 || !r.over(999) || r.over(0) {
		t.Errorf("%d entries", n)
	}
}

func TestConfig(t *testing.T) {
	cfg := DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	err := env.ParseWithOptions(&cfg, env.Options{Prefix: "HOLDFAST_", Environment: map[string]string{
		"HOLDFAST_AUTH_MECHANISMS": "PLAIN,SCRAM-SHA-1", "HOLDFAST_REGISTRATION": "open", "HOLDFAST_AUTH_CACHE_AGE": "0",
	}})
	if err != nil || cfg.Validate() != nil || len(cfg.Mechanisms) != 2 || cfg.Registration != "open" || cfg.CacheAge != 0 || cfg.Iterations != 10_000 {
		t.Errorf("%+v, %v", cfg, err)
	}
	for name, change := range map[string]func(*Config){
		"AUTH_MECHANISMS":        func(c *Config) { c.Mechanisms = nil },
		"AUTH_MECHANISMS ":       func(c *Config) { c.Mechanisms = []string{"EXTERNAL"} },
		"AUTH_MECHANISMS  ":      func(c *Config) { c.Mechanisms = []string{Plain} },
		"AUTH_SCRAM_ITERATIONS":  func(c *Config) { c.Iterations = 4095 },
		"AUTH_FAILURE_RATE":      func(c *Config) { c.FailureRate = -1 },
		"AUTH_USER_FAILURE_RATE": func(c *Config) { c.UserFailureRate = -1 },
		"AUTH_RATE_TABLE":        func(c *Config) { c.RateTable = -1 },
		"AUTH_CACHE":             func(c *Config) { c.Cache = -1 },
		"AUTH_CACHE_AGE":         func(c *Config) { c.CacheAge = -1 },
		"AUTH_HASH_PARALLEL":     func(c *Config) { c.HashParallel = -1 },
		"REGISTRATION":           func(c *Config) { c.Registration = "yes" },
		"REGISTRATION_RATE":      func(c *Config) { c.RegistrationRate = -1 },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(name)+" ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
