package session

import (
	"strconv"

	"holdfast/stanza"
)

// How many messages of one sender are kept for a user, as the user wants it: the protocol that Tigase has. The element is
// named as the feature by which XEP-0160 §4 announces offline storage, and so is its namespace.
//
//	<iq type='set'><msgoffline xmlns='msgoffline' limit='10'/></iq>
//
// limit is a decimal number, 0 for a user who wants nothing to be stored, or "false" for any number. Both answers have the
// limit that holds then, which for who never chose is the operator's.

const nsMsgOffline = "msgoffline"

// unlimited is how any number is written.
const unlimited = "false"

// ownLimitQuery answers it.
func ownLimitQuery(s *Session, st *stanza.Stanza, payload stanza.Child) ([]byte, error) {
	user := s.addr.Bare()
	if st.To != user {
		return nil, serviceUnavailable // the domain has no mailbox
	}
	box := s.sv.mailbox
	if isSet(st) {
		n, limited, ok := parseLimit(payload.Attr("limit"))
		if !ok {
			return nil, badRequest
		}
		if err := box.Choose(user, n, limited); err != nil {
			return nil, err
		}
	}
	n, limited, err := box.PairLimit(user)
	if err != nil {
		return nil, err
	}
	limit := unlimited
	if limited {
		limit = strconv.Itoa(n)
	}
	return []byte("<msgoffline xmlns='" + nsMsgOffline + "' limit='" + limit + "'/>"), nil
}

// parseLimit reads the attribute: digits alone make a number.
func parseLimit(text string) (n int, limited, ok bool) {
	if text == unlimited {
		return 0, false, true
	}
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return 0, false, false
		}
	}
	n, err := strconv.Atoi(text)
	return n, true, err == nil
}
