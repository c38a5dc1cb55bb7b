package bosh

import (
	"net/http"

	"holdfast/stanza"
)

// respKind is what a response does.
type respKind uint8

const (
	plain       respKind = iota // <body/>, with or without payloads
	terminate                   // type='terminate'
	failure                     // type='error': a recoverable condition (XEP-0124 §17.3)
	unavailable                 // 503: somebody else will serve the session
)

// response is what a request is answered with. Rendering it again gives the same bytes.
type response struct {
	kind   respKind
	cond   condition
	frames [][]byte
	attrs  []byte // of <body/>, each with the space before it
	from   uint64 // the mark before its frames
	mark   uint64 // and behind them
	at     int64  // when it was fixed
}

// appendBody renders a response.
func (r *response) appendBody(dst []byte) []byte {
	dst = append(dst, "<body xmlns='"+nsBind+"'"...)
	switch r.kind {
	case terminate:
		dst = append(dst, " type='terminate'"...)
		if r.cond != none {
			dst = append(append(append(dst, " condition='"...), r.cond...), '\'')
		}
		if r.cond == remoteStreamError {
			dst = append(dst, " xmlns:stream='"+stanza.NSStream+"'"...)
		}
	case failure:
		dst = append(dst, " type='error'"...)
	}
	dst = append(dst, r.attrs...)
	if len(r.frames) == 0 {
		return append(dst, "/>"...)
	}
	dst = append(dst, '>')
	for _, f := range r.frames {
		dst = append(dst, f...)
	}
	return append(dst, "</body>"...)
}

// status is the HTTP status of a response.
func (r *response) status(legacy bool) int {
	switch {
	case r.kind == unavailable:
		return http.StatusServiceUnavailable
	case r.kind == terminate && legacy:
		return r.cond.legacyStatus()
	default:
		return http.StatusOK
	}
}
