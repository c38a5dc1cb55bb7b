// A client is one account's conversation with a contact or in a room, as an element shows it. Whether its own tab has the
// connection or another one makes no difference to who uses it.

import type { Place, Scene } from "./core/conversation.js";
import { Courier, type Reports } from "./core/courier.js";
import { Events } from "./core/events.js";
import type { Phase } from "./core/link.js";
import type { Message, Received, Sent } from "./core/message.js";
import { bare, type ChatState } from "./core/stanzas.js";
import { bytes, cut, mostBytes, sendable } from "./core/text.js";
import { Deposed, Store, type Change } from "./store/store.js";
import { Tabs } from "./tabs/tabs.js";
import { guestName, storeName } from "./guest-address.js";
import { newSecret } from "./core/secret.js";
import { StropheLink, type Login } from "./transport/strophe-link.js";

export type Account = { kind: "guest"; profile: string } | { kind: "password"; user: string; password: string } | { kind: "token"; user: string; token: string };

// Who the conversation is with: a contact, or a room with the nick that is wanted there, "" for one of the account's.
export type Wanted = { contact: string } | { room: string; nick: string; guestNick: (id: string) => string };

export interface Options {
  websocket: string;
  bosh: string;
  domain: string;
  with: Wanted;
  account: Account;
  giveUp: number; // ms without a connection after which a message fails
}

export type News =
  | { kind: "messages"; keys: number[] } // are new or not what they were; those that are gone too
  | { kind: "came"; message: Received }
  | { kind: "typing"; state: ChatState }
  | { kind: "presence"; available: boolean; status: string }
  | { kind: "room"; scene: Scene }
  | { kind: "phase"; phase: Phase }
  | { kind: "me"; address: string }
  | { kind: "error"; error: unknown };

// What tabs tell each other: the one that leads the first group, the others the second.
type Word =
  | { say: "changed"; change: Change }
  | { say: "came"; message: Received }
  | { say: "typing"; peer: string; state: ChatState }
  | { say: "presence"; peer: string; available: boolean; status: string }
  | { say: "room"; peer: string; scene: Scene }
  | { say: "phase"; phase: Phase }
  | { say: "me"; address: string }
  | { say: "hello"; peer: string; nick?: string } // with a nick: a room
  | { say: "wake" }
  | { say: "withdraw" }
  | { say: "hurry"; peer: string }
  | { say: "type"; peer: string; state: ChatState };

// Why a text was not taken.
export class Refused extends Error {
  constructor(readonly why: "empty" | "long" | "full") {
    super(`the message was not taken: ${why}`);
  }
}

const shown = 500; // messages of the history that are loaded
const mostNick = 60; // characters
const mostPlaces = 100; // that one connection serves

export class Client {
  readonly news = new Events<News>();
  address = ""; // the full address, once it is known
  phase: Phase = { kind: "off" };

  #opened: Promise<Message[]> | undefined;
  #store: Store | undefined;
  #tabs: Tabs<Word> | undefined;
  #courier: Courier | undefined;
  #closed = false;
  readonly #places = new Map<string, Place>(); // that this tab and others show
  readonly peer: string; // bare address
  #nick: string | undefined; // the wanted one, in a room

  constructor(private readonly options: Options) {
    const { with: wanted } = options;
    this.peer = bare("room" in wanted ? wanted.room : wanted.contact).toLowerCase();
  }

  // open resolves with the history when the store is there; the connection comes in its own time.
  open(): Promise<Message[]> {
    return (this.#opened ??= this.#open());
  }

  async #open(): Promise<Message[]> {
    if (!("locks" in navigator) || typeof indexedDB === "undefined") throw new Error("this page has no secure context (https)");
    const { account, domain } = this.options;
    const name = account.kind === "guest" ? storeName(account.profile, domain) : `holdfast user ${account.user}@${domain}`;
    const store = await Store.open(name, () => this.#tell({ kind: "error", error: new Error("the storage of this site was cleared or is in use by a newer version") }));
    this.#store = store;
    if (this.#closed) {
      store.close();
      return [];
    }
    if ("room" in this.options.with) this.#nick = await this.#ownNick(store, this.options.with);
    this.#places.set(this.peer, this.#place(this.peer, this.#nick));
    await store.show(this.peer);
    const history = await store.messages(this.peer, shown);
    this.#tabs = new Tabs<Word>(
      name,
      { start: () => this.#lead(store) },
      (word) => this.#heard(word),
      (error) => this.#tell({ kind: "error", error }),
    );
    this.#hello();
    return history;
  }

  #place(address: string, nick: string | undefined): Place {
    return nick === undefined ? { kind: "contact", address } : { kind: "room", address, nick };
  }

  // #ownNick is what somebody is called in a room who wants no other name. A guest keeps it.
  async #ownNick(store: Store, wanted: { nick: string; guestNick: (id: string) => string }): Promise<string> {
    const { account } = this.options;
    const nick = cut(sendable(wanted.nick), mostNick);
    if (nick !== "") return nick;
    if (account.kind !== "guest") return account.user;
    const name = await guestName(await store.meta("secret", newSecret));
    return await store.meta("nick", () => wanted.guestNick(name.slice(-4)));
  }

  #hello(): void {
    this.#tabs?.tell({ say: "hello", peer: this.peer, ...(this.#nick === undefined ? {} : { nick: this.#nick }) });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#tabs?.close();
    this.#store?.close();
  }

  // logout ends the session of all tabs with the server, if this one has the connection.
  async logout(): Promise<void> {
    try {
      await this.#courier?.stop(true);
    } finally {
      await this.close(); // so that no other tab believes that this one has the connection
    }
  }

  // send puts a text into the queue, once it is open. It is safe there when this resolves.
  async send(text: string): Promise<Sent> {
    const body = sendable(text).trim();
    if (body === "") throw new Refused("empty");
    if (bytes(body) > mostBytes) throw new Refused("long");
    const store = await this.#need();
    const message = await store.write(this.peer, crypto.randomUUID(), body, Date.now(), this.#nick !== undefined);
    if (!message) throw new Refused("full");
    this.#changed({ with: this.peer, keys: [message.key] });
    this.#wake();
    return message;
  }

  async resend(key: number): Promise<void> {
    const store = await this.#need();
    const change = await store.again(key, Date.now());
    if (!change) return;
    this.#changed(change);
    this.#wake();
  }

  // discard takes a failed message away. It resolves with true when nothing of it can have gone out.
  async discard(key: number): Promise<boolean> {
    const store = await this.#need();
    const gone = await store.discard(key);
    if (!gone) return true;
    this.#changed(gone.change);
    if (!gone.item?.sent) return true;
    if (this.#courier) this.#courier.withdraw();
    else this.#tabs?.ask({ say: "withdraw" });
    return false;
  }

  // seen says that the user has seen what came in up to a message.
  async seen(upTo: number): Promise<void> {
    const store = await this.#need();
    const change = await store.see(this.peer, upTo, crypto.randomUUID());
    if (change.keys.length === 0) return;
    this.#changed(change);
    this.#wake();
  }

  typing(state: ChatState): void {
    if (this.#courier) this.#courier.typing(this.peer, state);
    else this.#tabs?.tell({ say: "type", peer: this.peer, state });
  }

  // hurry tries to connect now, or to come into the room.
  hurry(): void {
    if (this.#courier) this.#courier.hurry(this.peer);
    else this.#tabs?.ask({ say: "hurry", peer: this.peer });
  }

  async messages(keys: number[]): Promise<(Message | undefined)[]> {
    const store = await this.#need();
    return store.get(keys);
  }

  // #need is the store, which is there a moment after open was called.
  async #need(): Promise<Store> {
    await this.#opened;
    if (!this.#store) throw new Error("the client is not open");
    return this.#store;
  }

  #wake(): void {
    if (this.#courier) this.#courier.wake();
    else this.#tabs?.ask({ say: "wake" });
  }

  #tell(news: News): void {
    if (!this.#closed) this.news.emit(news);
  }

  // #changed tells this tab and the others.
  #changed(change: Change): void {
    this.#say({ say: "changed", change });
  }

  #say(word: Word): void {
    this.#tabs?.tell(word);
    this.#heard(word);
  }

  // #lead has the connection until another tab does.
  async #lead(store: Store): Promise<() => Promise<void>> {
    const { account, websocket, bosh, domain, giveUp } = this.options;
    const login: Login = account.kind === "guest" ? { kind: "guest", secret: await store.meta("secret", newSecret) } : account;
    const reports: Reports = {
      changed: (change) => this.#say({ say: "changed", change }),
      came: (message) => this.#say({ say: "came", message }),
      typing: (peer, state) => this.#say({ say: "typing", peer, state }),
      present: (peer, available, status) => this.#say({ say: "presence", peer, available, status }),
      room: (peer, scene) => this.#say({ say: "room", peer, scene }),
      phase: (phase) => this.#say({ say: "phase", phase }),
      me: (address) => this.#say({ say: "me", address }),
      // A tab that was frozen finds that another one has taken over; it is told to stop anyway.
      failed: (error) => error instanceof Deposed || this.#tell({ kind: "error", error }),
    };
    const courier = new Courier(store, reports, { giveUp, places: () => this.#places.values(), now: () => Date.now(), id: () => crypto.randomUUID() });
    this.#courier = courier;
    await courier.start(new StropheLink({ websocket, bosh, domain, login }, courier));
    this.#tabs?.tell({ say: "hello", peer: "" }); // so that the others say whom they show
    return async () => {
      if (this.#courier === courier) this.#courier = undefined;
      await courier.stop();
      if (!this.#closed) await this.#follow(store).catch((error: unknown) => this.#tell({ kind: "error", error }));
    };
  }

  // #follow catches up with a tab that has taken the connection from this one, which was frozen meanwhile.
  async #follow(store: Store): Promise<void> {
    this.#hello();
    this.#tabs?.ask({ say: "wake" }); // what was written here meanwhile could not be sent
    const all = await store.messages(this.peer, shown);
    this.#tell({ kind: "messages", keys: all.map((m) => m.key) });
  }

  #heard(word: Word): void {
    switch (word.say) {
      case "changed":
        if (word.change.with === this.peer) this.#tell({ kind: "messages", keys: word.change.keys });
        return;
      case "came":
        if (word.message.with === this.peer) this.#tell({ kind: "came", message: word.message });
        return;
      case "typing":
        if (word.peer === this.peer) this.#tell({ kind: "typing", state: word.state });
        return;
      case "presence":
        if (word.peer === this.peer) this.#tell({ kind: "presence", available: word.available, status: word.status });
        return;
      case "room":
        if (word.peer === this.peer) this.#tell({ kind: "room", scene: word.scene });
        return;
      case "phase":
        this.phase = word.phase;
        return this.#tell({ kind: "phase", phase: word.phase });
      case "me":
        this.address = word.address;
        return this.#tell({ kind: "me", address: word.address });
      case "hello":
        return this.#met(word.peer, word.nick);
      case "wake":
        return this.#courier?.wake();
      case "withdraw":
        return this.#courier?.withdraw();
      case "hurry":
        return this.#courier?.hurry(word.peer);
      case "type":
        return this.#courier?.typing(word.peer, word.state);
    }
  }

  // #met answers a tab that has come, or the one that has begun to lead.
  #met(peer: string, nick: string | undefined): void {
    if (peer === "") return this.#hello();
    if (!this.#courier) return;
    if (!this.#places.has(peer) && this.#places.size < mostPlaces) {
      const place = this.#place(peer, nick);
      this.#places.set(peer, place);
      this.#courier.greet(place);
    }
    this.#tabs?.tell({ say: "phase", phase: this.#courier.phaseNow });
    if (this.address !== "") this.#tabs?.tell({ say: "me", address: this.address });
    this.#courier.report(peer);
  }
}
