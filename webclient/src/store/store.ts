// What this device keeps of an account, for all tabs: the messages, what is to be sent, and the session that it is sent
// in. A change of any of them that depends on another is one transaction, so a page that ends at any moment leaves
// nothing half done.

import { advance, final, impliesRead, type Fact, type Message, type Received, type Sent } from "../core/message.js";
import type { Ledger } from "../core/link.js";
import { open, request, transact } from "./db.js";

// Item is something to send that must not be lost, in order.
export interface Item {
  seq: number;
  id: string; // of the stanza
  kind: "message" | "receipt" | "displayed";
  with: string;
  to: string;
  of: string; // for receipts and markers the id they name
  key: number; // of the message
  sent: boolean; // given to the session that the ledger is of
  room?: true; // with is a room
  discard?: boolean; // not to be sent again, nor heard of: the user's wish, or it came back; only with sent
}

// Note is something that the server told in the session and will not tell again in it: who is there.
export interface Note {
  peer: string; // whom it is about
  name: string; // of the one thing among what is known of the peer
  value: unknown;
}

// Tally takes ids out one by one: a message that came back and was sent again has its id in a session twice.
export class Tally {
  readonly #left: string[];

  constructor(ids: Iterable<string>) {
    this.#left = [...ids];
  }

  take(id: string): boolean {
    const at = this.#left.indexOf(id);
    if (at >= 0) this.#left.splice(at, 1);
    return at >= 0;
  }
}

// Change says which messages are not what they were.
export interface Change {
  with: string;
  keys: number[];
}

// A conversation is cut to this many messages, oldest first.
export const mostKept = 2000;
// mostWaiting bounds what can be written while nothing can be sent.
export const mostWaiting = 1000;

// Deposed is why a tab that sent can write nothing more: another one sends now.
export class Deposed extends Error {
  constructor() {
    super("another tab has taken over");
  }
}

export class Store {
  #leader = ""; // as which this tab sends

  private constructor(private readonly db: IDBDatabase) {}

  static async open(name: string, onLost: () => void): Promise<Store> {
    return new Store(await open(name, onLost));
  }

  close(): void {
    this.db.close();
  }

  // The writing tab, whichever it is.

  // write puts a message into the queue; undefined when the queue is full.
  write(to: string, id: string, body: string, now: number, room = false): Promise<Sent | undefined> {
    return transact(this.db, "readwrite", async (tx) => {
      if ((await request(tx.objectStore("queue").count())) >= mostWaiting) return undefined;
      const message: Omit<Sent, "key"> = { id, with: to, dir: "out", body, at: now, since: now, state: "queued", ...(room ? { room } : {}) };
      const key = (await request(tx.objectStore("messages").add(message))) as number;
      await this.#enqueueMessage(tx, { ...message, key });
      await this.#trim(tx, to);
      return { ...message, key };
    });
  }

  // again sends a failed message another time, as the same message.
  again(key: number, now: number): Promise<Change | undefined> {
    return transact(this.db, "readwrite", async (tx) => {
      const m = await this.#sent(tx, key);
      if (m?.state !== "failed") return undefined;
      m.state = advance(m.state, { kind: "again" });
      m.since = now;
      delete m.reason;
      delete m.recalled;
      const item = (await this.#items(tx)).find((i) => i.key === key && i.kind === "message" && !i.discard);
      if (item) m.state = item.sent ? "sending" : "queued";
      else await this.#enqueueMessage(tx, m);
      await request(tx.objectStore("messages").put(m));
      return { with: m.with, keys: [key] };
    });
  }

  // discard takes a failed message away. Whether something of it may have gone out already is for the caller to know from
  // what it returns.
  discard(key: number): Promise<{ change: Change; item?: Item } | undefined> {
    return transact(this.db, "readwrite", async (tx) => {
      const m = await this.#sent(tx, key);
      if (m?.state !== "failed") return undefined;
      await request(tx.objectStore("messages").delete(key));
      const change = { with: m.with, keys: [key] };
      const item = (await this.#items(tx)).find((i) => i.key === key && i.kind === "message");
      if (!item) return { change };
      if (item.sent) await request(tx.objectStore("queue").put({ ...item, discard: true }));
      else await request(tx.objectStore("queue").delete(item.seq));
      return { change, item };
    });
  }

  // see marks what came in up to a message as seen, and has the marker for the last of it sent (XEP-0333 §4).
  see(peer: string, upTo: number, id: string): Promise<Change> {
    return transact(this.db, "readwrite", async (tx) => {
      const keys: number[] = [];
      let last: Received | undefined;
      for (const m of await this.#conversation(tx, peer, IDBKeyRange.bound([peer, 0], [peer, upTo]))) {
        if (m.dir !== "in" || m.seen) continue;
        m.seen = true;
        await request(tx.objectStore("messages").put(m));
        keys.push(m.key);
        if (m.markable) last = m;
      }
      if (last) await this.#enqueue(tx, { id, kind: "displayed", with: peer, to: last.from, of: last.id, key: last.key, sent: false });
      return { with: peer, keys };
    });
  }

  // show says that this device shows a conversation, so that what comes in for it will be seen.
  show(peer: string): Promise<void> {
    return transact(this.db, "readwrite", async (tx) => {
      await request(tx.objectStore("meta").put(true, `shown ${peer}`));
    });
  }

  // Reading.

  messages(peer: string, limit: number): Promise<Message[]> {
    return transact(this.db, "readonly", async (tx) => {
      const all: Message[] = [];
      await new Promise<void>((resolve, reject) => {
        const range = IDBKeyRange.bound([peer, 0], [peer, Infinity]);
        const r = tx.objectStore("messages").index("conversation").openCursor(range, "prev");
        r.onerror = () => reject(r.error ?? new Error("IndexedDB cursor failed"));
        r.onsuccess = () => {
          if (!r.result || all.length >= limit) return resolve();
          all.unshift(r.result.value as Message);
          r.result.continue();
        };
      });
      return all;
    });
  }

  get(keys: number[]): Promise<(Message | undefined)[]> {
    return transact(this.db, "readonly", async (tx) => {
      const all: (Message | undefined)[] = [];
      for (const key of keys) all.push((await request(tx.objectStore("messages").get(key))) as Message | undefined);
      return all;
    });
  }

  queue(): Promise<Item[]> {
    return transact(this.db, "readonly", (tx) => this.#items(tx));
  }

  // meta is a small thing by its name; make gives it when it is not there.
  meta<T>(name: string, make: () => T): Promise<T> {
    return transact(this.db, "readwrite", async (tx) => {
      const found = (await request(tx.objectStore("meta").get(name))) as T | undefined;
      if (found !== undefined) return found;
      const made = make();
      await request(tx.objectStore("meta").put(made, name));
      return made;
    });
  }

  // The sending tab, of which there is one at a time.

  // lead makes this the sending tab, whatever another one believes, and returns how its session stands.
  lead(): Promise<Ledger | undefined> {
    return transact(this.db, "readwrite", async (tx) => {
      const leader = crypto.randomUUID();
      await request(tx.objectStore("meta").put(leader, "leader"));
      this.#leader = leader;
      return (await request(tx.objectStore("meta").get("ledger"))) as Ledger | undefined;
    });
  }

  // notes are those of the session, a peer's together and by their names.
  notes(): Promise<Note[]> {
    return transact(this.db, "readonly", async (tx) => (await request(tx.objectStore("meta").getAll(notesOf()))) as Note[]);
  }

  // newest is when the newest message of a room that is here was said, by the room's clock.
  newest(room: string): Promise<number | undefined> {
    return transact(this.db, "readonly", async (tx) => {
      const all = tx.objectStore("messages").index("conversation");
      for (let r = all.openCursor(IDBKeyRange.bound([room, 0], [room, Infinity]), "prev"), c = await request(r); c; c.continue(), c = await request(r)) {
        const { stamp } = c.value as Message;
        if (stamp !== undefined) return stamp;
      }
      return undefined;
    });
  }

  // entered is when this device was in a room last, undefined if never.
  entered(room: string): Promise<number | undefined> {
    return transact(this.db, "readonly", async (tx) => (await request(tx.objectStore("meta").get(`entered ${room}`))) as number | undefined);
  }

  // enter notes that this device is in a room, with all that was said there before.
  enter(room: string, at: number): Promise<void> {
    return this.#led(async (tx) => {
      await request(tx.objectStore("meta").put(at, `entered ${room}`));
    });
  }

  // In what follows a ledger is how the session stands; undefined leaves it as it was, null forgets it.

  keep(ledger: Ledger | null | undefined): Promise<void> {
    return this.#led((tx) => this.#keep(tx, ledger));
  }

  // note keeps what was told of a peer, or forgets it where it is undefined; clear forgets all the rest.
  note(peer: string, notes: [string, unknown][], ledger: Ledger | null | undefined, clear = false): Promise<void> {
    return this.#led(async (tx) => {
      const meta = tx.objectStore("meta");
      if (clear) await request(meta.delete(notesOf(peer)));
      for (const [name, value] of notes) {
        if (value === undefined) await request(meta.delete(["note", peer, name]));
        else await request(meta.put({ peer, name, value } satisfies Note, ["note", peer, name]));
      }
      await this.#keep(tx, ledger);
    });
  }

  // give marks items as given to the session, whose ledger has their stanzas, before they go out.
  give(items: Item[], ledger: Ledger): Promise<Change[]> {
    return this.#led(async (tx) => {
      const changes = new Changes();
      for (const item of items) {
        await request(tx.objectStore("queue").put({ ...item, sent: true }));
        if (item.kind === "message") await this.#learn(tx, item.key, { kind: "given" }, changes);
      }
      await this.#keep(tx, ledger);
      return changes.all;
    });
  }

  // settle takes out what the server acknowledged, by the ids of the stanzas.
  settle(acked: Iterable<string>, ledger: Ledger | null | undefined): Promise<Change[]> {
    return this.#led(async (tx) => {
      const changes = new Changes();
      const tally = new Tally(acked);
      for (const item of await this.#items(tx)) {
        if (!item.sent || !tally.take(item.id)) continue;
        await request(tx.objectStore("queue").delete(item.seq));
        if (item.kind === "message" && !item.discard) await this.#learn(tx, item.key, { kind: "acknowledged" }, changes);
      }
      await this.#keep(tx, ledger);
      return changes.all;
    });
  }

  // restart ends a session: what the server had of it is acknowledged, the rest waits again, in its order.
  restart(acked: Iterable<string>, ledger: Ledger | null | undefined): Promise<Change[]> {
    return this.#led(async (tx) => {
      const changes = new Changes();
      const tally = new Tally(acked);
      await request(tx.objectStore("meta").delete(notesOf()));
      for (const item of await this.#items(tx)) {
        if (!item.sent) continue;
        const done = tally.take(item.id);
        const m = item.kind === "message" ? await this.#sent(tx, item.key) : undefined;
        if (done && m && !item.discard) await this.#learn(tx, item.key, { kind: "acknowledged" }, changes);
        if (done || item.discard || m?.state === "failed" || (item.kind === "message" && (!m || final(m)))) {
          await request(tx.objectStore("queue").delete(item.seq));
          continue;
        }
        await request(tx.objectStore("queue").put({ ...item, sent: false }));
        if (m) await this.#learn(tx, item.key, { kind: "returned" }, changes);
      }
      await this.#order(tx);
      await this.#keep(tx, ledger);
      return changes.all;
    });
  }

  // overdue gives up what has waited since before a moment, where that is in vain.
  overdue(before: number, inVain: (item: Item) => boolean = () => true): Promise<Change[]> {
    return this.#led(async (tx) => {
      const changes = new Changes();
      for (const item of await this.#items(tx)) {
        if (item.kind !== "message" || !inVain(item)) continue;
        const m = await this.#sent(tx, item.key);
        if (!m || m.since > before || final(m) || m.state === "failed") continue;
        await this.#learn(tx, item.key, { kind: "overdue" }, changes);
        // What was given to the session may be there already; the session will tell.
        if (!item.sent) await request(tx.objectStore("queue").delete(item.seq));
      }
      return changes.all;
    });
  }

  // take stores a message that came in, once, and has its receipt sent when it is one that is shown. It returns nothing for one that was there.
  take(m: Omit<Received, "key">, receiptId: string | undefined, ledger: Ledger | null | undefined): Promise<Received | undefined> {
    return this.#led(async (tx) => {
      await this.#keep(tx, ledger);
      const messages = tx.objectStore("messages");
      const shown = (await request(tx.objectStore("meta").get(`shown ${m.with}`))) === true;
      const had = (await request(messages.index("identity").get([m.with, "in", m.id]))) as Received | undefined;
      const key = had?.key ?? ((await request(messages.add(m))) as number);
      if (shown && receiptId !== undefined) {
        const owed = (await this.#items(tx)).some((i) => i.kind === "receipt" && i.key === key);
        if (!owed) await this.#enqueue(tx, { id: receiptId, kind: "receipt", with: m.with, to: m.from, of: m.id, key, sent: false });
      }
      if (had) {
        if (had.stamp === undefined && m.stamp !== undefined) await request(messages.put({ ...had, stamp: m.stamp }));
        return undefined;
      }
      await this.#trim(tx, m.with);
      return { ...m, key };
    });
  }

  // reflected notes that a room has a message of one's own. add takes one that was written on another device;
  // without it the answer is undefined for a message that is not known here.
  reflected(m: Pick<Sent, "id" | "with" | "body" | "at" | "stamp">, add: boolean, ledger: Ledger | null | undefined): Promise<Change[] | undefined> {
    return this.#led(async (tx) => {
      const changes = new Changes();
      const messages = tx.objectStore("messages");
      const had = (await request(messages.index("identity").get([m.with, "out", m.id]))) as Sent | undefined;
      if (!had && !add) return undefined;
      await this.#keep(tx, ledger);
      if (!had) {
        const other: Omit<Sent, "key"> = { ...m, dir: "out", since: m.at, state: "delivered", room: true };
        changes.add(m.with, (await request(messages.add(other))) as number);
        await this.#trim(tx, m.with);
        return changes.all;
      }
      if (m.stamp !== undefined) await request(messages.put({ ...had, stamp: m.stamp }));
      await this.#learn(tx, had.key, { kind: "received" }, changes);
      for (const item of await this.#items(tx)) {
        if (item.key === had.key && item.kind === "message" && !item.sent) await request(tx.objectStore("queue").delete(item.seq));
      }
      return changes.all;
    });
  }

  // recall sends a message that the room does not have once more, in its place before what was written after it.
  // undefined: it was sent once more already, or it need not be.
  recall(room: string, id: string, now: number, ledger: Ledger | null | undefined): Promise<Change[] | undefined> {
    return this.#led(async (tx) => {
      const m = (await request(tx.objectStore("messages").index("identity").get([room, "out", id]))) as Sent | undefined;
      if (!m || m.recalled || advance(m.state, { kind: "missing" }) !== "queued") return undefined;
      await this.#keep(tx, ledger);
      await this.#forget(tx, m.key);
      m.state = "queued";
      m.recalled = true;
      m.since = now;
      await request(tx.objectStore("messages").put(m));
      const later = (await this.#items(tx)).filter((i) => i.with === room && !i.sent && i.key > m.key);
      await this.#enqueueMessage(tx, m);
      for (const { seq, ...item } of later) {
        await request(tx.objectStore("queue").delete(seq));
        await this.#enqueue(tx, item);
      }
      return [{ with: room, keys: [m.key] }];
    });
  }

  // learn notes a fact about a message that was sent to somebody, by the id of its stanza.
  learn(peer: string, id: string, fact: Fact, ledger: Ledger | null | undefined): Promise<Change[]> {
    return this.#led(async (tx) => {
      const changes = new Changes();
      await this.#keep(tx, ledger);
      const m = (await request(tx.objectStore("messages").index("identity").get([peer, "out", id]))) as Sent | undefined;
      if (!m) return [];
      await this.#learn(tx, m.key, fact, changes);
      if (fact.kind === "refused") await this.#forget(tx, m.key);
      if (fact.kind === "displayed") {
        for (const earlier of await this.#conversation(tx, peer, IDBKeyRange.bound([peer, 0], [peer, m.key], false, true))) {
          if (earlier.dir === "out" && impliesRead(earlier.state)) await this.#learn(tx, earlier.key, fact, changes);
        }
      }
      return changes.all;
    });
  }

  // Parts of transactions.

  // #led is a transaction of the sending tab: one that was frozen and comes to itself must not write what was.
  #led<T>(f: (tx: IDBTransaction) => Promise<T>): Promise<T> {
    return transact(this.db, "readwrite", async (tx) => {
      if ((await request(tx.objectStore("meta").get("leader"))) !== this.#leader) throw new Deposed();
      return await f(tx);
    });
  }

  async #keep(tx: IDBTransaction, ledger: Ledger | null | undefined): Promise<void> {
    if (ledger === undefined) return;
    const meta = tx.objectStore("meta");
    if (ledger) await request(meta.put(ledger, "ledger"));
    else await request(meta.delete("ledger"));
  }

  async #enqueue(tx: IDBTransaction, item: Omit<Item, "seq">): Promise<void> {
    await request(tx.objectStore("queue").add(item));
  }

  async #enqueueMessage(tx: IDBTransaction, m: Sent): Promise<void> {
    const { id, with: to, key, room } = m;
    await this.#enqueue(tx, { id, kind: "message", with: to, to, of: "", key, sent: false, ...(room ? { room } : {}) });
  }

  async #items(tx: IDBTransaction): Promise<Item[]> {
    return (await request(tx.objectStore("queue").getAll())) as Item[];
  }

  // #forget takes a message that came back out of the queue, or out of what is said about it while the session still
  // counts it.
  async #forget(tx: IDBTransaction, key: number): Promise<void> {
    for (const item of await this.#items(tx)) {
      if (item.key !== key || item.kind !== "message") continue;
      if (item.sent) await request(tx.objectStore("queue").put({ ...item, discard: true }));
      else await request(tx.objectStore("queue").delete(item.seq));
    }
  }

  // #order has what waits for a room in the order in which it was written: what was recalled waits behind what was under
  // way then.
  async #order(tx: IDBTransaction): Promise<void> {
    const waiting = (await this.#items(tx)).filter((i) => i.room && !i.sent);
    const ordered = [...waiting].sort((a, b) => a.key - b.key);
    if (ordered.every((item, n) => item === waiting[n])) return;
    for (const { seq, ...item } of ordered) {
      await request(tx.objectStore("queue").delete(seq));
      await this.#enqueue(tx, item);
    }
  }

  async #sent(tx: IDBTransaction, key: number): Promise<Sent | undefined> {
    const m = (await request(tx.objectStore("messages").get(key))) as Message | undefined;
    return m?.dir === "out" ? m : undefined;
  }

  async #conversation(tx: IDBTransaction, _peer: string, range: IDBKeyRange): Promise<Message[]> {
    return (await request(tx.objectStore("messages").index("conversation").getAll(range))) as Message[];
  }

  async #learn(tx: IDBTransaction, key: number, fact: Fact, changes: Changes): Promise<void> {
    const m = await this.#sent(tx, key);
    if (!m) return;
    const state = advance(m.state, fact);
    if (state === m.state) return;
    m.state = state;
    delete m.reason;
    if (fact.kind === "overdue") m.reason = { kind: "timeout" };
    if (fact.kind === "refused") m.reason = { kind: "error", condition: fact.condition, text: fact.text };
    await request(tx.objectStore("messages").put(m));
    changes.add(m.with, key);
  }

  // #trim drops the oldest messages over the cap that nothing is expected for.
  async #trim(tx: IDBTransaction, peer: string): Promise<void> {
    const messages = tx.objectStore("messages");
    const range = IDBKeyRange.bound([peer, 0], [peer, Infinity]);
    let over = (await request(messages.index("conversation").count(range))) - mostKept;
    if (over <= 0) return;
    for (const m of (await request(messages.index("conversation").getAll(range, over + 100))) as Message[]) {
      if (over <= 0) return;
      if (!final(m)) continue;
      await request(messages.delete(m.key));
      over--;
    }
  }
}

// notesOf is the keys of the notes about a peer, or all.
function notesOf(peer?: string): IDBKeyRange {
  const prefix = peer === undefined ? ["note"] : ["note", peer];
  return IDBKeyRange.bound(prefix, [...prefix, []]);
}

class Changes {
  readonly #by = new Map<string, Set<number>>();

  add(peer: string, key: number): void {
    const keys = this.#by.get(peer) ?? new Set();
    this.#by.set(peer, keys.add(key));
  }

  get all(): Change[] {
    return [...this.#by].map(([peer, keys]) => ({ with: peer, keys: [...keys] }));
  }
}
