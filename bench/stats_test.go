package bench

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestHistogramBuckets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ns := rapid.Uint64Max(1<<62).Draw(t, "ns")
		i := bucketOf(ns)
		upper := upperOf(i)
		if upper < ns || float64(upper-ns) > float64(ns)/subBuckets {
			t.Fatalf("%d is counted up to %d", ns, upper)
		}
		if bucketOf(upper) != i || bucketOf(upper+1) != i+1 {
			t.Fatalf("bucket %d does not end at %d", i, upper)
		}
	})
}

func TestHistogramQuantiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var h, other Histogram
	var all []time.Duration
	for i := range 20_000 {
		d := time.Duration(rng.ExpFloat64() * float64(time.Millisecond))
		all = append(all, d)
		if i%2 == 0 {
			h.Record(d)
		} else {
			other.Record(d)
		}
	}
	h.Add(&other)
	slices.Sort(all)
	for _, q := range []float64{0, 0.5, 0.99, 0.999, 1} {
		want := all[min(int(q*float64(len(all))), len(all)-1)]
		if got := h.Quantile(q); got < want || got > want+want/subBuckets+1 {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	if h.Max() != all[len(all)-1] || h.Count() != 20_000 {
		t.Errorf("max %v of %d", h.Max(), h.Count())
	}
	h.Reset()
	if h.Quantile(0.5) != 0 || h.Count() != 0 {
		t.Error("not empty after Reset")
	}
}

func TestLedger(t *testing.T) {
	for _, test := range []struct {
		name string
		sent int
		got  []uint64
		want Counts
	}{
		{"all in order", 3, []uint64{0, 1, 2}, Counts{Sent: 3, Delivered: 3}},
		{"one lost", 3, []uint64{0, 2}, Counts{Sent: 3, Delivered: 2, Lost: 1}},
		{"the last lost", 3, []uint64{0, 1}, Counts{Sent: 3, Delivered: 2, Lost: 1}},
		{"one repeated", 3, []uint64{0, 1, 1, 2}, Counts{Sent: 3, Delivered: 3, Repeated: 1}},
		{"two in the wrong order", 3, []uint64{1, 0, 2}, Counts{Sent: 3, Delivered: 3, OutOfOrder: 1}},
		{"repeated later", 70, append(series(0, 70), 0), Counts{Sent: 70, Delivered: 70, Repeated: 1}},
		{"never sent", 1, []uint64{0, 5}, Counts{Sent: 1, Delivered: 1, Unknown: 1}},
		{"nothing", 0, nil, Counts{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var l Ledger
			for range test.sent {
				l.Send()
			}
			for _, seq := range test.got {
				l.Deliver(seq)
			}
			if diff := cmp.Diff(test.want, l.Counts()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func series(from, to uint64) (all []uint64) {
	for ; from < to; from++ {
		all = append(all, from)
	}
	return all
}

// RFC 6455 §5.2: what a client builds is what it would cut, once unmasked.
func TestFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		payload := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "payload")
		if rapid.Bool().Draw(t, "long") {
			payload = bytes.Repeat(append(payload, 'x'), 300)
		}
		mask := rapid.Uint32().Draw(t, "mask")
		wire := appendFrame(nil, opText, payload, mask)
		at := len(wire) - len(payload)
		if diff := cmp.Diff([]byte{byte(mask), byte(mask >> 8), byte(mask >> 16), byte(mask >> 24)}, wire[at-4:at]); diff != "" {
			t.Fatal(diff)
		}
		for i := range payload {
			wire[at+i] ^= byte(mask >> (8 * (i % 4))) // RFC 6455 §5.3, octet by octet
		}
		server := append(slices.Concat(wire[:at-4], wire[at:]), "next"...)
		server[1] &= 0x7f
		f, size, err := cutFrame(server)
		if err != nil || size != len(server)-4 || !f.fin || f.op != opText || !bytes.Equal(f.payload, payload) {
			t.Fatalf("cut %d of %d: %v", size, len(server), err)
		}
		if _, size, err := cutFrame(server[:rapid.IntRange(0, size-1).Draw(t, "short")]); size != 0 || err != nil {
			t.Fatalf("a frame was cut before it was whole: %d, %v", size, err)
		}
	})
}

func TestFramesRefused(t *testing.T) {
	for name, wire := range map[string][]byte{
		"RFC 6455 §5.1 masked by the server": {0x81, 0x81, 0, 0, 0, 0, 'x'},
		"RFC 6455 §5.2 reserved bit":         {0xc1, 1, 'x'},
		"too long":                           {0x81, 127, 0xff, 0, 0, 0, 0, 0, 0, 0},
	} {
		if _, _, err := cutFrame(wire); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestLetters(t *testing.T) {
	for name, m := range map[string]*letter{
		"xmpp":    xmppLetter("a@localhost/bench", 77, 100, true),
		"relay":   relayLetter("00000001", 77, 100),
		"group":   groupLetter("r@conference.localhost", 77, 100),
		"minimal": xmppLetter("a@localhost/bench", 77, 0, false),
	} {
		stream, seq, at, ok := readLetter(m.fill(123456, 987654321))
		if !ok || stream != 77 || seq != 123456 || at != 987654321 {
			t.Errorf("%s: %s read as %d %d %d %v", name, m.frame, stream, seq, at, ok)
		}
	}
	if text := string(content(xmppLetter("a@b", 1, 100, true).fill(1, 1), "body")); len(text) != 100 {
		t.Errorf("a body of %d bytes: %q", len(text), text)
	}
	if id := string(attr(xmppLetter("a@b", 1, 100, true).fill(0xabc, 1), "id")); id != "m0000000abc" {
		t.Errorf("id %q", id)
	}
	r := newReceipt("a@localhost/bench").fill(0xabc)
	if seq, ok := readReceipt(r); !ok || seq != 0xabc {
		t.Errorf("%s read as %d %v", r, seq, ok)
	}
	for _, bad := range []string{"", "<message/>", "<message><body>hf#00</body></message>", "hf#" + strings.Repeat("g", 50)} {
		if _, _, _, ok := readLetter([]byte(bad)); ok {
			t.Errorf("%q was read", bad)
		}
		if _, ok := readReceipt([]byte(bad)); ok {
			t.Errorf("%q was read as a receipt", bad)
		}
	}
}

func TestScanning(t *testing.T) {
	frame := []byte(`<stream:features xmlns='a' xid='no' id="yes" h='12'><x><sm:jid>me@here</sm:jid></x></stream:features>`)
	if got := string(nameOf(frame)); got != "features" {
		t.Errorf("name %q", got)
	}
	for name, want := range map[string]string{"id": "yes", "h": "12", "xid": "no", "d": "", "none": ""} {
		if got := string(attr(frame, name)); got != want {
			t.Errorf("attribute %s: %q, want %q", name, got, want)
		}
	}
	if got := string(content(frame, "jid")); got != "me@here" {
		t.Errorf("content %q", got)
	}
	if isError(frame) || !isError([]byte(`<message type="error"><body>'x'</body></message>`)) ||
		isError([]byte(`<message type='chat'><body>'error'</body></message>`)) {
		t.Error("errors are not told apart")
	}
	rapid.Check(t, func(t *rapid.T) {
		junk := rapid.SliceOf(rapid.SampledFrom([]byte(`<>'"= /id:r`))).Draw(t, "junk")
		nameOf(junk)
		attr(junk, "id")
		content(junk, "id")
		isError(junk)
		readReceipt(junk)
	})
}

// RFC 7677 §3.
func TestScramVector(t *testing.T) {
	s := &scram{}
	if got := string(s.first("user", "rOprNGfwEbeRWgbNEkqO")); got != "n,,n=user,r=rOprNGfwEbeRWgbNEkqO" {
		t.Errorf("first %q", got)
	}
	a := &Account{Name: "user", Password: "pencil"}
	final, err := s.final(a, []byte("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"))
	if err != nil {
		t.Fatal(err)
	}
	want := "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	if string(final) != want {
		t.Errorf("final %q", final)
	}
	if err := s.verify([]byte("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")); err != nil {
		t.Error(err)
	}
	if err := s.verify([]byte("v=AAAA")); err == nil {
		t.Error("a wrong signature was taken")
	}
	for _, bad := range []string{"", "r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "r=rOprNGfwEbeRWgbNEkqO%x,s=!,i=4096", "r=rOprNGfwEbeRWgbNEkqO%x,s=AA==,i=0"} {
		if _, err := s.final(a, []byte(bad)); err == nil {
			t.Errorf("challenge %q was taken", bad)
		}
	}
}

func TestReadAccounts(t *testing.T) {
	got, err := ReadAccounts(strings.NewReader("anna,secret\nbert,\"with,comma\"\n"))
	if err != nil || len(got) != 2 || got[1].Name != "bert" || got[1].Password != "with,comma" {
		t.Errorf("%v %v", got, err)
	}
	if _, err := ReadAccounts(strings.NewReader("anna\n")); err == nil {
		t.Error("a line without a password was taken")
	}
}
