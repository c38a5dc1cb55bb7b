package bosh

import "net/http"

// condition is a terminal binding condition (XEP-0124 §17.2).
type condition string

const (
	none                  condition = ""
	badRequest            condition = "bad-request"
	hostUnknown           condition = "host-unknown"
	itemNotFound          condition = "item-not-found"
	otherRequest          condition = "other-request"
	policyViolation       condition = "policy-violation"
	remoteStreamError     condition = "remote-stream-error"
	internalServerError   condition = "internal-server-error"
	systemShutdown        condition = "system-shutdown"
	undefinedCondition    condition = "undefined-condition"
	improperAddressing    condition = "improper-addressing"
	hostGone              condition = "host-gone"
	remoteConnectionError condition = "remote-connection-failed"
)

// legacyStatus is what a client without 'ver' is told instead (XEP-0124 §17.1); 200 where there is nothing else.
func (c condition) legacyStatus() int {
	switch c {
	case badRequest:
		return http.StatusBadRequest
	case policyViolation:
		return http.StatusForbidden
	case itemNotFound:
		return http.StatusNotFound
	default:
		return http.StatusOK
	}
}

// ofCreation is the condition for a stream error that kept a session from beginning (XEP-0124 §17.2); the others are
// the stream's own.
func ofCreation(streamCondition string) condition {
	switch c := condition(streamCondition); c {
	case hostUnknown, hostGone, improperAddressing, internalServerError, policyViolation, remoteConnectionError, systemShutdown:
		return c
	default:
		return remoteStreamError
	}
}
