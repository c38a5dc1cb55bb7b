package bench

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

var errBadResponse = errors.New("bench: the server broke RFC 9112, or said what the generator does not read")

// postHead is the beginning of every request to one address; its body's length and the body follow. Nothing is asked for
// that would cost the load's core, compression above all.
func postHead(host, path string) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: ",
		path, host)
}

// appendPost appends a whole request.
func appendPost(dst, head, body []byte) []byte {
	dst = append(dst, head...)
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	dst = append(dst, "\r\n\r\n"...)
	return append(dst, body...)
}

// response is one response of the server. The body belongs to the buffer it was cut from.
type response struct {
	status int
	body   []byte
	last   bool // the connection ends with it (RFC 9112 §9.6)
}

var headEnd = []byte("\r\n\r\n")

// cutResponse takes the first response off b. size is its length in b, 0 when b does not hold all of it yet. Only bodies
// of a length that is said are read (RFC 9112 §6.2).
func cutResponse(b []byte) (r response, size int, err error) {
	end := bytes.Index(b, headEnd)
	if end < 0 {
		if len(b) > 64<<10 {
			return r, 0, errBadResponse
		}
		return r, 0, nil
	}
	line, fields, _ := bytes.Cut(b[:end], headEnd[:2])
	if len(line) < len("HTTP/1.1 200") || string(line[:len("HTTP/1.1 ")]) != "HTTP/1.1 " {
		return r, 0, errBadResponse
	}
	status, ok := number(line[len("HTTP/1.1 "):len("HTTP/1.1 200")])
	if !ok || status < 200 {
		return r, 0, errBadResponse
	}
	r.status = int(status)
	length := -1
	if status == 204 || status == 304 {
		length = 0
	}
	for len(fields) > 0 {
		line, fields, _ = bytes.Cut(fields, headEnd[:2])
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case len(name) == len("Content-Length") && bytes.EqualFold(name, []byte("Content-Length")):
			n, ok := number(value)
			if !ok || n > maxFrame {
				return r, 0, errBadResponse
			}
			length = int(n)
		case len(name) == len("Connection") && bytes.EqualFold(name, []byte("Connection")):
			r.last = bytes.EqualFold(value, []byte("close"))
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			return r, 0, errBadResponse
		}
	}
	if length < 0 {
		return r, 0, errBadResponse
	}
	size = end + len(headEnd) + length
	if len(b) < size {
		return r, 0, nil
	}
	r.body = b[end+len(headEnd) : size]
	return r, size, nil
}
