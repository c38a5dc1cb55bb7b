package muc

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"holdfast/stanza"
)

const snapshotVersion = 1

// snapshot is a room as bytes. Stanzas are in it as they are on the wire.
type snapshot struct {
	Version      int               `json:"version"`
	Seed         []byte            `json:"seed"` // the secret of occupant ids
	Options      options           `json:"options"`
	Creator      stanza.Addr       `json:"creator"`
	Affiliations []keptAffiliation `json:"affiliations,omitempty"`
	History      []keptMessage     `json:"history,omitempty"`
	Subject      *keptMessage      `json:"subject,omitempty"`
	Invited      []invited         `json:"invited,omitempty"`
	Live         *liveState        `json:"live,omitempty"` // not in what the store has
}

type liveState struct {
	Limits    limits         `json:"limits"`
	Dirty     bool           `json:"dirty,omitempty"`
	Spoken    bool           `json:"spoken,omitempty"`
	Granted   bool           `json:"granted,omitempty"`
	Occupants []keptOccupant `json:"occupants,omitempty"`
}

type keptAffiliation struct {
	User        stanza.Addr `json:"user"`
	Affiliation affiliation `json:"affiliation"`
}

type keptMessage struct {
	ID      stanza.ID `json:"id"`
	At      int64     `json:"at"` // milliseconds since 1970
	Size    int       `json:"size,omitempty"`
	Delayed bool      `json:"delayed,omitempty"`
	Raw     string    `json:"raw"`
}

type keptOccupant struct {
	Nick     stanza.Addr   `json:"nick"`
	Role     role          `json:"role"`
	Sessions []keptSession `json:"sessions"`
}

type keptSession struct {
	Addr     stanza.Addr `json:"addr"`
	Presence string      `json:"presence"`
}

// State returns the room as bytes, for Open.
func (r *Room) State() []byte {
	s := r.kept()
	s.Live = &liveState{Limits: r.limits, Dirty: r.dirty, Spoken: r.spoken, Granted: r.granted}
	for _, o := range r.occupants {
		k := keptOccupant{Nick: o.addr, Role: o.role}
		for _, session := range o.sessions {
			k.Sessions = append(k.Sessions, keptSession{Addr: session.addr, Presence: string(session.presence.Raw())})
		}
		s.Live.Occupants = append(s.Live.Occupants, k)
	}
	return s.encode()
}

// kept is the part of the room that outlives its occupants.
func (r *Room) kept() *snapshot {
	s := &snapshot{Version: snapshotVersion, Seed: r.secret, Options: r.options, Creator: r.creator, Invited: r.invited}
	for _, user := range r.affiliated() {
		s.Affiliations = append(s.Affiliations, keptAffiliation{User: user, Affiliation: r.affiliations[user]})
	}
	for _, e := range r.history.entries() {
		s.History = append(s.History, keepMessage(e))
	}
	if r.subject.st != nil {
		m := keepMessage(r.subject)
		s.Subject = &m
	}
	return s
}

// affiliated returns all users with an affiliation in the order of their addresses.
func (r *Room) affiliated() []stanza.Addr {
	users := make([]stanza.Addr, 0, len(r.affiliations))
	for user := range r.affiliations {
		users = append(users, user)
	}
	slices.SortFunc(users, func(a, b stanza.Addr) int { return cmp.Compare(a.String(), b.String()) })
	return users
}

func keepMessage(e entry) keptMessage {
	return keptMessage{ID: e.st.ID, At: e.at.UnixMilli(), Size: e.size, Delayed: e.delayed, Raw: string(e.st.Raw())}
}

// encode leaves markup readable, and short.
func (s *snapshot) encode() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic("muc: a snapshot is always JSON: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// restore makes a new room what its State says.
func (r *Room) restore(state []byte) error {
	var s snapshot
	if err := json.Unmarshal(state, &s); err != nil {
		return err
	}
	if s.Version != snapshotVersion {
		return fmt.Errorf("version %d is not known", s.Version)
	}
	r.secret, r.options, r.creator, r.invited = s.Seed, s.Options, s.Creator, s.Invited
	for _, k := range s.Affiliations {
		r.affiliations[k.User] = k.Affiliation
	}
	for _, k := range s.History {
		e, err := k.entry()
		if err != nil {
			return err
		}
		r.history.all = append(r.history.all, e)
		r.history.bytes += e.size
	}
	if s.Subject != nil {
		e, err := s.Subject.entry()
		if err != nil {
			return err
		}
		r.subject = e
	}
	if s.Live == nil {
		return nil
	}
	r.limits, r.dirty, r.spoken, r.granted = s.Live.Limits, s.Live.Dirty, s.Live.Spoken, s.Live.Granted
	return r.restoreOccupants(s.Live.Occupants)
}

func (r *Room) restoreOccupants(all []keptOccupant) error {
	for _, k := range all {
		for _, s := range k.Sessions {
			presence, err := stanza.Parse([]byte(s.Presence), stanza.ID{})
			if err != nil {
				return err
			}
			r.attach(k.Nick, k.Role, session{addr: s.Addr, presence: presence})
		}
	}
	return nil
}

func (k *keptMessage) entry() (entry, error) {
	st, err := stanza.Parse([]byte(k.Raw), k.ID)
	return entry{st: st, at: time.UnixMilli(k.At), size: k.Size, delayed: k.Delayed}, err
}

// saveEvery is how often a room that people talk in is saved for its messages alone, which are in the journal until
// then. When the last one has left it is saved at once.
const saveEvery = time.Minute

// savePatience bounds one Save: who is in the room waits meanwhile.
const savePatience = 2 * time.Second

// due reports whether what is to be saved may not wait.
func (r *Room) due() bool {
	return r.dirty || r.unsure || r.spoken && (r.Idle() || time.Since(r.saved) >= saveEvery)
}

// Save makes the store have what is kept of the room: of a persistent one all but its occupants, of a temporary one
// that others may find that it is there, of any other nothing. It may be repeated.
//
// With changed, the State is another one, which is to be taken before the room handles more: a room that is one too
// many of its creator's becomes temporary again.
func (r *Room) Save(ctx context.Context) (changed bool, err error) {
	if !r.due() {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, savePatience)
	defer cancel()
	if err := r.grant(ctx); err != nil {
		return true, err
	}
	if !r.exists() || !r.options.Persistent && !r.options.Public {
		if err := r.sv.store.Remove(ctx, r.addr); err != nil {
			return true, fmt.Errorf("muc: remove a room: %w", err)
		}
		r.dirty, r.spoken, r.unsure = false, false, false
		return true, nil
	}
	k := Kept{
		Room: r.addr, Name: r.options.Name, Creator: r.creator,
		Public: r.options.Public, Persistent: r.options.Persistent,
	}
	if k.Persistent {
		k.State = r.kept().encode()
	}
	if err := r.sv.store.Save(ctx, k); err != nil {
		return true, fmt.Errorf("muc: save a room: %w", err)
	}
	r.dirty, r.spoken, r.unsure, r.granted, r.saved = false, false, false, k.Persistent, time.Now()
	return true, nil
}

// grant counts the rooms of the creator before one more is kept; the operator's rooms count for nobody. It is done here
// because what Handle does may not depend on other rooms.
func (r *Room) grant(ctx context.Context) error {
	limit := r.sv.cfg.RoomsPerUser
	if !r.exists() || !r.options.Persistent || r.granted || limit == 0 || r.creator == r.nobody() {
		return nil
	}
	// After a crash the store may have it already.
	kept, ok, err := r.sv.store.Load(ctx, r.addr)
	if err != nil {
		return fmt.Errorf("muc: load a room: %w", err)
	}
	if ok && kept.Persistent && kept.Creator == r.creator {
		return nil
	}
	n, err := r.sv.store.Persistent(ctx, r.creator)
	if err != nil {
		return fmt.Errorf("muc: count the rooms of a user: %w", err)
	}
	if n < limit {
		return nil
	}
	r.sv.metrics.refused.Inc()
	r.sv.log.Warn("room not kept: its creator has too many", "room", r.addr.String(), "limit", limit)
	r.options.Persistent = false
	r.endIfEmpty()
	return nil
}
