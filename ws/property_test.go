package ws

import (
	"net"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func (h *harness) raw(t testing.TB) (*rawClient, *fakeStream) {
	t.Helper()
	conn, err := net.Dial("tcp", h.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := upgradeRaw(t, conn)
	return c, h.stream(t)
}

// maskedFrame is a client's frame of less than 64 KiB.
func maskedFrame(fin bool, op byte, payload string) string {
	b := []byte(maskedText(payload))
	b[0] = op
	if fin {
		b[0] |= 0x80
	}
	return string(b)
}

// RFC 6455 §5.4: however a message is cut into frames, frames into segments, and control frames put in between, the
// stream sees the message.
func TestFragmentsProperty(t *testing.T) {
	h := serve(t, nil)
	rapid.Check(t, func(rt *rapid.T) {
		c, s := h.raw(t)
		defer c.Close()
		greet(t, c, s)
		s.quiet = true
		frames := c.frames()
		var wire strings.Builder
		var want []string
		pings := 0
		for range rapid.IntRange(1, 5).Draw(rt, "messages") {
			msg := "<a xmlns='b'>" + strings.Repeat("x", rapid.IntRange(0, 9000).Draw(rt, "size")) + "</a>"
			want = append(want, "handle:"+msg)
			op := byte(opText)
			for rest := msg; ; {
				n := rapid.IntRange(0, len(rest)).Draw(rt, "cut")
				fin := n == len(rest)
				wire.WriteString(maskedFrame(fin, op, rest[:n]))
				if rest, op = rest[n:], 0; fin {
					break
				}
				if rapid.Bool().Draw(rt, "ping") {
					wire.WriteString(maskedFrame(true, opPing, "p"))
					pings++
				}
			}
		}
		for rest := wire.String(); rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "segment")
			if _, err := c.Write([]byte(rest[:n])); err != nil {
				rt.Fatal(err)
			}
			rest = rest[n:]
		}
		s.expect(t, want...)
		if pings > 0 {
			if f := <-frames; f.op != opPong || f.payload != "p" {
				rt.Fatalf("got %q", f)
			}
		}
	})
}

// Whatever bytes follow the handshake, the connection ends once and the others go on.
func TestGarbageProperty(t *testing.T) {
	h := serve(t, nil)
	other, _ := h.open(t)
	rapid.Check(t, func(rt *rapid.T) {
		c, s := h.raw(t)
		defer c.Close()
		piece := rapid.OneOf(
			rapid.StringN(0, 40, 200),
			rapid.Custom(func(rt *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(rt, "bytes")) }),
			rapid.Just(maskedText(openElement)), rapid.Just(maskedText(ping)), rapid.Just(maskedText(closeFramed)),
			rapid.Just(maskedFrame(false, opText, "<a>")), rapid.Just(maskedFrame(true, 0, "")),
			rapid.Just(maskedFrame(true, opClose, "\x03\xe8")), rapid.Just(maskedFrame(true, opPong, "\x00\x00\x00\x00\x00\x00\x00\x01")),
		)
		wire := strings.Join(rapid.SliceOfN(piece, 0, 8).Draw(rt, "wire"), "")
		_, _ = c.Write([]byte(wire)) // the other side may have hung up already
		_ = c.Close()
		for e := range s.events {
			if strings.HasPrefix(e, "lost:") {
				break
			}
		}
		other.write(t, ping)
		if got := other.read(t); got != ping {
			rt.Fatalf("got %q", got)
		}
	})
}
