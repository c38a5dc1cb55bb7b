package cluster

import (
	"testing"

	"go.uber.org/goleak"

	"holdfast/internal/testkit/redisproc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(redisproc.M{M: m}) }
