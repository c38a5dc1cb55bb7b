package bosh

import "errors"

// What Lost is told.
var (
	ErrInactive     = errors.New("bosh: the client has not come back")
	ErrRejected     = errors.New("bosh: the client broke the rules of the binding")
	ErrBroken       = errors.New("bosh: dropped")
	ErrRestarting   = errors.New("bosh: the service restarts")
	ErrServerClosed = errors.New("bosh: server closed")
	errPanic        = errors.New("bosh: internal error")
)

// ErrHere is what [Elsewhere] says of a session that no other node serves.
var ErrHere = errors.New("bosh: no other node serves the session")

// ending is why a session ended.
type ending uint8

const (
	endTerminated ending = iota // the client said so
	endClosed                   // the stream ended
	endInactive
	endRejected
	endBroken
	endRestarting
	endServer
	endPanic
)

var endings = [...]struct {
	label string
	err   error
}{
	endTerminated: {"terminated", nil},
	endClosed:     {"closed", nil},
	endInactive:   {"inactive", ErrInactive},
	endRejected:   {"rejected", ErrRejected},
	endBroken:     {"broken", ErrBroken},
	endRestarting: {"restarting", ErrRestarting},
	endServer:     {"server_closed", ErrServerClosed},
	endPanic:      {"internal_error", errPanic},
}

// Violations of the rid window, as in the metric's label.
const (
	violationOutside    = "outside"    // a rid above the window
	violationOld        = "old"        // one whose response is not kept any more; this one ends nothing
	violationOveractive = "overactive" // too many requests, or too often
	violationKey        = "key"
)
