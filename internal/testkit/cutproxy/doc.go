// Package cutproxy is a TCP proxy that breaks connections the way bad networks do: it cuts them, stalls them,
// leaves them half-open, or slows them down, when a test says so.
//
// Each accepted connection is a Link. Two goroutines own a link, one for each direction; a third opened it. Close
// ends and joins all of them.
package cutproxy
