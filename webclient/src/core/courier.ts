// The courier is what one tab does for all: it sends what is in the queue over the link, stores what comes in, and says
// what became of each message. Its steps run one after the other, and each is one transaction of the store, in which the
// ledger of the session stands as it will when the step is done. So whichever page goes on with the session finds in the
// store what the server knows, or less, never more:
//
//   - what is sent is in the stored ledger before it is on the wire;
//   - what came in is stored before the server hears that it was handled.

import { Deposed, Tally, type Change, type Item, type Store } from "../store/store.js";
import { Contact } from "./contact.js";
import type { Conversation, ConversationReports, Gate, Office, Place } from "./conversation.js";
import { Chain } from "./events.js";
import { idOf, nameOf, type Incoming, type Ledger, type Link, type Listener, type Numbered, type Phase } from "./link.js";
import { Room } from "./room.js";
import * as stanzas from "./stanzas.js";
import type { ChatState } from "./stanzas.js";

// How much is sent and not acknowledged.
const window = 50;

export interface Reports extends ConversationReports {
  phase(phase: Phase): void;
  me(address: string): void;
  failed(err: unknown): void;
}

export interface Settings {
  giveUp: number; // ms without a connection after which a message fails
  places: () => Iterable<Place>; // that pages show
  now: () => number;
  id: () => string;
}

export class Courier implements Listener {
  readonly #chain: Chain;
  #link: Link | undefined;
  #session = ""; // the id of the ledger that the steps so far were of; the link may be a session ahead
  #untold: "end" | "beginning" | undefined; // of a session, that the store does not know yet
  #unsettled: Numbered[] = []; // acknowledged, and the store does not say so yet
  #owed = 0; // as many of them a step was there for, and the store did not take it
  #acked: string[] = []; // of a session that is over, as far as the store was not told yet
  #handled = 0; // stanzas of it that are safe here
  #handling: number | undefined; // the same with the one that a step is storing
  #noted = 0; // as many the store has in its ledger
  #refused = false; // something of this was: the store has no room
  #retrying = false;
  #broken = false; // one could not be stored: none is taken until the session is resumed from the one before
  #phase: Phase = { kind: "off" };
  #tick: ReturnType<typeof setInterval> | undefined;
  #closed = false;
  readonly #conversations = new Map<string, Conversation>();
  readonly #office: Office;

  constructor(
    private readonly store: Store,
    private readonly reports: Reports,
    private readonly settings: Settings,
  ) {
    this.#chain = new Chain((err) => {
      const first = !this.#refused; // else it is known, and tried again all the time
      this.#refused = true;
      if (first && !this.#closed) reports.failed(err);
    });
    const ready = (): boolean => this.#link?.ready ?? false;
    this.#office = {
      store,
      reports,
      now: settings.now,
      id: settings.id,
      get ready() {
        return ready();
      },
      snapshot: () => this.#snapshot(),
      push: (...all) => {
        if (ready()) this.#link?.push(all, false);
      },
      pump: () => this.#pump(),
      told: (changes) => this.#told(changes),
      step: (f) => this.#step(f),
      shows: (address) => this.#places.has(address),
    };
  }

  async start(link: Link): Promise<void> {
    const ledger = await this.store.lead();
    for (const note of ledger ? await this.store.notes() : []) {
      const conversation = this.#conversations.get(note.peer) ?? Room.revived(note, this.#office) ?? new Contact(note.peer, this.#office);
      this.#conversations.set(note.peer, conversation);
      conversation.restore(note);
    }
    if (this.#closed) return;
    this.#link = link;
    this.#session = ledger?.id ?? "";
    this.#handled = this.#noted = ledger?.hIn ?? 0;
    this.#tick = setInterval(() => this.#overdue(), 1000);
    link.start(ledger);
  }

  get stored(): number {
    return this.#link?.ledger?.id === this.#session ? this.#handled : 0; // the link may be a session ahead
  }

  get phaseNow(): Phase {
    return this.#phase;
  }

  // stop lets another tab go on; end says good-bye to the server first.
  async stop(end = false): Promise<void> {
    if (end) await this.#chain.idle; // so that the store knows what was acknowledged
    this.#closed = true;
    clearInterval(this.#tick);
    await this.#chain.idle;
    for (const conversation of this.#conversations.values()) conversation.stop();
    if (end) {
      this.#link?.handled(this.#handled);
      this.#link?.end();
      await this.#restart(this.#unsettled.map(idOf), null);
    } else this.#link?.stop();
  }

  // wake has the queue looked at: something is new in it.
  wake(): void {
    this.#step(() => this.#pump());
  }

  // hurry: the user does not want to wait, for the connection or else for who the conversation is with.
  hurry(peer: string): void {
    const online = this.#link?.ready === true;
    this.#link?.hurry();
    if (online) this.#step(() => this.#conversations.get(peer)?.hurry());
  }

  typing(peer: string, state: ChatState): void {
    this.#step(() => this.#conversations.get(peer)?.typing(state));
  }

  // greet has a conversation that a page has begun to show.
  greet(place: Place): void {
    this.#step(async () => {
      const conversation = this.#conversation(place);
      if (this.#session !== "") await conversation.enter();
    });
  }

  // report says again how it stands with a conversation, to a page that has come.
  report(peer: string): void {
    this.#step(() => this.#conversations.get(peer)?.report());
  }

  // Listener.

  phase(phase: Phase): void {
    this.#phase = phase;
    this.reports.phase(phase);
  }

  ready(resumed: boolean): void {
    this.#step(async () => {
      const ledger = this.#link?.ledger;
      // One that was lost meanwhile has its step waiting.
      if (!ledger || (resumed && ledger.id !== this.#session)) return;
      this.reports.me(ledger.boundJid);
      this.#broken = false;
      if (!resumed) {
        this.#session = ledger.id;
        this.#handled = this.#noted = 0;
        this.#untold = "beginning";
      }
      if (this.#untold === undefined) await this.#each((conversation) => conversation.resumed());
      else await this.#begin();
      await this.#pump();
    });
  }

  lost(acked: string[]): void {
    this.#step(() => {
      const owed = this.#unsettled.splice(0, this.#owed).map(idOf);
      this.#owed = 0;
      this.#untold = "end";
      return this.#restart([...owed, ...acked], null);
    });
  }

  acknowledged(stanzas: Numbered[]): void {
    this.#unsettled.push(...stanzas);
    this.#step(async () => {
      await this.#settle(stanzas.length);
      await this.#pump();
    });
  }

  asked(): void {
    const session = this.#link?.ledger?.id;
    this.#step(async () => {
      // What is stored of one session is no answer in the next.
      if (this.#broken || session !== this.#session) return;
      const handled = this.#handled;
      if (this.#noted !== handled) await this.store.keep(this.#snapshot());
      this.#noted = handled;
      if (this.#link?.ledger?.id === session) this.#link.handled(handled);
    });
  }

  stanza({ stanza, session, h }: Incoming): void {
    this.#step(async () => {
      if (session !== this.#session) return await this.#take(stanza);
      // What came again since the connection broke while it was being stored counts once.
      if (this.#broken || h <= this.#handled) return;
      this.#handling = h;
      try {
        await this.#take(stanza);
        this.#handled = h;
      } catch (err) {
        this.#fail(err);
        throw err;
      } finally {
        this.#handling = undefined;
      }
    });
  }

  async #take(stanza: Element): Promise<void> {
    switch (stanza.localName) {
      case "message":
        return await this.#message(stanza);
      case "presence":
        return await this.#from(stanza)?.presence(stanza);
      case "iq": {
        const answer = stanzas.answer(stanza);
        if (answer !== undefined) return this.#link?.push([answer], false);
        await this.#from(stanza)?.answered(stanza);
      }
    }
  }

  // #fail has a stanza that could not be stored come again. One that is for another tab now is none of ours.
  #fail(err: unknown): void {
    this.#broken = true;
    if (err instanceof Deposed) this.#closed = true;
    else this.#link?.drop();
  }

  // Conversations.

  get #places(): Map<string, Place> {
    return new Map([...this.settings.places()].map((place) => [place.address, place]));
  }

  #conversation(place: Place): Conversation {
    const had = this.#conversations.get(place.address);
    if (had) return had;
    const made = place.kind === "room" ? new Room(place, this.#office) : new Contact(place.address, this.#office);
    this.#conversations.set(place.address, made);
    return made;
  }

  #from(stanza: Element): Conversation | undefined {
    return this.#conversations.get(stanzas.bare(stanza.getAttribute("from") ?? ""));
  }

  #forget(peer: string): void {
    this.#conversations.get(peer)?.stop();
    this.#conversations.delete(peer);
  }

  // #gate says whether an item can be sent. That of a room which no page shows waits for one that does.
  #gate(item: Item): Gate {
    return this.#conversations.get(item.with)?.gate ?? (item.room ? "shut" : "open");
  }

  // Steps.

  #step(f: () => Promise<void> | void): void {
    void this.#chain.run(async () => {
      if (this.#closed) return;
      await f();
    });
  }

  #told(changes: Change[]): void {
    for (const c of changes) this.reports.changed(c);
  }

  // #snapshot is the ledger as it is to be stored: with what is about to be sent, and what is safe here.
  #snapshot(more: string[] = []): Ledger | undefined {
    const ledger = this.#link?.ledger;
    if (!ledger?.id || ledger.id !== this.#session || this.#untold !== undefined) return undefined;
    return this.#written(ledger, more);
  }

  #written(ledger: Ledger, more: string[]): Ledger {
    const now = this.settings.now();
    return {
      ...ledger,
      hIn: this.#handling ?? this.#handled,
      // What nothing says of the messages yet is not acknowledged yet.
      hOutAcked: (ledger.hOutAcked - this.#unsettled.length) >>> 0,
      unacked: [...this.#unsettled, ...ledger.unacked, ...more.map((stanza) => ({ name: nameOf(stanza), stanza, queuedAt: now }))],
    };
  }

  // #begin goes on with a new session, of which our presence is the first that is said.
  async #begin(): Promise<void> {
    const link = this.#link;
    const ledger = link?.ledger;
    if (!link || !ledger) return;
    const presence = stanzas.presence();
    await this.#restart([], this.#written(ledger, [presence]));
    // One that was lost meanwhile has its step waiting.
    if (this.#link?.ledger?.id !== ledger.id) return;
    link.push([presence], false);
    for (const peer of [...this.#conversations.keys()]) if (!this.#office.shows(peer)) this.#forget(peer);
    for (const conversation of this.#conversations.values()) conversation.over();
    await this.#each((conversation) => conversation.enter());
  }

  // #each does something with all that pages show. One that fails does not keep it from the next.
  async #each(f: (conversation: Conversation) => Promise<void>): Promise<void> {
    let failed: unknown;
    for (const place of this.#places.values()) {
      try {
        await f(this.#conversation(place));
      } catch (err) {
        failed ??= err;
      }
    }
    if (failed !== undefined) throw failed as Error;
  }

  // #settle notes the next so many acknowledgements, with those that the store did not take before.
  async #settle(more: number): Promise<void> {
    const count = this.#owed + more;
    const acked = this.#unsettled.splice(0, count);
    try {
      this.#told(await this.store.settle(acked.map(idOf), this.#snapshot()));
      this.#owed = 0;
    } catch (err) {
      this.#unsettled.unshift(...acked);
      this.#owed = count;
      throw err;
    }
  }

  // #restart has the queue wait for a new session, but for what the one before acknowledged.
  async #restart(acked: string[], ledger: Ledger | null | undefined): Promise<void> {
    this.#acked.push(...acked);
    const changes = await this.store.restart(this.#acked, ledger);
    this.#acked = [];
    this.#untold = undefined;
    this.#told(changes);
  }

  // #retry does what the store had no room for.
  #retry(): void {
    if (!this.#refused || this.#retrying) return;
    this.#retrying = true;
    this.#step(async () => {
      try {
        await this.#catchUp();
      } finally {
        this.#retrying = false;
      }
    });
  }

  async #catchUp(): Promise<void> {
    if (this.#broken) return; // what comes next is the resumption
    if (this.#untold === "end") await this.#restart([], null);
    if (this.#owed > 0) await this.#settle(0);
    if (this.#untold === "beginning" && this.#link?.ready && this.#link.ledger?.id === this.#session) await this.#begin();
    await this.#pump();
    this.#refused = false;
  }

  async #pump(): Promise<void> {
    const link = this.#link;
    if (!link) return;
    while (isReady(link)) {
      const items = await this.store.queue();
      const open = items.filter((i) => i.sent).length;
      const waiting = items.filter((i) => !i.sent);
      await this.#refuse(waiting);
      const next = waiting.filter((i) => this.#gate(i) === "open").slice(0, Math.max(0, window - open));
      if (next.length === 0 || !isReady(link)) return;
      const out = await this.#write(next);
      const before = link.ledger?.id;
      const ledger = this.#snapshot(out);
      if (!ledger) return;
      this.#told(await this.store.give(next, ledger));
      // A session that was lost meanwhile has its step waiting, which takes these back.
      if (link.ledger?.id !== before) return;
      link.push(out, true);
    }
  }

  // #refuse fails what waits for a room that does not let one in.
  async #refuse(waiting: Item[]): Promise<void> {
    for (const item of waiting) {
      const gate = this.#gate(item);
      if (typeof gate !== "string") this.#told(await this.store.learn(item.with, item.id, { kind: "refused", condition: gate.condition, text: gate.text }, undefined));
    }
  }

  async #write(items: Item[]): Promise<string[]> {
    const messages = await this.store.get(items.map((i) => i.key));
    return items.map((item, n) => {
      const m = messages[n];
      switch (item.kind) {
        case "receipt":
          return stanzas.receipt(item.id, item.to, item.of);
        case "displayed":
          return stanzas.displayed(item.id, item.to, item.of);
        case "message":
          return m?.dir === "out" ? this.#of(item.with).write(m) : stanzas.placeholder(item.id);
      }
    });
  }

  async #message(stanza: Element): Promise<void> {
    const said = stanzas.read(stanza);
    const peer = stanzas.bare(said.from);
    // Of a room that nothing here knows nothing is kept: its history has it when somebody wants to see it.
    if (stanza.getAttribute("type") === "groupchat" && !this.#conversations.has(peer)) return;
    await this.#of(peer).message(stanza, said);
  }

  // #of is a conversation that may be shown nowhere, such as a stranger's.
  #of(peer: string): Conversation {
    return this.#conversations.get(peer) ?? new Contact(peer, this.#office);
  }

  #overdue(): void {
    this.#retry();
    const online = this.#phase.kind === "online";
    if (online && ![...this.#conversations.values()].some((c) => c.gate === "shut")) return;
    this.#step(async () => {
      // While there is a connection only that waits in vain which waits for a room.
      const inVain = (item: Item): boolean => !online || (!item.sent && this.#conversations.get(item.with)?.gate === "shut");
      this.#told(await this.store.overdue(this.settings.now() - this.settings.giveUp, inVain));
    });
  }

  // withdraw has the session forget a discarded message that it has not acknowledged, if nothing is on the wire now: the
  // stanza in its place counts the same. It is a step, so that it sees the queue as discard left it.
  withdraw(): void {
    this.#step(async () => {
      const link = this.#link;
      if (!link?.ledger || link.ready) return;
      const gone = new Tally((await this.store.queue()).filter((i) => i.sent && i.discard).map((i) => i.id));
      let changed = false;
      for (const n of link.ledger.unacked) {
        const id = idOf(n);
        if (!gone.take(id) || n.name === "iq") continue;
        n.name = "iq";
        n.stanza = stanzas.placeholder(id);
        changed = true;
      }
      if (changed) await this.store.keep(this.#snapshot());
    });
  }
}

// isReady keeps TypeScript from believing that what was so before an await still is.
function isReady(link: Link): boolean {
  return link.ready;
}
