package muc

import (
	"testing"

	"go.uber.org/goleak"

	"holdfast/internal/testkit/postgresproc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(postgresproc.Main(m)) }
