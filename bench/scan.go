package bench

import "bytes"

// What follows looks into frames of a server whose answers are known in kind. It finds things, it checks nothing;
// a server that says something else makes a scenario run out of patience.

// nameOf is the local name of the element that a frame begins with.
func nameOf(frame []byte) []byte {
	if len(frame) == 0 || frame[0] != '<' {
		return nil
	}
	for i := 1; i < len(frame); i++ {
		switch frame[i] {
		case ' ', '>', '/', '\n', '\t', '\r':
			name := frame[1:i]
			return name[bytes.LastIndexByte(name, ':')+1:]
		}
	}
	return nil
}

// startTag is the frame up to the end of its first tag. (A '>' in an attribute value is legal and seen nowhere.)
func startTag(frame []byte) []byte {
	return frame[:bytes.IndexByte(frame, '>')+1]
}

// attr is the value of an attribute of the frame's first tag as it is written.
func attr(frame []byte, name string) []byte {
	tag := startTag(frame)
	for at := 0; ; {
		i := bytes.Index(tag[at:], []byte(name))
		if i < 0 {
			return nil
		}
		at += i + len(name)
		start := at - len(name)
		if start == 0 || tag[start-1] != ' ' && tag[start-1] != '\n' || at+2 > len(tag) || tag[at] != '=' {
			continue
		}
		value, _, ok := bytes.Cut(tag[at+2:], tag[at+1:at+2])
		if !ok {
			return nil
		}
		return value
	}
}

// content is what stands in the first element named name, which may be the frame's own.
func content(frame []byte, name string) []byte {
	for rest := frame; ; {
		i := bytes.Index(rest, []byte(name))
		if i < 1 {
			return nil
		}
		before := rest[i-1]
		rest = rest[i+len(name):]
		if before != '<' && before != ':' || len(rest) == 0 || rest[0] != '>' && rest[0] != ' ' {
			continue
		}
		_, rest, _ = bytes.Cut(rest, []byte(">"))
		text, _, _ := bytes.Cut(rest, []byte("<"))
		return text
	}
}

// number reads decimal digits.
func number(text []byte) (n uint64, ok bool) {
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, len(text) > 0 && len(text) < 20
}

// isError reports whether a stanza is of type error.
func isError(frame []byte) bool {
	tag := startTag(frame)
	return bytes.Contains(tag, []byte("'error'")) || bytes.Contains(tag, []byte(`"error"`))
}
