package session

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// database/sql keeps its opener until the database closes, which the tests' cleanup does.
	goleak.VerifyTestMain(m)
}
