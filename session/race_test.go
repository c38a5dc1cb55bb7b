//go:build race

package session

// The race detector allocates, and drops from pools at random.
const raceEnabled = true
