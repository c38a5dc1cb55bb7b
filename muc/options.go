package muc

// Who may send private messages, as values of muc#roomconfig_allowpm.
const (
	pmAnyone       = "anyone"
	pmParticipants = "participants"
	pmModerators   = "moderators"
	pmNone         = "none"
)

// options is how a room is configured (§10.2).
type options struct {
	Name            string `json:"name,omitempty"`
	Description     string `json:"description,omitempty"`
	Language        string `json:"language,omitempty"`
	Password        string `json:"password,omitempty"` // empty: none is needed
	Persistent      bool   `json:"persistent,omitempty"`
	Public          bool   `json:"public,omitempty"`
	MembersOnly     bool   `json:"members_only,omitempty"`
	Moderated       bool   `json:"moderated,omitempty"`
	WhoisAnyone     bool   `json:"whois_anyone,omitempty"`   // otherwise moderators alone see JIDs
	ChangeSubject   bool   `json:"change_subject,omitempty"` // also participants may
	AllowInvites    bool   `json:"allow_invites,omitempty"`  // also members may, into a members-only room
	PrivateMessages string `json:"private_messages"`
	MaxUsers        int    `json:"max_users,omitempty"` // 0: as many as the gateway allows
	MaxHistory      int    `json:"max_history"`         // messages told to those who enter; negative: as many as are kept
}

func defaultOptions() options {
	return options{Public: true, PrivateMessages: pmAnyone, MaxHistory: -1}
}

// mayWrite reports whether a role may send private messages.
func (o *options) mayWrite(as role) bool {
	switch o.PrivateMessages {
	case pmNone:
		return false
	case pmModerators:
		return as >= moderator
	case pmParticipants:
		return as >= participant
	}
	return true
}
