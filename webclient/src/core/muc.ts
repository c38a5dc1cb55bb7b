// What the stanzas of a room say (XEP-0045).

import { child, elements, ns, resource } from "./stanzas.js";

// Occupant is somebody who is in a room.
export interface Occupant {
  nick: string;
  id: string; // by which the room knows them under any nick (XEP-0421); the nick where it does not tell
  own: boolean;
}

// Heard is a message that everybody in the room gets.
export interface Heard {
  nick: string; // "" for the room itself
  id: string; // as its sender named it, "" for not at all
  stanzaId?: string; // as the room named it (XEP-0359)
  occupant?: string;
  body?: string;
  subject?: string; // only of a message that sets it
  history?: number; // when it was said, of one that was said before
}

export function readHeard(message: Element, room: string): Heard | undefined {
  if (message.getAttribute("type") !== "groupchat") return undefined;
  const heard: Heard = { nick: resource(message.getAttribute("from") ?? ""), id: message.getAttribute("id") ?? "" };
  let subject: string | undefined;
  for (const el of elements(message)) {
    const space = el.namespaceURI ?? el.getAttribute("xmlns");
    if (el.localName === "stanza-id" && space === ns.sid && el.getAttribute("by") === room) heard.stanzaId = el.getAttribute("id") ?? "";
    else if (el.localName === "occupant-id" && space === ns.occupant) heard.occupant = el.getAttribute("id") ?? "";
    else if (el.localName === "delay" && space === ns.delay) readDelay(el, room, heard);
    else if (el.localName === "body") heard.body = el.textContent;
    else if (el.localName === "subject") subject = el.textContent;
  }
  if (subject !== undefined && heard.body === undefined && !child(message, "thread")) heard.subject = subject;
  return heard;
}

// readDelay takes the stamp of the room. Others say when something waited on its way, or are an occupant's own.
function readDelay(el: Element, room: string, heard: Heard): void {
  const stamp = Date.parse(el.getAttribute("stamp") ?? "");
  if (el.getAttribute("from") === room && !Number.isNaN(stamp)) heard.history = stamp;
}

// Seen is a presence of an occupant.
export interface Seen {
  id: string; // that of one's own request to enter comes back with one's own presence
  nick: string;
  gone: boolean;
  codes: Set<number>;
  occupant?: string;
  newNick?: string; // with code 303
  reason: string;
  destroyed: boolean;
}

export function readSeen(presence: Element): Seen {
  const x = child(presence, "x", ns.mucUser);
  const item = x && child(x, "item");
  const destroy = x && child(x, "destroy");
  const why = (item && child(item, "reason")) ?? (destroy && child(destroy, "reason"));
  const seen: Seen = {
    id: presence.getAttribute("id") ?? "",
    nick: resource(presence.getAttribute("from") ?? ""),
    gone: presence.getAttribute("type") === "unavailable",
    codes: new Set(),
    reason: why?.textContent ?? "",
    destroyed: destroy !== undefined,
  };
  for (const el of x ? elements(x) : []) if (el.localName === "status") seen.codes.add(Number(el.getAttribute("code")));
  const occupant = child(presence, "occupant-id", ns.occupant)?.getAttribute("id");
  if (occupant) seen.occupant = occupant;
  const nick = item?.getAttribute("nick");
  if (nick) seen.newNick = nick;
  return seen;
}

// timeOf is the moment that a UUID of version 7 has in it (RFC 9562 §5.7), ms since the epoch: the room's clock tells
// when it named a message, which no stamp says of one that comes at once.
export function timeOf(id: string): number | undefined {
  return /^[\da-f]{8}-[\da-f]{4}-7[\da-f]{3}-[\da-f]{4}-[\da-f]{12}$/i.test(id) ? parseInt(id.slice(0, 8) + id.slice(9, 13), 16) : undefined;
}
