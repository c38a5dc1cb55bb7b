package main

import (
	"context"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/auth"
	"holdfast/muc"
	"holdfast/session"
	"holdfast/stanza"
)

// This file makes package muc look as session wants to see what serves addresses that are no users'.

// openRooms returns nil where rooms are switched off.
func (g *gateway) openRooms(domains []stanza.Addr, reg prometheus.Registerer) (session.Host, error) {
	if !g.cfg.MUC.Enabled {
		return nil, nil
	}
	rights := muc.Rights{
		Create: func(user stanza.Addr) bool { return !auth.IsGuest(user) },
		Named:  g.auth.IsGuestContact,
	}
	rooms, err := muc.New(g.cfg.MUC, domains, g.kept.rooms, rights, g.log, reg)
	if err != nil {
		return nil, err
	}
	return host{rooms}, nil
}

// demoRoom is the room of the demo page, "" where there are no rooms.
func (c *Config) demoRoom() string {
	if !c.MUC.Enabled {
		return ""
	}
	return "demo@" + c.MUC.Host + "." + strings.TrimSpace(c.Domains[0])
}

// host is muc's rooms for session.
type host struct{ *muc.Service }

func (h host) Under(domain string) (stanza.Addr, bool) { return h.Host(domain) }

func (h host) Open(ctx context.Context, addr stanza.Addr, state []byte) (session.Resident, error) {
	r, err := h.Service.Open(ctx, addr, state)
	if err != nil {
		return nil, err
	}
	return resident{r}, nil
}

// resident is a room for session.
type resident struct{ *muc.Room }

func (r resident) Handle(st *stanza.Stanza, send func(st *stanza.Stanza, from, to stanza.Addr)) {
	for _, out := range r.Room.Handle(st) {
		send(out.Stanza, out.From, out.To)
	}
}
