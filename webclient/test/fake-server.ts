// A server of XEP-0198 and a link to it, in memory, that lose what a network loses. The link keeps the contract of
// src/core/link.ts as the one of strophe.js does.

import { DOMParser } from "@xmldom/xmldom";
import type { FakeRoom } from "./fake-room.js";
import { idOf, nameOf, type Ledger, type Link, type Listener, type Numbered } from "../src/core/link.js";

export interface Session {
  handled: number; // of the client's stanzas
  outbox: string[]; // not acknowledged by the client
  acked: number; // how many of the client's acknowledgements
}

export class FakeServer {
  readonly sessions = new Map<string, Session>();
  readonly got: string[] = []; // ids of messages with a body, as they were handled
  readonly all: string[] = []; // ids of everything that has one
  readonly stanzas: string[] = [];
  #n = 0;

  open(): string {
    const id = `s${++this.#n}`;
    this.sessions.set(id, { handled: 0, outbox: [], acked: 0 });
    return id;
  }

  // forget ends all sessions; with known they can still be asked how far they got.
  forget(known: boolean): void {
    for (const [id, s] of this.sessions) {
      if (known) this.over.set(id, s.handled);
      this.room?.leave(s);
    }
    this.sessions.clear();
  }
  readonly over = new Map<string, number>();

  handle(session: Session, stanza: string): void {
    session.handled++;
    this.stanzas.push(stanza);
    const id = idOf({ name: "", stanza, queuedAt: 0 });
    if (id !== "") this.all.push(id);
    if (stanza.includes("<body>")) this.got.push(id);
    this.room?.handle(session, stanza);
  }
  room: FakeRoom | undefined;

  // send has a stanza for the client.
  send(stanza: string): void {
    for (const s of this.sessions.values()) s.outbox.push(stanza);
  }
}

export class FakeLink implements Link {
  ledger: Ledger | undefined;
  ready = false;
  #listener: Listener | undefined;
  #session: Session | undefined;
  #delivered = 0; // of the session's outbox on this connection

  constructor(private readonly server: FakeServer) {}

  listen(listener: Listener): this {
    this.#listener = listener;
    return this;
  }

  get #l(): Listener {
    if (!this.#listener) throw new Error("no listener");
    return this.#listener;
  }

  start(ledger: Ledger | undefined): void {
    this.ledger = ledger && { ...ledger, unacked: [...ledger.unacked] };
    this.connect();
  }

  connect(): void {
    if (this.ready) return;
    const ledger = this.ledger;
    if (ledger) {
      const session = this.server.sessions.get(ledger.id);
      if (session) return this.#resume(ledger, session);
      const h = this.server.over.get(ledger.id);
      const acked = h === undefined ? [] : ledger.unacked.slice(0, h - ledger.hOutAcked).map(idOf);
      this.ledger = undefined;
      this.#l.lost(acked);
    }
    const id = this.server.open();
    this.#session = this.server.sessions.get(id);
    this.ledger = { id, boundJid: "me@here/x", hIn: 0, hOutAcked: 0, unacked: [] };
    this.#up(false);
  }

  #resume(ledger: Ledger, session: Session): void {
    this.#session = session;
    ledger.hIn = this.#l.stored;
    const n = session.handled - ledger.hOutAcked;
    // More than is known of: presence and the like goes out without being stored, always after what is.
    if (n < 0) throw new Error("the server has less than it acknowledged");
    const acked = ledger.unacked.splice(0, n);
    ledger.hOutAcked = session.handled;
    if (ledger.hIn < session.acked) throw new Error("the client forgot what it had acknowledged");
    session.outbox.splice(0, ledger.hIn - session.acked);
    session.acked = ledger.hIn;
    this.#up(true);
    if (acked.length > 0) this.#l.acknowledged(acked);
    for (const entry of ledger.unacked) this.server.handle(session, entry.stanza);
  }

  #up(resumed: boolean): void {
    this.ready = true;
    this.#delivered = 0;
    this.#l.phase({ kind: "online", via: "websocket" });
    this.#l.ready(resumed);
  }

  push(stanzas: string[]): void {
    for (const stanza of stanzas) {
      const entry: Numbered = { name: nameOf(stanza), stanza, queuedAt: 0 };
      this.ledger?.unacked.push(entry);
      if (this.ready && this.#session && !this.lossy) this.server.handle(this.#session, stanza);
    }
  }
  // While it is lossy what is pushed does not arrive, and the connection does not know.
  lossy = false;

  // deliver brings what the server has, and acknowledgements, and says whether there was something.
  deliver(): boolean {
    const { ledger } = this;
    const session = this.#session;
    if (!this.ready || this.lossy || !ledger || !session) return false;
    const acked = ledger.unacked.splice(0, session.handled - ledger.hOutAcked);
    ledger.hOutAcked = session.handled;
    if (acked.length > 0) this.#l.acknowledged(acked);
    const before = this.#delivered;
    while (this.#delivered < session.outbox.length) {
      const text = session.outbox[this.#delivered++];
      if (text === undefined) break;
      const stanza = new DOMParser().parseFromString(text, "text/xml").documentElement as unknown as Element;
      this.#l.stanza({ stanza, session: ledger.id, h: session.acked + this.#delivered });
    }
    this.#l.asked();
    return acked.length > 0 || this.#delivered > before;
  }

  handled(h: number): void {
    const session = this.#session;
    if (!this.ready || this.lossy || !session) return;
    session.outbox.splice(0, h - session.acked);
    this.#delivered -= h - session.acked;
    session.acked = h;
  }

  cut(): void {
    this.ready = false;
    this.lossy = false;
    this.#session = undefined;
    this.#l.phase({ kind: "waiting", until: 0 });
  }

  drop(): void {
    this.drops++;
    this.cut();
  }
  drops = 0;

  hurry(): void {
    this.connect();
  }

  stop(): void {
    this.ready = false;
    this.#session = undefined;
  }

  end(): void {
    this.stop();
  }
}
