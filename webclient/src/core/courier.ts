// The courier is what one tab does for all: it sends what is in the queue over the link, stores what comes in, and says
// what became of each message. Its steps run one after the other, and each is one transaction of the store, in which the
// ledger of the session stands as it will when the step is done. So whichever page goes on with the session finds in the
// store what the server knows, or less, never more:
//
//   - what is sent is in the stored ledger before it is on the wire;
//   - what came in is stored before the server hears that it was handled.

import type { Change, Item, Store } from "../store/store.js";
import { Chain } from "./events.js";
import { idOf, type Incoming, type Ledger, type Link, type Listener, type Numbered, type Phase } from "./link.js";
import type { Received } from "./message.js";
import * as stanzas from "./stanzas.js";
import type { ChatState, Said } from "./stanzas.js";

// How much is sent and not acknowledged.
const window = 50;

// What the courier tells its tab, and that the others.
export interface Reports {
  changed(change: Change): void;
  came(message: Received): void;
  typing(peer: string, state: ChatState): void;
  present(peer: string, available: boolean, status: string): void;
  phase(phase: Phase): void;
  me(address: string): void;
  failed(err: unknown): void;
}

export interface Settings {
  giveUp: number; // ms without a connection after which a message fails
  contacts: () => Iterable<string>; // whose presence is asked for and given
  now: () => number;
  id: () => string;
}

export class Courier implements Listener {
  readonly #chain: Chain;
  #link: Link | undefined;
  #session = ""; // the id of the ledger that the steps so far were of; the link may be a session ahead
  #unsettled: Numbered[] = []; // acknowledged, and the step that says so has not run yet
  #handled = 0; // stanzas of it that are safe here
  #phase: Phase = { kind: "off" };
  #tick: ReturnType<typeof setInterval> | undefined;
  #closed = false;
  readonly #resources = new Map<string, Map<string, string>>(); // of contacts: available resources with what they show

  constructor(
    private readonly store: Store,
    private readonly reports: Reports,
    private readonly settings: Settings,
  ) {
    this.#chain = new Chain((err) => {
      if (!this.#closed) reports.failed(err);
    });
  }

  async start(link: Link): Promise<void> {
    const ledger = await this.store.lead();
    // The server tells of changes only, so what is known of the contacts goes on with the session.
    for (const [from, show] of ledger ? await this.store.presences() : []) this.#resource(from, show);
    if (this.#closed) return;
    this.#link = link;
    this.#session = ledger?.id ?? "";
    this.#handled = ledger?.hIn ?? 0;
    this.#tick = setInterval(() => this.#overdue(), 1000);
    link.start(ledger);
  }

  get stored(): number {
    return this.#handled;
  }

  get phaseNow(): Phase {
    return this.#phase;
  }

  // stop lets another tab go on; end says good-bye to the server first.
  async stop(end = false): Promise<void> {
    this.#closed = true;
    clearInterval(this.#tick);
    await this.#chain.idle;
    if (end) {
      this.#link?.handled(this.#handled);
      this.#link?.end();
      const changes = await this.store.restart(new Set(), null);
      for (const c of changes) this.reports.changed(c);
    } else this.#link?.stop();
  }

  // wake has the queue looked at: something is new in it.
  wake(): void {
    this.#step(() => this.#pump());
  }

  hurry(): void {
    this.#link?.hurry();
  }

  typing(peer: string, state: ChatState): void {
    this.#step(() => {
      if (this.#link?.ready) this.#link.push([stanzas.chatState(peer, state)], false);
    });
  }

  // greet asks a contact for its presence, and sees to what it knows of ours.
  greet(peer: string): void {
    this.#step(() => {
      if (this.#link?.ready) this.#link.push([stanzas.subscription("subscribed", peer), stanzas.subscription("subscribe", peer)], false);
    });
  }

  present(peer: string): { available: boolean; status: string } {
    const resources = this.#resources.get(peer);
    if (!resources?.size) return { available: false, status: "" };
    const shows = [...resources.values()];
    return { available: true, status: shows.includes("") || shows.includes("chat") ? "" : (shows[0] ?? "") };
  }

  // Listener.

  phase(phase: Phase): void {
    this.#phase = phase;
    this.reports.phase(phase);
  }

  ready(resumed: boolean): void {
    this.#step(async () => {
      const link = this.#link;
      const ledger = link?.ledger;
      if (!link || !ledger) return;
      this.reports.me(ledger.boundJid);
      if (!resumed) {
        this.#session = ledger.id;
        this.#handled = 0;
        this.#resources.clear();
        this.#told(await this.store.restart(new Set(), this.#snapshot()));
        if (link.ready) link.push([stanzas.presence()], false);
        for (const peer of this.settings.contacts()) {
          this.reports.present(peer, false, "");
          if (link.ready) link.push([stanzas.subscription("subscribed", peer), stanzas.subscription("subscribe", peer)], false);
        }
      } else {
        for (const peer of this.settings.contacts()) this.#tellPresence(peer);
      }
      await this.#pump();
    });
  }

  lost(acked: string[]): void {
    this.#step(async () => {
      this.#told(await this.store.restart(new Set(acked), null));
    });
  }

  acknowledged(stanzas: Numbered[]): void {
    this.#unsettled.push(...stanzas);
    this.#step(async () => {
      const ids = this.#unsettled.splice(0, stanzas.length).map(idOf);
      this.#told(await this.store.settle(new Set(ids), this.#snapshot()));
      await this.#pump();
    });
  }

  asked(): void {
    this.#step(() => this.#link?.handled(this.#handled));
  }

  stanza({ stanza, session, h }: Incoming): void {
    this.#step(async () => {
      if (session === this.#session) this.#handled = Math.max(this.#handled, h);
      switch (stanza.localName) {
        case "message":
          return await this.#message(stanzas.read(stanza));
        case "presence":
          return await this.#presence(stanza);
        case "iq": {
          const answer = stanzas.answer(stanza);
          if (answer !== undefined) this.#link?.push([answer], false);
        }
      }
    });
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
    if (!ledger?.id || ledger.id !== this.#session) return undefined;
    const now = this.settings.now();
    return {
      ...ledger,
      hIn: this.#handled,
      // What nothing says of the messages yet is not acknowledged yet.
      hOutAcked: (ledger.hOutAcked - this.#unsettled.length) >>> 0,
      unacked: [...this.#unsettled, ...ledger.unacked, ...more.map((stanza) => ({ name: "message", stanza, queuedAt: now }))],
    };
  }

  async #pump(): Promise<void> {
    const link = this.#link;
    if (!link) return;
    while (isReady(link)) {
      const items = await this.store.queue();
      const open = items.filter((i) => i.sent).length;
      const next = items.filter((i) => !i.sent).slice(0, Math.max(0, window - open));
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

  async #write(items: Item[]): Promise<string[]> {
    const messages = await this.store.get(items.map((i) => i.key));
    const now = this.settings.now();
    return items.map((item, n) => {
      const m = messages[n];
      switch (item.kind) {
        case "receipt":
          return stanzas.receipt(item.id, item.to, item.of);
        case "displayed":
          return stanzas.displayed(item.id, item.to, item.of);
        case "message":
          return m ? stanzas.chat(m, now) : stanzas.placeholder(item.id);
      }
    });
  }

  async #message(said: Said): Promise<void> {
    const peer = stanzas.bare(said.from);
    const { store, settings } = this;
    if (said.error) {
      this.#told(await store.learn(peer, said.id, { kind: "refused", ...said.error }, this.#snapshot()));
      return;
    }
    if (said.received !== undefined) this.#told(await store.learn(peer, said.received, { kind: "received" }, this.#snapshot()));
    if (said.displayed !== undefined) this.#told(await store.learn(peer, said.displayed, { kind: "displayed" }, this.#snapshot()));
    if (said.body !== undefined) {
      const m: Omit<Received, "key"> = {
        id: said.id === "" ? settings.id() : said.id,
        with: peer,
        from: said.from,
        dir: "in",
        body: said.body,
        at: Math.min(said.at ?? settings.now(), settings.now()),
        seen: false,
        markable: said.markable && said.id !== "",
      };
      const taken = await store.take(m, said.wantsReceipt && said.id !== "" ? settings.id() : undefined, this.#snapshot());
      if (taken) this.reports.came(taken);
      if (said.wantsReceipt) await this.#pump();
    }
    if (said.state !== undefined && said.at === undefined) this.reports.typing(peer, said.state);
  }

  async #presence(stanza: Element): Promise<void> {
    const from = stanza.getAttribute("from") ?? "";
    const peer = stanzas.bare(from);
    const type = stanza.getAttribute("type");
    if (![...this.settings.contacts()].includes(peer)) return;
    if (type === "subscribe") {
      // The page named this contact, so its wish is granted; nobody else's is answered.
      if (this.#link?.ready) this.#link.push([stanzas.subscription("subscribed", peer)], false);
      return;
    }
    if (type !== null && type !== "unavailable") return;
    this.#resource(from, type === null ? (stanzas.child(stanza, "show")?.textContent ?? "") : undefined);
    const all = [...this.#resources.values()].flatMap((resources) => [...resources]);
    await this.store.keepPresences(all, this.#snapshot());
    this.#tellPresence(peer);
  }

  // #resource notes what a resource of a contact shows, undefined when it is gone.
  #resource(from: string, show: string | undefined): void {
    const peer = stanzas.bare(from);
    const resources = this.#resources.get(peer) ?? new Map<string, string>();
    if (show === undefined) resources.delete(from);
    else if (resources.size < 20) resources.set(from, show);
    this.#resources.set(peer, resources);
  }

  #tellPresence(peer: string): void {
    const { available, status } = this.present(peer);
    this.reports.present(peer, available, status);
  }

  #overdue(): void {
    if (this.#phase.kind === "online") return;
    this.#step(async () => {
      this.#told(await this.store.overdue(this.settings.now() - this.settings.giveUp));
    });
  }

  // withdraw has the session forget a discarded message that it has not acknowledged, if nothing is on the wire now: the
  // stanza in its place counts the same. It is a step, so that it sees the queue as discard left it.
  withdraw(): void {
    this.#step(async () => {
      const link = this.#link;
      if (!link?.ledger || link.ready) return;
      const gone = new Set((await this.store.queue()).filter((i) => i.sent && i.discard).map((i) => i.id));
      let changed = false;
      for (const n of link.ledger.unacked) {
        const id = idOf(n);
        if (!gone.has(id) || n.name === "iq") continue;
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
