package limitread

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func TestAppend(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		had := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "what was there")
		in := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "what comes")
		limit := rapid.IntRange(0, 300).Draw(t, "limit")
		buf := append(make([]byte, 0, len(had)+rapid.IntRange(0, 50).Draw(t, "room")), had...)
		var r io.Reader = bytes.NewReader(in)
		switch rapid.IntRange(0, 2).Draw(t, "reader") {
		case 1:
			r = iotest.OneByteReader(r)
		case 2:
			r = iotest.DataErrReader(r)
		}
		all := slices.Concat(had, in)
		got, over, err := Append(buf, r, limit)
		switch tooMuch := limit > 0 && len(all) > limit; {
		case err != nil || over != tooMuch:
			t.Fatalf("%d bytes, limit %d: over %v, %v", len(all), limit, over, err)
		case !tooMuch && !bytes.Equal(got, all):
			t.Fatalf("got %v, want %v", got, all)
		case tooMuch && (!bytes.HasPrefix(all, got) || len(got) > max(limit+1, len(had))):
			t.Fatalf("read %d bytes, limit %d", len(got), limit)
		}
	})
	if _, _, err := Append(nil, iotest.ErrReader(errors.ErrUnsupported), 5); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}
