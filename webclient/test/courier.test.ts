import { describe, expect, it } from "vitest";
import * as stanzas from "../src/core/stanzas.js";
import { Deposed, Store } from "../src/store/store.js";
import { Device, newId, randomFrom } from "./device.js";

const peer = "juliet@there";
const make = (): Promise<Device> => Device.make({ kind: "contact", address: peer });

const from = (inner: string, id = newId("x")): string => `<message xmlns="jabber:client" type="chat" from="${peer}/r" id="${id}">${inner}</message>`;
const incoming = (text: string, id?: string): string => from(`<body>${text}</body><request xmlns="${stanzas.ns.receipts}"/><markable xmlns="${stanzas.ns.markers}"/>`, id);

describe("courier", () => {
  it("tells where a message is: queued, sending, held, delivered, read", async () => {
    const d = await make();
    await d.quiet();
    d.link.cut();
    const key = await d.write("hello");
    await d.quiet();
    expect(await d.states()).toEqual(["queued"]);
    d.link.connect();
    d.link.lossy = true;
    await d.quiet();
    expect(await d.states()).toEqual(["sending"]);
    d.link.cut();
    d.link.connect();
    await d.quiet();
    expect(await d.states()).toEqual(["held"]);
    const [m] = await d.store.get([key]);
    d.server.send(from(`<received xmlns="${stanzas.ns.receipts}" id="${m?.id}"/>`));
    await d.quiet();
    expect(await d.states()).toEqual(["delivered"]);
    d.server.send(from(`<displayed xmlns="${stanzas.ns.markers}" id="${m?.id}"/>`));
    await d.quiet();
    expect(await d.states()).toEqual(["read"]);
    expect(d.server.got).toHaveLength(1);
    expect(d.failed).toEqual([]);
  });

  it("believes a receipt of the other side only", async () => {
    const d = await make();
    await d.write("hello");
    await d.quiet();
    const [m] = await d.store.messages(peer, 1);
    d.server.send(`<message xmlns="jabber:client" from="tybalt@there/r"><received xmlns="${stanzas.ns.receipts}" id="${m?.id}"/></message>`);
    await d.quiet();
    expect(await d.states()).toEqual(["held"]);
  });

  it("fails what comes back, says why, and sends it again when the user wants it", async () => {
    const d = await make();
    const key = await d.write("hello");
    await d.quiet();
    const [m] = await d.store.get([key]);
    d.server.send(`<message xmlns="jabber:client" type="error" from="${peer}" id="${m?.id}"><error type="auth"><forbidden xmlns="${stanzas.ns.stanzas}"/></error></message>`);
    await d.quiet();
    expect((await d.store.get([key]))[0]).toMatchObject({ state: "failed", reason: { kind: "error", condition: "forbidden" } });
    await d.store.again(key, d.now);
    d.courier.wake();
    await d.quiet();
    expect(await d.states()).toEqual(["held"]);
    expect(d.server.got).toEqual([m?.id, m?.id]);
  });

  it("stays failed when the acknowledgement comes after the error", async () => {
    const d = await make();
    await d.quiet();
    d.link.lossy = true; // so that it is not acknowledged yet
    const key = await d.write("hello");
    await d.quiet();
    const [m] = await d.store.get([key]);
    await d.store.learn(peer, m?.id ?? "", { kind: "refused", condition: "forbidden", text: "" }, undefined);
    d.link.cut();
    d.link.connect();
    await d.quiet();
    expect(await d.states()).toEqual(["failed"]);
    expect(await d.store.queue()).toEqual([]);
  });

  it("tells what came back from what was sent again, though they have one id", async () => {
    const d = await make();
    await d.quiet();
    d.link.lossy = true;
    const key = await d.write("hello");
    await d.quiet();
    const [m] = await d.store.get([key]);
    await d.store.learn(peer, m?.id ?? "", { kind: "refused", condition: "forbidden", text: "" }, undefined);
    await d.store.again(key, d.now);
    d.courier.wake();
    await d.quiet();
    const [first] = d.link.ledger?.unacked.splice(-2, 1) ?? [];
    if (!first) throw new Error("nothing was sent");
    d.courier.acknowledged([first]);
    await d.quiet();
    expect(await d.states()).toEqual(["sending"]);
  });

  it("gives up what waits too long, and what was given up does not go by itself", async () => {
    const d = await make();
    await d.quiet();
    d.link.cut();
    const key = await d.write("hello");
    d.now += 120_000;
    await expect.poll(async () => (await d.states())[0]).toBe("failed");
    d.link.connect();
    await d.quiet();
    expect(d.server.got).toEqual([]);
    await d.store.again(key, d.now);
    d.courier.wake();
    await d.quiet();
    expect(await d.states()).toEqual(["held"]);
    expect(d.server.got).toHaveLength(1);
  });

  it("does not send what the user discarded, and counts right all the same", async () => {
    const d = await make();
    await d.quiet();
    d.link.lossy = true;
    const key = await d.write("first");
    await d.write("second");
    await d.quiet();
    d.link.cut();
    await d.store.overdue(d.now + 1);
    expect(await d.states()).toEqual(["failed", "failed"]);
    expect((await d.store.discard(key))?.item?.sent).toBe(true);
    d.courier.withdraw();
    await d.quiet();
    d.link.connect();
    await d.quiet();
    expect(d.server.got).toHaveLength(1);
    expect(await d.states()).toEqual(["held"]);
    await d.write("third");
    await d.quiet();
    expect(await d.states()).toEqual(["held", "held"]);
    expect(await d.store.queue()).toEqual([]);
  });

  it("takes a message once, and receipts it each time", async () => {
    const d = await make();
    await d.quiet();
    d.server.send(incoming("hello", "a"));
    d.server.send(incoming("hello", "a"));
    await d.quiet();
    d.server.send(incoming("hello", "a"));
    await d.quiet();
    expect(d.came.map((m) => m.body)).toEqual(["hello"]);
    expect(await d.store.messages(peer, 10)).toHaveLength(1);
    expect(d.server.all.filter((id) => id.startsWith("i")).length).toBeGreaterThan(1);
  });

  it("sends no receipt for what this device does not show", async () => {
    const d = await make();
    await d.quiet();
    const before = d.server.all.length;
    d.server.send(incoming("psst").replace(peer, "stranger@there"));
    await d.quiet();
    expect(d.server.all.length).toBe(before);
    expect(await d.store.messages("stranger@there", 10)).toHaveLength(1);
  });

  it("marks what was seen, once, with the last that asked for it", async () => {
    const d = await make();
    await d.quiet();
    for (const text of ["a", "b", "c"]) d.server.send(incoming(text));
    await d.quiet();
    const all = await d.store.messages(peer, 10);
    const last = all.at(-1);
    if (!last) throw new Error("nothing came");
    expect((await d.store.see(peer, last.key, newId("i"))).keys).toHaveLength(3);
    expect((await d.store.see(peer, last.key, newId("i"))).keys).toHaveLength(0);
    expect((await d.store.queue()).filter((i) => i.kind === "displayed").map((i) => i.of)).toEqual([last.id]);
  });

  it("writes nothing more when another tab has taken over", async () => {
    const d = await make();
    await d.quiet();
    const { store, link } = d;
    await d.page(); // while the other one is frozen
    await d.quiet();
    await d.write("hello");
    await d.quiet();
    const now = await d.store.lead();
    link.deliver();
    await expect(store.settle(new Set(), null)).rejects.toBeInstanceOf(Deposed);
    expect(await d.store.lead()).toEqual(now);
    expect(await d.states()).toEqual(["held"]);
    expect(d.server.got).toHaveLength(1);
  });

  const acked = (d: Device): number[] => [...d.server.sessions.values()].map((s) => s.acked);

  // noRoom has the store refuse a step, so many times or until the function that it returns is called.
  const noRoom = (store: Store, step: "take" | "learn" | "keep" | "give" | "settle" | "restart", times = Infinity): (() => void) => {
    const usual = store[step].bind(store);
    const restore = (): unknown => Object.assign(store, { [step]: usual });
    Object.assign(store, {
      [step]: () => {
        if (--times <= 0) restore();
        return Promise.reject(new Error("no room"));
      },
    });
    return restore;
  };

  for (const failing of ["take", "learn", "keep"] as const) {
    it(`does not acknowledge what it could not store, and has it come again (${failing})`, async () => {
      const d = await make();
      await d.write("hello");
      await d.quiet();
      const before = acked(d);
      const id = (await d.all())[0]?.id ?? "";
      const room = noRoom(d.store, failing);
      d.server.send(failing === "learn" ? from(`<received xmlns="${stanzas.ns.receipts}" id="${id}"/>`) : incoming("one"));
      d.server.send(incoming("two"));
      await d.quiet();
      expect(acked(d)).toEqual(before);
      expect(d.failed.length).toBeGreaterThan(0);
      expect(d.link.drops).toBe(failing === "keep" ? 0 : 1);
      room();
      d.link.connect();
      await d.quiet();
      expect(d.came.map((m) => m.body)).toEqual(failing === "learn" ? ["two"] : ["one", "two"]);
      expect(await d.states()).toEqual([failing === "learn" ? "delivered" : "held"]);
      expect(acked(d)).not.toEqual(before);
    });
  }

  for (const then of ["goes on", "ends"]) {
    it(`notes an acknowledgement that it could not store, when the page ${then}`, async () => {
      const d = await make();
      await d.quiet();
      const room = noRoom(d.store, "settle");
      await d.write("one");
      await d.write("two");
      await d.quiet();
      expect(await d.states()).toEqual(["sending", "sending"]);
      expect(d.failed).toHaveLength(1); // and not again for each try
      await d.write("three"); // with it the session is stored as it is now
      await expect.poll(() => d.server.got).toHaveLength(3);
      if (then === "ends") await d.crash();
      else room();
      await d.quiet();
      await expect.poll(async () => await d.states()).toEqual(["held", "held", "held"]);
      expect(await d.states()).toEqual(["held", "held", "held"]);
      expect(d.server.got).toHaveLength(3);
      expect(await d.store.queue()).toEqual([]);
    });
  }

  for (const times of [1, 2, 3]) {
    it(`does not send again what was acknowledged and could not be stored before the session was lost (${times})`, async () => {
      const d = await make();
      await d.quiet();
      const room = noRoom(d.store, "settle");
      await d.write("one");
      await d.quiet();
      await d.write("two"); // handled, and not acknowledged
      await expect.poll(() => d.server.got).toHaveLength(2);
      expect(await d.states()).toEqual(["sending", "sending"]);
      d.link.cut();
      d.server.forget(true);
      noRoom(d.store, "restart", times); // once for the session that is over, then for the one that begins
      d.link.connect();
      room();
      await expect.poll(async () => await d.states()).toEqual(["held", "held"]);
      await d.write("three");
      await d.quiet();
      expect(await d.states()).toEqual(["held", "held", "held"]);
      expect(d.server.got).toEqual((await d.all()).map((m) => m.id));
      expect(await d.store.queue()).toEqual([]);
    });
  }

  const presences = (d: Device): number => d.server.stanzas.filter((s) => s === stanzas.presence()).length;

  it("says who is there once in each session, though the store refused its beginning", async () => {
    const d = await make();
    await d.quiet();
    expect(presences(d)).toBe(1);
    d.link.cut();
    d.server.forget(true);
    noRoom(d.store, "restart", 3); // the end, the beginning, and the end once more
    d.link.connect();
    await d.quiet();
    d.server.send(incoming("meanwhile"));
    await d.quiet();
    expect([presences(d), d.came.length]).toEqual([1, 1]);
    await expect.poll(() => presences(d)).toBe(2);
    await d.write("hello");
    await d.crash();
    await d.quiet();
    expect([presences(d), d.came.length]).toEqual([2, 1]);
    expect(await d.states()).toEqual(["held"]);
  });

  it("says who is there when the connection breaks before it is said", async () => {
    for (const then of ["resumes", "ends"]) {
      const d = await make();
      await d.quiet();
      d.link.cut();
      d.server.forget(true);
      const usual = d.store.restart.bind(d.store);
      let times = 0;
      d.store.restart = async (acked, ledger) => {
        if (++times === 2) d.link.cut(); // at the beginning
        return await usual(acked, ledger);
      };
      d.link.connect();
      await d.quiet();
      expect([times, presences(d)]).toEqual([2, 1]);
      if (then === "ends") await d.crash();
      else d.link.connect();
      await d.quiet();
      expect(presences(d)).toBe(2);
      expect(d.server.sessions.size).toBe(1);
    }
  });

  it("counts nothing behind what could not be stored, though the beginning is tried again in between", async () => {
    const d = await make();
    await d.quiet();
    d.link.cut();
    d.server.forget(true);
    noRoom(d.store, "restart", 2);
    d.link.connect();
    await d.quiet();
    let refuse: (err: Error) => void = () => undefined;
    const usual = d.store.take.bind(d.store);
    d.store.take = () => new Promise((_, reject) => (refuse = reject));
    d.server.send(incoming("one"));
    d.link.deliver();
    await new Promise((resolve) => setTimeout(resolve, 1200)); // until it is to be tried again
    d.server.send(from(`<composing xmlns="${stanzas.ns.states}"/>`));
    d.link.deliver();
    d.store.take = usual;
    refuse(new Error("no room"));
    await d.quiet();
    d.link.connect();
    await d.quiet();
    expect(d.came.map((m) => m.body)).toEqual(["one"]);
    await expect.poll(() => presences(d)).toBe(2);
  });

  it("sends what was written while nothing could be stored", async () => {
    const d = await make();
    await d.quiet();
    const room = noRoom(d.store, "give");
    await d.write("hello");
    await d.quiet();
    expect(await d.states()).toEqual(["queued"]);
    room();
    await expect.poll(() => d.server.got).toHaveLength(1);
    await d.quiet();
    expect(await d.states()).toEqual(["held"]);
  });

  it("knows what was acknowledged when the user leaves", async () => {
    const d = await make();
    await d.quiet();
    const room = noRoom(d.store, "settle");
    await d.write("hello");
    await d.quiet();
    expect(await d.states()).toEqual(["sending"]);
    void d.courier.stop(true);
    room();
    await d.quiet();
    expect(await d.states()).toEqual(["held"]);
    d.server.forget(false);
    await d.page();
    await d.quiet();
    expect(d.server.got).toHaveLength(1);
  });

  it("leaves what comes after another tab took over to that one", async () => {
    const d = await make();
    await d.quiet();
    const before = acked(d);
    const other = await Store.open(d.name, () => undefined);
    await other.lead();
    d.server.send(incoming("one"));
    await d.quiet();
    expect([acked(d), d.link.drops]).toEqual([before, 0]);
    d.link.stop();
    await d.page();
    await d.quiet();
    expect(d.came.map((m) => m.body)).toEqual(["one"]);
  });

  it("acknowledges in a session nothing of the one before", async () => {
    const d = await make();
    for (const text of ["one", "two"]) d.server.send(incoming(text));
    await d.quiet();
    let go: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (go = resolve));
    const usual = d.store.take.bind(d.store);
    d.store.take = async (...all) => {
      await held;
      return await usual(...all);
    };
    d.server.send(incoming("three"));
    d.link.deliver();
    d.link.cut();
    d.server.forget(true);
    const told: number[] = [];
    d.link.handled = (h) => void told.push(h);
    d.link.connect();
    go();
    await d.quiet();
    expect(d.came.map((m) => m.body)).toEqual(["one", "two", "three"]);
    expect(new Set(told)).toEqual(new Set([0]));
  });

  it("resumes a session with nothing of the one before", async () => {
    const d = await make();
    for (const text of ["one", "two"]) d.server.send(incoming(text));
    await d.quiet();
    d.link.cut();
    d.server.forget(true);
    d.link.connect();
    d.server.send(incoming("three"));
    d.link.cut(); // before any step of the new session
    d.link.connect();
    await d.quiet();
    expect(d.came.map((m) => m.body)).toEqual(["one", "two", "three"]);
  });

  it("takes once what came again while it was being stored", async () => {
    const d = await make();
    await d.quiet();
    let go: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (go = resolve));
    const usual = d.store.take.bind(d.store);
    let taken = 0;
    d.store.take = async (...all) => {
      taken++;
      await held;
      return await usual(...all);
    };
    d.server.send(incoming("one"));
    d.link.deliver();
    d.link.cut();
    d.link.connect();
    d.link.deliver();
    go();
    await d.quiet();
    expect([taken, d.came.length, d.failed.length]).toEqual([1, 1, 0]);
  });

  // The heart of it: whatever breaks, each message arrives once and in order, and all of them are held in the end.
  for (let seed = 1; seed <= 12; seed++) {
    it(`loses and repeats nothing, whatever breaks (${seed})`, async () => {
      const random = randomFrom(seed);
      const d = await make();
      let written = 0;
      let sent = 0;
      const tick = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, random(4)));
      for (let step = 0; step < 120; step++) {
        switch (random(12)) {
          case 0:
            d.link.cut();
            break;
          case 1:
            d.link.lossy = d.link.ready;
            break;
          case 2:
            await d.crash();
            break;
          case 3:
            if (!d.link.ready) d.server.forget(true);
            break;
          case 4:
          case 5:
            d.server.send(incoming(`t${sent++}`));
            break;
          case 6:
          case 7:
          case 8:
            await d.write(`w${written++}`);
            break;
          case 9:
            d.link.connect();
            break;
          default:
            d.link.deliver();
        }
        await tick();
      }
      d.link.cut();
      d.link.connect();
      await d.quiet();
      await d.quiet();
      expect(d.failed).toEqual([]);
      expect(new Set(await d.states())).toEqual(new Set(["held"]));
      const out = (await d.store.messages(peer, 1000)).filter((m) => m.dir === "out").map((m) => m.id);
      expect(d.server.got).toEqual(out);
      expect(await d.store.queue()).toEqual([]);
    });
  }
});
