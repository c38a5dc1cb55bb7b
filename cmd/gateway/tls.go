package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificate is a certificate in files, read again when they change: at most once in checkEvery, when a client
// connects.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	read    [2]time.Time // modification times of what is current
	checked time.Time
}

const checkEvery = 10 * time.Second

func newCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("%sTLS_CERT, %sTLS_KEY: %w", prefix, prefix, err)
	}
	return c, nil
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.checked) >= checkEvery {
		c.checked = now
		if c.changed() != c.read {
			if err := c.load(); err != nil {
				// Halfway through a renewal, most likely; the old one is still there.
				c.log.Error("certificate not read", "error", err)
			} else {
				c.log.Info("certificate read again")
			}
		}
	}
	return c.current, nil
}

func (c *certificate) load() error {
	read := c.changed()
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return err
	}
	c.current, c.read = &pair, read
	return nil
}

func (c *certificate) changed() (times [2]time.Time) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			times[i] = info.ModTime()
		}
	}
	return times
}
