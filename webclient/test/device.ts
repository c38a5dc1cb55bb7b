import "fake-indexeddb/auto";
import type { Place, Scene } from "../src/core/conversation.js";
import { Courier, type Reports } from "../src/core/courier.js";
import type { Message, Received } from "../src/core/message.js";
import { Store } from "../src/store/store.js";
import { FakeLink, FakeServer } from "./fake-server.js";

let databases = 0;
let ids = 0;

export const newId = (prefix: string): string => `${prefix}${++ids}`;

// Transactions of each database: how many there were, and how many of them are not over.
const work = new Map<string, { all: number; open: number }>();

function workOf(name: string): { all: number; open: number } {
  const found = work.get(name) ?? { all: 0, open: 0 };
  work.set(name, found);
  return found;
}

// eslint-disable-next-line @typescript-eslint/unbound-method -- it is called with the database that it is of
const { transaction } = IDBDatabase.prototype;
IDBDatabase.prototype.transaction = function (...args) {
  const tx = transaction.apply(this, args);
  const its = workOf(this.name);
  its.all++;
  its.open++;
  for (const end of ["complete", "abort"]) tx.addEventListener(end, () => its.open--);
  return tx;
};

const longest = 20_000; // ms in which everything comes to rest

// A device with a page that may end at any moment and another that goes on.
export class Device {
  store!: Store;
  courier!: Courier;
  link!: FakeLink;
  readonly came: Received[] = [];
  readonly failed: unknown[] = [];
  readonly scenes: Scene[] = [];
  now = 1_000_000;

  private constructor(
    readonly name: string,
    readonly place: Place,
    readonly server: FakeServer,
    private readonly giveUp: number,
  ) {}

  static async make(place: Place, server = new FakeServer(), giveUp = 60_000): Promise<Device> {
    const d = new Device(`db${++databases}`, place, server, giveUp);
    await d.page();
    return d;
  }

  // page starts a new page, without a word to the one before.
  async page(): Promise<void> {
    this.store = await Store.open(this.name, () => undefined);
    await this.store.show(this.place.address);
    const reports: Reports = {
      changed: () => undefined,
      came: (m) => this.came.push(m),
      typing: () => undefined,
      present: () => undefined,
      room: (_, scene) => this.scenes.push(scene),
      phase: () => undefined,
      me: () => undefined,
      failed: (err) => this.failed.push(err),
    };
    this.courier = new Courier(this.store, reports, { giveUp: this.giveUp, places: () => [this.place], now: () => this.now, id: () => newId("i") });
    this.link = new FakeLink(this.server).listen(this.courier);
    await this.courier.start(this.link);
  }

  // crash ends the page between two of its steps, or in the middle of one.
  async crash(): Promise<void> {
    this.link.stop();
    void this.courier.stop();
    await this.page();
  }

  async write(text: string): Promise<number> {
    const m = await this.store.write(this.place.address, newId("m"), text, this.now, this.place.kind === "room");
    if (!m) throw new Error("full");
    this.courier.wake();
    return m.key;
  }

  // quiet waits until nothing moves any more: nothing comes from the server, and no step is in the store. It takes as many
  // turns as that needs, however slow they are, and no timer is waited for.
  async quiet(): Promise<void> {
    const its = workOf(this.name);
    const end = Date.now() + longest;
    for (let still = 0; still < 3; ) {
      if (Date.now() > end) throw new Error("it does not come to rest");
      const before = its.all;
      const came = this.link.deliver();
      do await new Promise((resolve) => setImmediate(resolve));
      while (its.open > 0 && Date.now() < end);
      still = came || its.all !== before ? 0 : still + 1;
    }
  }

  all(): Promise<Message[]> {
    return this.store.messages(this.place.address, 1000);
  }

  async states(): Promise<string[]> {
    return (await this.all()).flatMap((m) => (m.dir === "out" ? [m.state] : []));
  }

  get scene(): Scene | undefined {
    return this.scenes.at(-1);
  }
}

// randomFrom gives numbers below a bound, the same ones for the same seed.
export function randomFrom(seed: number): (n: number) => number {
  let x = seed * 2654435761;
  return (n) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return Math.abs(x) % n;
  };
}
