// Package muc is rooms: XEP-0045 Multi-User Chat, with occupant ids (XEP-0421), stanza ids by the room (XEP-0359) and
// the self-ping optimization (XEP-0410).
//
// A [Room] is a state machine. [Room.Handle] takes one stanza that somebody sent to the room and returns what the room
// sends. Whoever calls it keeps the stanzas that a room was sent and a recent [Room.State] in a journal, so that after
// a crash the stanzas since then are handled again, and of what comes out of it as many are skipped as had been sent.
// Hence the first invariant.
//
//   - What Handle returns, and what the room is afterwards, depends on the room's state and the stanza alone: on no
//     clock, no chance, no other room, no order of a map. The time of a message is that in its stanza id.
//     The settings are in the state, and so is whether the operator named the room; new ones hold for a room that is
//     opened without one.
//   - A Room that is opened from a State answers byte for byte like the one whose State it was.
//   - One stanza makes a room send at most 16,000. What would take more, as to make a room of very many members-only,
//     is refused with resource-constraint.
//   - All that clients can make a room remember is bounded: occupants and their sessions, presences (8 KiB each),
//     affiliations, the subject, the texts of the configuration, the history (by count, and 256 KiB without the <delay/>
//     of its messages), the last invitations.
//   - What a room alone may say, clients cannot make it say: <x/> of muc and muc#user, <occupant-id/>, <stanza-id/>
//     by the room and <delay/> from it are taken out of what they send.
//   - A message to all is rewritten once, whatever the number of occupants.
//
// # What is where
//
// Entering, leaving, presence and nicks (§7.1, §7.2, §7.6, §7.7, §7.14) are in join.go and occupants.go; messages (§7.4,
// §7.5, §8.1) in message.go, the history (§7.2.13 to §7.2.15) in history.go; invitations (§7.8.2) in invite.go, voice
// (§7.13, §8.6) in voice.go; roles and affiliations (§5, §8, §9) in admin.go, the configuration and the end of a room
// (§10) in owner.go; discovery of a room (§6.4, §6.5) in disco.go, that of its host (§6.1 to §6.3) in host.go; snapshots
// and what is kept in snapshot.go.
//
// A visitor cannot talk in any room, so that voice can be taken from somebody where the room is not moderated; when a
// room is moderated no more, all of its visitors get voice.
//
// Several sessions of one user may share a nick. The others see one occupant, with the presence that came last, until
// the last session leaves. Requests to a nick go to the session whose presence is seen, messages to all.
//
// # Who owns a room
//
// Who enters a room that does not exist creates it and owns it, if users may (MUC_CREATE); guests never may. A room that
// the operator named ([Rights]) comes to be when anybody enters it, guests too, and nobody owns it by that. The users in
// MUC_ADMINS own every room. That cannot be taken from them, is in no room's list of owners, and does not make them the
// last owner, whom a room does not let go.
//
// # What is kept
//
// A room exists while somebody is in it, or is persistent. [Room.Save] has the [Store] know persistent rooms with all
// but their occupants, and of public temporary ones that they are there, which is how others find them. A persistent
// room that is one too many of its creator's (MUC_ROOMS_PER_USER) is found out only there, since Handle may not ask: it
// goes on as a temporary room, which the log and the metrics say. Rooms that the operator named count for nobody.
//
// What Save wrote is on the disk before the State says so. All the same a room that is opened from a State is saved once
// more: a store can lose what it had, with the power or by being brought back from a copy.
//
// # Left out
//
// Registration with a room and reserved nicks (§7.10, §7.12), unique room names, affiliations of domains, messages about
// the affiliations of users who are not in the room, a choice of whose presence is broadcast, logging of rooms, and the
// groupchat 1.0 protocol, whose users are told that they are not in the room (§7.2.18). Rooms are not locked while they
// are configured for the first time (§10.1).
//
// The package starts no goroutines. A Room belongs to one goroutine at a time; a [Service] is safe for concurrent use.
package muc
