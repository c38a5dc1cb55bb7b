package redisx

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

// passing are the beginnings of what Redis says while it starts, moves slots, fails over, is busy or is full.
var passing = []string{
	"LOADING", "CLUSTERDOWN", "READONLY", "MASTERDOWN", "TRYAGAIN", "BUSY ", "OOM", "NOREPLICAS", "MISCONF", "UNBLOCKED",
	"MOVED ", "ASK ", "max number of clients",
}

// Unavailable says that waiting may mend err: Redis can't be reached, does not answer in time, or says itself that it
// can't just now. What a command did then is not known.
func Unavailable(err error) bool {
	var netErr net.Error
	var redisErr redis.Error
	switch {
	case err == nil, errors.Is(err, redis.Nil), errors.Is(err, redis.ErrClosed), errors.Is(err, context.Canceled):
		return false
	case errors.As(err, &redisErr):
		for _, prefix := range passing {
			if redis.HasErrorPrefix(err, prefix) {
				return true
			}
		}
		return false
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted), errors.Is(err, net.ErrClosed),
		errors.As(err, &netErr):
		return true
	}
	// What the client says when it finds no server for a command has no type.
	text := err.Error()
	for _, says := range []string{"cluster has no nodes", "cannot load cluster slots", "all sentinels", "Conn is in a bad state", "connection pool"} {
		if strings.Contains(text, says) {
			return true
		}
	}
	return false
}
