package muc

import (
	"fmt"
	"slices"
	"strings"

	"holdfast/stanza"
)

// Who may create rooms, as values of MUC_CREATE.
const (
	CreateUsers  = "users"
	CreateNobody = "nobody"
)

// Limits that are not settings.
const (
	maxOccupants = 2000 // what MUC_OCCUPANTS may be, and what holds when it is 0
	maxHistory   = 1000 // what MUC_HISTORY may be
)

// Config is the package's settings.
type Config struct {
	Enabled      bool     `env:"MUC" desc:"true has rooms (XEP-0045)"`
	Host         string   `env:"MUC_HOST" desc:"label before each domain under which its rooms are, as in conference.example.org"`
	Create       string   `env:"MUC_CREATE" desc:"who may create rooms: users, never guests; nobody leaves only those that are there"`
	Admins       []string `env:"MUC_ADMINS" desc:"comma-separated addresses (user@domain) of users who own every room, also those that GUEST_CONTACTS names, which nobody else owns"`
	Occupants    int      `env:"MUC_OCCUPANTS" desc:"occupants of one room, admins and owners come in beyond it; at most 2000, which is also what 0 stands for"`
	History      int      `env:"MUC_HISTORY" desc:"last messages that a room keeps for those who enter, up to 1000 and in all 256 KiB; 0 for none"`
	RoomsPerUser int      `env:"MUC_ROOMS_PER_USER" desc:"persistent rooms that one user may have created; a further one ends when the last occupant leaves; 0 for no limit"`
	Affiliations int      `env:"MUC_AFFILIATIONS" desc:"owners, admins, members and banned users of one room together; at least 1"`
}

// DefaultConfig is the settings when nothing is set.
func DefaultConfig() Config {
	return Config{
		Enabled:      true,
		Host:         "conference",
		Create:       CreateUsers,
		Occupants:    200,
		History:      100,
		RoomsPerUser: 20,
		Affiliations: 1000,
	}
}

// Validate names the first setting that cannot be.
func (c Config) Validate() error {
	host, err := stanza.NewAddr("", c.Host+".localhost", "")
	if err != nil || c.Host == "" || host.Domain() != strings.ToLower(c.Host)+".localhost" {
		return fmt.Errorf("MUC_HOST: %q is no label of a domain name", c.Host)
	}
	switch {
	case c.Create != CreateUsers && c.Create != CreateNobody:
		return fmt.Errorf("MUC_CREATE: %q is neither %s nor %s", c.Create, CreateUsers, CreateNobody)
	case c.Occupants < 0 || c.Occupants > maxOccupants:
		return fmt.Errorf("MUC_OCCUPANTS: %d is not between 0 and %d", c.Occupants, maxOccupants)
	case c.History < 0 || c.History > maxHistory:
		return fmt.Errorf("MUC_HISTORY: %d is not between 0 and %d", c.History, maxHistory)
	case c.RoomsPerUser < 0:
		return fmt.Errorf("MUC_ROOMS_PER_USER: %d is negative", c.RoomsPerUser)
	case c.Affiliations < 1:
		return fmt.Errorf("MUC_AFFILIATIONS: %d is less than 1", c.Affiliations)
	}
	_, err = c.admins()
	return err
}

// admins reads Admins.
func (c Config) admins() ([]stanza.Addr, error) {
	var admins []stanza.Addr
	for _, name := range c.Admins {
		addr, err := stanza.ParseAddr(strings.TrimSpace(name))
		if err != nil || addr.Local() == "" || !addr.IsBare() {
			return nil, fmt.Errorf("MUC_ADMINS: %q is not user@domain", name)
		}
		admins = append(admins, addr)
	}
	return admins, nil
}

// limits is the settings that what a room answers depends on. A room has them in its snapshot, so that a restart with
// others does not make it answer otherwise what it handles again.
type limits struct {
	Occupants    int           `json:"occupants"`
	History      int           `json:"history"`
	HistoryBytes int           `json:"history_bytes"`
	Affiliations int           `json:"affiliations"`
	Create       bool          `json:"create,omitempty"` // users may create the room
	Named        bool          `json:"named,omitempty"`  // it is one that the operator named
	Admins       []stanza.Addr `json:"admins,omitempty"` // they own it
}

func (s *Service) limits(room stanza.Addr) limits {
	l := limits{
		Occupants: s.cfg.Occupants, History: s.cfg.History, HistoryBytes: maxHistoryBytes, Affiliations: s.cfg.Affiliations,
		Create: s.cfg.Create == CreateUsers, Named: s.rights.Named(room), Admins: s.admins,
	}
	if l.Occupants == 0 {
		l.Occupants = maxOccupants
	}
	return l
}

// serves reports whether a user owns the room by the settings.
func (l *limits) serves(user stanza.Addr) bool { return slices.Contains(l.Admins, user) }
