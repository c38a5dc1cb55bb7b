// Package limitread reads messages that have a size limit into buffers that are used again. A buffer grows to what is needed,
// and never beyond the limit and one byte.
package limitread

import "io"

// Append reads r to its end behind buf. over says that there is more than limit bytes in all, 0 for no limit: then it stops
// there.
func Append(buf []byte, r io.Reader, limit int) (b []byte, over bool, err error) {
	for {
		if limit > 0 && len(buf) > limit {
			return buf, true, nil
		}
		if len(buf) == cap(buf) {
			size := 2 * cap(buf)
			if limit > 0 {
				size = min(size, limit+1)
			}
			grown := make([]byte, len(buf), max(size, len(buf)+1))
			copy(grown, buf)
			buf = grown
		}
		end := cap(buf)
		if limit > 0 {
			end = min(end, limit+1)
		}
		n, err := r.Read(buf[len(buf):end])
		buf = buf[:len(buf)+n]
		switch {
		case err == io.EOF:
			return buf, limit > 0 && len(buf) > limit, nil
		case err != nil && (limit == 0 || len(buf) <= limit):
			return buf, false, err
		}
	}
}
