package redisx

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// URL is where Redis is. It prints without its password.
type URL string

const redacted = "***"

// String is the URL with the password redacted.
func (u URL) String() string {
	scheme, rest, ok := strings.Cut(string(u), "://")
	at := strings.LastIndexByte(authority(rest), '@')
	if !ok || at < 0 {
		return string(u)
	}
	user, _, found := strings.Cut(rest[:at], ":")
	if !found {
		return string(u)
	}
	return scheme + "://" + user + ":" + redacted + rest[at:]
}

// MarshalText is String, for encoders.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// mode is how Redis is deployed.
type mode uint8

const (
	standalone mode = iota
	cluster
	sentinel
)

// location is a URL taken apart.
type location struct {
	mode           mode
	tls            bool
	user, password string
	addrs          []string
	master         string // name that the Sentinels know it by
	db             int
}

var modes = map[string]location{
	"redis":           {},
	"rediss":          {tls: true},
	"redis+cluster":   {mode: cluster},
	"rediss+cluster":  {mode: cluster, tls: true},
	"redis+sentinel":  {mode: sentinel},
	"rediss+sentinel": {mode: sentinel, tls: true},
}

var errScheme = errors.New("accepts redis://, redis+cluster:// and redis+sentinel://, and the same with rediss for TLS")

// authority is what stands before the path. Everything in it that is not a separator is percent-encoded.
func authority(rest string) string {
	before, _, _ := strings.Cut(rest, "/")
	return before
}

// parse takes a URL apart. net/url does not: it knows one host only. No error has the password in it.
func parse(s string) (location, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	l, known := modes[scheme]
	if !ok || !known {
		return l, errScheme
	}
	hosts := authority(rest)
	path := strings.Trim(rest[len(hosts):], "/")
	if at := strings.LastIndexByte(hosts, '@'); at >= 0 {
		user, password, _ := strings.Cut(hosts[:at], ":")
		hosts = hosts[at+1:]
		var errUser, errPassword error
		l.user, errUser = url.PathUnescape(user)
		l.password, errPassword = url.PathUnescape(password)
		if errUser != nil || errPassword != nil {
			return l, errors.New("user or password is not percent-encoded")
		}
	}
	for addr := range strings.SplitSeq(hosts, ",") {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || host == "" || port == "" {
			return l, fmt.Errorf("%q is not host:port", addr)
		}
		l.addrs = append(l.addrs, addr)
	}
	return l, l.parsePath(path)
}

func (l *location) parsePath(path string) error {
	db := path
	switch l.mode {
	case standalone:
		if len(l.addrs) > 1 {
			return errors.New("redis:// accepts one server; several belong to redis+cluster:// or redis+sentinel://")
		}
	case cluster:
		if path != "" {
			return errors.New("redis+cluster:// accepts no path: a Redis Cluster has one database")
		}
	case sentinel:
		if l.master, db, _ = strings.Cut(path, "/"); l.master == "" {
			return errors.New("redis+sentinel:// needs the name of the master behind the addresses, like /mymaster")
		}
	}
	if db == "" {
		return nil
	}
	n, err := strconv.Atoi(db)
	if err != nil || n < 0 {
		return fmt.Errorf("%q is not the number of a database", db)
	}
	l.db = n
	return nil
}
