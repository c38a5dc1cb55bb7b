package stanza

// A Stanza and its bytes live and die together, so for most of them one allocation holds both. The sizes fill Go's
// size classes, of which objects over 512 bytes leave 8 to the garbage collector.
type (
	stanza512 struct {
		Stanza
		buf [200]byte
	}
	stanza640 struct {
		Stanza
		buf [320]byte
	}
	stanza768 struct {
		Stanza
		buf [448]byte
	}
	stanza1024 struct {
		Stanza
		buf [704]byte
	}
)

// allocate returns an empty Stanza and room for its bytes.
func allocate(size int) (*Stanza, []byte) {
	switch {
	case size <= 200:
		s := new(stanza512)
		return &s.Stanza, s.buf[:0]
	case size <= 320:
		s := new(stanza640)
		return &s.Stanza, s.buf[:0]
	case size <= 448:
		s := new(stanza768)
		return &s.Stanza, s.buf[:0]
	case size <= 704:
		s := new(stanza1024)
		return &s.Stanza, s.buf[:0]
	}
	return new(Stanza), make([]byte, 0, size)
}
