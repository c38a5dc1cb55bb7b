// A small room of XEP-0045 for the server in memory: presences, history, subject, in this order; every message to
// everybody; occupant ids and stanza ids.

import { DOMParser } from "@xmldom/xmldom";
import { child, escape, ns } from "../src/core/stanzas.js";
import type { Session } from "./fake-server.js";

interface Spoken {
  nick: string;
  id: string;
  stanzaId: string;
  body: string;
  at: number;
  occupant: string;
}

export class FakeRoom {
  readonly history: Spoken[] = [];
  readonly inside = new Map<Session, string>(); // with the nick
  readonly others = new Set<string>();
  readonly taken = new Set<string>();
  readonly joins: string[] = []; // every presence that asked to be let in
  occupantIds = true;
  repeats = true; // the id of who enters
  subject = "";
  refuses = ""; // the content of the error that who wants in gets
  deaf = false; // knows nobody, whoever comes in
  endless = false; // never comes to the subject
  stanzaIds = true;
  pong = "not-acceptable"; // what who is not in is told
  readonly #before = new Map<string, string>(); // what who has a nick was called first
  #n = 0;

  constructor(
    readonly address: string,
    private readonly now: () => number,
  ) {}

  handle(session: Session, stanza: string): void {
    if (!stanza.includes(`to="${this.address}`)) return;
    const el = new DOMParser().parseFromString(stanza, "text/xml").documentElement as unknown as Element;
    if (el.localName === "presence") this.#join(session, el, stanza);
    else if (el.localName === "message") this.#message(session, el);
    else if (child(el, "ping")) this.#ping(session, el);
  }

  // say has somebody else speak.
  say(nick: string, body: string, more: { id?: string; occupant?: string } = {}): void {
    this.#speak(nick, more.id ?? `o${++this.#n}`, body, more.occupant);
  }

  // come and go of somebody else.
  come(nick: string): void {
    this.others.add(nick);
    for (const s of this.inside.keys()) s.outbox.push(this.#presence(nick, "member"));
  }

  go(nick: string): void {
    this.others.delete(nick);
    for (const s of this.inside.keys()) s.outbox.push(this.#presence(nick, "none", [], ' type="unavailable"'));
  }

  // rename has somebody, or everybody who is a session, go by another nick.
  rename(from: string, to: string): void {
    const self = [...this.inside.values()].includes(from);
    if (this.others.delete(from)) this.others.add(to);
    this.#before.set(to, from);
    for (const [s, nick] of this.inside) {
      const codes = self ? [110] : [];
      s.outbox.push(this.#presence(from, "member", [...codes, 303], ' type="unavailable"', "", to), this.#presence(to, "member", codes));
      if (nick === from) this.inside.set(s, to);
    }
  }

  // remove puts everybody who is a session out and says why.
  remove(codes: number[], reason = ""): void {
    for (const [s, nick] of this.inside) s.outbox.push(this.#presence(nick, "none", [110, ...codes], ' type="unavailable"', reason));
    this.inside.clear();
  }

  leave(session: Session): void {
    this.inside.delete(session);
  }

  #join(session: Session, el: Element, stanza: string): void {
    this.joins.push(stanza);
    const nick = (el.getAttribute("to") ?? "").slice(this.address.length + 1);
    const id = this.repeats ? ` id="${el.getAttribute("id") ?? ""}"` : "";
    const refused = this.taken.has(nick) ? `<error type="cancel"><conflict xmlns="${ns.stanzas}"/></error>` : this.refuses;
    if (refused !== "") {
      session.outbox.push(`<presence xmlns="jabber:client" type="error"${id} from="${this.address}/${nick}">${refused}</presence>`);
      return;
    }
    if (!this.deaf) this.inside.set(session, nick);
    for (const other of this.others) session.outbox.push(this.#presence(other, "member"));
    session.outbox.push(this.#presence(nick, "member", [110], id));
    const x = child(el, "x");
    const wanted = x && child(x, "history");
    const since = Date.parse(wanted?.getAttribute("since") ?? "");
    const most = Number(wanted?.getAttribute("maxstanzas") ?? Infinity);
    const kept = this.history.filter((m) => Number.isNaN(since) || m.at >= since);
    for (const m of kept.slice(Math.max(0, kept.length - most))) session.outbox.push(this.#groupchat(m, `<delay xmlns="${ns.delay}" from="${this.address}" stamp="${new Date(m.at).toISOString()}"/>`));
    if (this.endless) return;
    session.outbox.push(`<message xmlns="jabber:client" type="groupchat" from="${this.address}"><subject>${escape(this.subject)}</subject></message>`);
  }

  #message(session: Session, el: Element): void {
    const id = el.getAttribute("id") ?? "";
    const nick = this.inside.get(session);
    if (nick === undefined) {
      session.outbox.push(`<message xmlns="jabber:client" type="error" from="${this.address}" id="${escape(id)}"><error type="modify"><not-acceptable xmlns="${ns.stanzas}"/></error></message>`);
      return;
    }
    this.#speak(nick, id, child(el, "body")?.textContent ?? "");
  }

  #ping(session: Session, el: Element): void {
    const id = escape(el.getAttribute("id") ?? "");
    const from = escape(el.getAttribute("to") ?? "");
    session.outbox.push(
      this.inside.has(session)
        ? `<iq xmlns="jabber:client" type="result" from="${from}" id="${id}"/>`
        : `<iq xmlns="jabber:client" type="error" from="${from}" id="${id}"><error type="cancel"><${this.pong} xmlns="${ns.stanzas}"/></error></iq>`,
    );
  }

  #speak(nick: string, id: string, body: string, occupant = this.#before.get(nick) ?? nick): void {
    const at = this.now();
    const stamp = at.toString(16).padStart(12, "0");
    const m = { nick, id, body, at, stanzaId: `${stamp.slice(0, 8)}-${stamp.slice(8)}-7000-8000-${String(++this.#n).padStart(12, "0")}`, occupant };
    this.history.push(m);
    for (const s of this.inside.keys()) s.outbox.push(this.#groupchat(m));
  }

  #groupchat(m: Spoken, delay = ""): string {
    return (
      `<message xmlns="jabber:client" type="groupchat" from="${escape(`${this.address}/${m.nick}`)}" id="${escape(m.id)}"><body>${escape(m.body)}</body>` +
      `${this.stanzaIds ? `<stanza-id xmlns="${ns.sid}" by="${this.address}" id="${m.stanzaId}"/>` : ""}${this.#occupantId(m.occupant)}${delay}</message>`
    );
  }

  #presence(nick: string, affiliation: string, codes: number[] = [], type = "", reason = "", newNick = ""): string {
    return (
      `<presence xmlns="jabber:client" from="${escape(`${this.address}/${nick}`)}"${type}><x xmlns="${ns.mucUser}"><item affiliation="${affiliation}" role="${type === "" ? "participant" : "none"}"${newNick === "" ? "" : ` nick="${escape(newNick)}"`}>` +
      `${reason === "" ? "" : `<reason>${escape(reason)}</reason>`}</item>${codes.map((c) => `<status code="${c}"/>`).join("")}</x>${this.#occupantId(this.#before.get(nick) ?? nick)}</presence>`
    );
  }

  #occupantId(nick: string): string {
    return this.occupantIds ? `<occupant-id xmlns="${ns.occupant}" id="id of ${escape(nick)}"/>` : "";
  }
}
