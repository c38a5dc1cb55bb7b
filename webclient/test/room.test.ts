import { afterEach, describe, expect, it, vi } from "vitest";
import { limits } from "../src/core/room.js";
import * as stanzas from "../src/core/stanzas.js";
import { Device, randomFrom } from "./device.js";
import { FakeRoom } from "./fake-room.js";
import { FakeServer } from "./fake-server.js";

const address = "lobby@conference.here";

interface Setting {
  d: Device;
  room: FakeRoom;
}

// enter has a device in a room, whose clock is the device's.
async function enter(before: (room: FakeRoom) => void = () => undefined, giveUp = 60_000): Promise<Setting> {
  const server = new FakeServer();
  const clock: { device?: Device } = {};
  const room = new FakeRoom(address, () => clock.device?.now ?? 1_000_000);
  server.room = room;
  before(room);
  const d = await Device.make({ kind: "room", address, nick: "Ann" }, server, giveUp);
  clock.device = d;
  await d.quiet();
  return { d, room };
}

// reconnect has the server know nothing of the session any more.
async function reconnect({ d }: Setting, known: boolean): Promise<void> {
  d.link.cut();
  d.server.forget(known);
  d.link.connect();
  await d.quiet();
}

const bodies = async (d: Device): Promise<string[]> => (await d.all()).map((m) => m.body);
const spoken = (room: FakeRoom): string[] => room.history.map((m) => m.body);
const bounce = (id: string, from: string): string => `<message xmlns="jabber:client" type="error" from="${from}" id="${id}">${error("not-acceptable", "modify")}</message>`;
const error = (condition: string, type: string): string => `<error type="${type}"><${condition} xmlns="${stanzas.ns.stanzas}"/></error>`;

const { ...usual } = limits;
afterEach(() => {
  Object.assign(limits, usual);
  vi.useRealTimers();
});

// stopClock has the room's time-outs wait for vi.advanceTimersByTime. What the store and the courier wait for goes on.
const stopClock = (): unknown => vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });

describe("room", () => {
  it("is entered once a session, with as much history as is missing", async () => {
    const s = await enter((room) => room.say("Bob", "before"));
    const { d, room } = s;
    expect(room.joins).toHaveLength(1);
    expect(room.joins[0]).toContain('maxstanzas="50"');
    d.link.cut();
    d.link.connect();
    await d.quiet();
    await d.crash();
    await d.quiet();
    expect(room.joins).toHaveLength(1);
    await reconnect(s, false);
    expect(room.joins).toHaveLength(2);
    expect(room.joins[1]).toContain(`since="${new Date(d.now - 60_000).toISOString()}"`);
    expect(d.scene?.stage).toBe("in");
    expect(d.failed).toEqual([]);
  });

  it("shows what comes twice once, and what was said before the first time as no news", async () => {
    const s = await enter((room) => room.say("Bob", "before"));
    const { d, room } = s;
    room.say("Bob", "now");
    await d.quiet();
    await reconnect(s, true);
    room.say("Bob", "then");
    await reconnect(s, false);
    expect(await bodies(d)).toEqual(["before", "now", "then"]);
    expect(d.came.map((m) => [m.body, m.nick])).toEqual([["now", "Bob"], ["then", "Bob"]]);
    expect((await d.all()).map((m) => m.dir === "in" && m.seen)).toEqual([true, false, false]);
  });

  for (const stamp of ["2099-01-01T00:00:00Z", "-271821-04-20T00:00:00Z"]) {
    it(`is not misled by a stamp of ${stamp}`, async () => {
      const s = await enter((room) => {
        room.say("Bob", "before");
        Object.assign(room.history[0] ?? {}, { at: Date.parse(stamp), stanzaId: "x" }); // even the room's own
      });
      const { d, room } = s;
      const forged = (sender: string, id: string): string =>
        `<message xmlns="jabber:client" type="groupchat" from="${address}/Eve" id="${id}"><body>${id}</body><delay xmlns="${stanzas.ns.delay}"${sender} stamp="${stamp}"/></message>`;
      d.server.send(forged("", "a"));
      d.server.send(forged(` from="${address}"`, "b"));
      await d.quiet();
      expect((await d.all()).slice(1).map((m) => [m.body, m.at, m.stamp])).toEqual([["a", d.now, undefined], ["b", d.now, undefined]]);
      d.link.cut();
      d.server.forget(true);
      room.say("Bob", "missed");
      d.link.connect();
      await d.quiet();
      const since = Date.parse(/since="([^"]*)"/.exec(room.joins[1] ?? "")?.[1] ?? "");
      expect(since).toBeGreaterThanOrEqual(0);
      expect(since).toBeLessThanOrEqual(d.now);
      expect(await bodies(d)).toContain("missed");
      expect(d.failed).toEqual([]);
    });
  }

  it("takes the time of a message from its id, before what a stamp says", async () => {
    const { d, room } = await enter();
    room.say("Bob", "now");
    const { stanzaId } = room.history[0] ?? {};
    room.stanzaIds = false;
    room.say("Bob", "then");
    await d.quiet();
    expect((await d.all()).map((m) => m.stamp)).toEqual([d.now, undefined]);
    room.stanzaIds = true;
    Object.assign(room.history[0] ?? {}, { at: d.now + 500, stanzaId: stanzaId?.replace(/.$/, "9") });
    await reconnect({ d, room }, true);
    expect((await d.all()).find((m) => m.id.endsWith("9"))?.stamp).toBe(d.now);
  });

  it("learns the time of a message that came without one from the history", async () => {
    const s = await enter((room) => (room.stanzaIds = false));
    const { d, room } = s;
    room.say("Bob", "now");
    await d.quiet();
    expect((await d.all())[0]?.stamp).toBeUndefined();
    await reconnect(s, true);
    expect((await d.all()).map((m) => [m.body, m.stamp])).toEqual([["now", d.now]]);
  });

  it("remembers that it was in a room where nothing was said", async () => {
    const s = await enter();
    const { d, room } = s;
    d.now += 10_000_000;
    d.link.cut();
    d.server.forget(true);
    room.say("Bob", "missed");
    d.link.connect();
    await d.quiet();
    expect(room.joins[1]).toContain('since="1970-01-01T00:00:00.000Z"'); // an hour before, at least
    expect((await d.all()).map((m) => [m.body, m.dir === "in" && m.seen])).toEqual([["missed", false]]);
    expect(d.came).toHaveLength(1);
  });

  it("gives a room time that is still telling what it has, and was not in before the end of it", async () => {
    stopClock();
    const { d, room } = await enter((room) => {
      room.endless = true;
      room.say("Bob", "before");
    });
    for (let n = 0; n < 18; n++) {
      room.come(`o${n}`);
      await d.quiet();
      vi.advanceTimersByTime(limits.patience - 1);
      await d.quiet();
    }
    expect(room.joins).toHaveLength(1);
    room.endless = false;
    room.say("Bob", "now");
    room.history[1] = { ...room.history[0], ...room.history[1], body: "before too", stanzaId: "y" } as (typeof room.history)[0];
    await d.quiet();
    expect(room.joins).toHaveLength(1);
    vi.advanceTimersByTime(limits.patience);
    await d.quiet();
    expect(d.scene?.stage).toBe("in");
    expect(room.joins).toHaveLength(2);
    expect(d.came.map((m) => m.body)).toEqual(["now"]);
    expect((await d.all()).map((m) => [m.body, m.dir === "in" && m.seen])).toEqual([["before", true], ["now", false], ["before too", true]]);
    expect(d.scene?.occupants).toHaveLength(19);
  });

  it("says that a message is delivered when it comes back, and asks for nothing", async () => {
    const { d, room } = await enter();
    d.link.lossy = true;
    const key = await d.write("hello");
    await d.quiet();
    expect(await d.states()).toEqual(["sending"]);
    const unsent = d.link.ledger?.unacked.at(-1)?.stanza ?? "";
    expect(unsent).toContain('type="groupchat"');
    for (const space of [stanzas.ns.receipts, stanzas.ns.markers, stanzas.ns.states]) expect(unsent).not.toContain(space);
    // The server takes it, and only later it is in the room.
    const handle = room.handle.bind(room);
    room.handle = () => undefined;
    d.link.cut();
    d.link.connect();
    await d.quiet();
    expect(await d.states()).toEqual(["held"]);
    for (const session of d.server.sessions.values()) handle(session, unsent);
    await d.quiet();
    expect((await d.store.get([key]))[0]).toMatchObject({ state: "delivered", stamp: d.now });
    expect(await bodies(d)).toEqual(["hello"]);
  });

  it("believes its own occupant only", async () => {
    const { d, room } = await enter((room) => room.others.add("Eve"));
    d.link.lossy = true;
    await d.write("hello");
    await d.quiet();
    const id = (await d.all())[0]?.id ?? "";
    d.link.lossy = false;
    room.say("Eve", "hello", { id });
    room.say("Ann", "hello", { id, occupant: "Eve" }); // who had the nick when it was free
    await d.quiet();
    expect(await d.states()).not.toContain("delivered");
    expect((await d.all()).map((m) => m.dir)).toEqual(["out", "in", "in"]);
  });

  it("finds what an earlier session sent in the history, and sends only the rest", async () => {
    const s = await enter();
    const { d, room } = s;
    await d.write("one");
    d.link.lossy = false;
    await expect.poll(() => spoken(room)).toEqual(["one"]); // and nothing comes back
    d.link.lossy = true;
    await d.write("two");
    await d.quiet();
    expect(spoken(room)).toEqual(["one"]);
    expect(await d.states()).toEqual(["sending", "sending"]);
    await reconnect(s, false);
    expect(spoken(room)).toEqual(["one", "two"]);
    expect(await d.states()).toEqual(["delivered", "delivered"]);
    expect(await d.store.queue()).toEqual([]);
  });

  it("knows its own messages in the history that an earlier page asked for", async () => {
    const { d, room } = await enter();
    await d.write("one");
    await d.quiet();
    // The session is over, and the page ends before it enters in the next one.
    d.link.cut();
    d.server.forget(false);
    await d.store.restart([], null);
    await d.crash();
    await expect.poll(() => room.joins).toHaveLength(2);
    // The next page ends when it was told that it is in, and not yet what was said.
    const [session] = d.server.sessions.values();
    const rest = session?.outbox.splice(1) ?? [];
    await d.quiet();
    await d.crash();
    session?.outbox.push(...rest);
    await d.quiet();
    expect((await d.all()).map((m) => [m.dir, m.body])).toEqual([["out", "one"]]);
  });

  it("has what one wrote elsewhere as one's own", async () => {
    const { d, room } = await enter();
    room.say("Ann", "from the phone");
    await d.quiet();
    expect((await d.all()).map((m) => [m.dir, m.body])).toEqual([["out", "from the phone"]]);
    expect(d.came).toEqual([]);
  });

  it("takes nicks of the past for nobody's where the room knows no ids", async () => {
    const { d } = await enter((room) => {
      room.occupantIds = false;
      room.say("Ann", "another Ann");
    });
    expect((await d.all()).map((m) => m.dir)).toEqual(["in"]);
  });

  it("tries other nicks when one is taken, and says so in the end", async () => {
    const { d, room } = await enter((room) => room.taken.add("Ann").add("Ann 2"));
    expect(d.scene).toMatchObject({ stage: "in", nick: "Ann 3" });
    for (let n = 1; n <= 9; n++) room.taken.add(n === 1 ? "Ann" : `Ann ${n}`);
    room.remove([333]);
    await d.quiet();
    await d.courier.stop();
    const all = await enter((room) => {
      for (let n = 1; n <= 9; n++) room.taken.add(n === 1 ? "Ann" : `Ann ${n}`);
    });
    expect(all.room.joins).toHaveLength(9);
    expect(all.d.scene).toMatchObject({ stage: "barred", trouble: { kind: "nick", condition: "conflict" } });
    await all.d.write("hello");
    await all.d.quiet();
    expect((await all.d.all())[0]).toMatchObject({ state: "failed", reason: { kind: "error", condition: "conflict" } });
  });

  for (const [code, kind] of [[307, "kicked"], [301, "banned"]] as const) {
    it(`does not come back by itself when it was ${kind}`, async () => {
      const s = await enter();
      const { d, room } = s;
      room.remove([code], "be kind");
      await d.quiet();
      expect(d.scene).toMatchObject({ stage: "barred", occupants: [], trouble: { kind, text: "be kind" } });
      await d.crash();
      await d.quiet();
      await reconnect(s, true);
      expect(room.joins).toHaveLength(1);
      await d.write("hello");
      await d.quiet();
      expect(await d.states()).toEqual(["failed"]);
      d.courier.hurry(address);
      await d.quiet();
      expect(d.scene).toMatchObject({ stage: "in" });
      expect(d.scene?.trouble).toBeUndefined();
    });
  }

  for (const first of ["acknowledgement", "bounce"]) {
    it(`fails what the room did not take any more when it was kicked, the ${first} first`, async () => {
      const { d, room } = await enter();
      const handle = room.handle.bind(room);
      room.handle = () => undefined;
      d.link.lossy = first === "bounce";
      const key = await d.write("hello");
      await d.quiet();
      expect(await d.states()).toEqual([first === "bounce" ? "sending" : "held"]);
      d.link.lossy = false;
      room.remove([307], "be kind");
      d.server.send(bounce((await d.all())[0]?.id ?? "", address));
      await d.quiet();
      const failed = { state: "failed", reason: { kind: "error", condition: "not-allowed", text: "be kind" } };
      expect((await d.store.get([key]))[0]).toMatchObject(failed);
      room.handle = handle;
      d.link.cut();
      d.link.connect();
      await d.quiet();
      expect((await d.store.get([key]))[0]).toMatchObject(failed);
      expect(await d.store.queue()).toEqual([]);
      expect(spoken(room)).toEqual([]);
    });
  }

  it("does not take an occupant's errors for its own", async () => {
    const { d, room } = await enter();
    room.handle = () => undefined;
    await d.write("hello");
    await d.quiet();
    d.server.send(bounce((await d.all())[0]?.id ?? "", `${address}/Eve`));
    await d.quiet();
    expect(await d.states()).toEqual(["held"]);
    expect(d.scene?.stage).toBe("in");
    expect(room.joins).toHaveLength(1);
  });

  it("comes back when a failure put it out", async () => {
    stopClock();
    const { d, room } = await enter();
    room.remove([307, 333]);
    await d.quiet();
    await d.write("hello");
    await d.quiet();
    expect(await d.states()).toEqual(["queued"]);
    expect(room.joins).toHaveLength(1);
    vi.advanceTimersByTime(1000); // the first pause, at most
    await d.quiet();
    expect(room.joins).toHaveLength(2);
    expect(await d.states()).toEqual(["delivered"]);
  });

  it("waits for a room that is busy, and not for one that says no", async () => {
    stopClock();
    const busy = await enter((room) => (room.refuses = error("service-unavailable", "wait")));
    expect(busy.d.scene).toMatchObject({ stage: "out" });
    busy.room.refuses = "";
    vi.advanceTimersByTime(1000);
    await busy.d.quiet();
    expect(busy.d.scene?.stage).toBe("in");
    const closed = await enter((room) => (room.refuses = error("registration-required", "auth")));
    expect(closed.d.scene).toMatchObject({ stage: "barred", trouble: { kind: "refused", condition: "registration-required" } });
    expect(closed.room.joins).toHaveLength(1);
  });

  it("enters again when the room does not know it, and sends again, once and in order", async () => {
    const { d, room } = await enter();
    room.inside.clear();
    for (const text of ["one", "two", "three"]) await d.write(text);
    await d.quiet();
    await d.quiet();
    expect(spoken(room)).toEqual(["one", "two", "three"]);
    expect(await d.states()).toEqual(["delivered", "delivered", "delivered"]);
    room.deaf = true;
    room.inside.clear();
    const key = await d.write("four");
    await d.quiet();
    expect((await d.store.get([key]))[0]).toMatchObject({ state: "failed", reason: { kind: "error", condition: "not-acceptable" } });
    expect(room.joins).toHaveLength(3);
    expect(await d.store.queue()).toEqual([]);
  });

  it("sends what the room did not have before what was under way behind it", async () => {
    const s = await enter();
    const { d, room } = s;
    room.handle = () => undefined;
    await d.write("one");
    await d.quiet();
    d.link.lossy = true;
    await d.write("two");
    await d.quiet();
    expect(await d.states()).toEqual(["held", "sending"]);
    await d.store.recall(address, (await d.all())[0]?.id ?? "", d.now, undefined);
    await d.store.restart([], null);
    expect((await d.store.queue()).map((i) => i.key)).toEqual((await d.all()).map((m) => m.key));
  });

  it("asks whether it is still in after a break (XEP-0410)", async () => {
    const { d, room } = await enter();
    d.link.cut();
    room.inside.clear();
    room.say("Bob", "missed");
    d.link.connect();
    await d.quiet();
    expect(room.joins).toHaveLength(2);
    expect(await bodies(d)).toEqual(["missed"]);
  });

  it("is still in when the room knows it under another nick (XEP-0410)", async () => {
    const { d, room } = await enter((room) => (room.pong = "item-not-found"));
    d.link.cut();
    room.inside.clear();
    d.link.connect();
    await d.quiet();
    expect(room.joins).toHaveLength(1);
    expect(d.scene?.stage).toBe("in");
  });

  it("wants its own nick back the next time", async () => {
    const s = await enter((room) => room.taken.add("Ann"));
    expect(s.d.scene?.nick).toBe("Ann 2");
    s.room.taken.clear();
    await reconnect(s, true);
    expect(s.d.scene?.nick).toBe("Ann");
  });

  it("keeps no more occupants than it can, and counts the others", async () => {
    limits.occupants = 3;
    const { d, room } = await enter((room) => {
      for (const nick of ["a", "b", "c", "d", "e"]) room.others.add(nick);
    });
    const told = (): [string[] | undefined, number | undefined] => [d.scene?.occupants.map((o) => o.nick).sort(), d.scene?.more];
    const kept = ["Ann", "a", "b", "c"];
    expect(told()).toEqual([kept, 2]);
    room.go("e");
    room.come("f");
    room.go("f");
    await expect.poll(() => d.quiet().then(told)).toEqual([kept, 1]);
    await d.crash();
    await d.quiet();
    expect(told()).toEqual([kept, 1]);
    const notes = await d.store.notes();
    const scenes = d.scenes.length;
    room.come("a"); // a new status, say
    await d.quiet();
    await new Promise((resolve) => setTimeout(resolve, 150));
    expect(d.scenes.length).toBe(scenes);
    expect(await d.store.notes()).toEqual(notes);
  });

  it("names nobody as the author of what the room itself says", async () => {
    const { d } = await enter();
    d.server.send(`<message xmlns="jabber:client" type="groupchat" from="${address}" id="n"><body>notice</body></message>`);
    await d.quiet();
    expect(d.came).toMatchObject([{ body: "notice", from: address }]);
    expect(d.came[0]).not.toHaveProperty("nick");
  });

  it("knows who is there and the subject, over a reload too", async () => {
    const s = await enter((room) => {
      room.others.add("Bob");
      room.subject = "Tea";
    });
    const { d, room } = s;
    room.come("Eve");
    room.go("Bob");
    await d.quiet();
    await d.crash();
    await d.quiet();
    expect(d.scene).toMatchObject({ stage: "in", nick: "Ann", subject: "Tea" });
    expect(d.scene?.occupants.map((o) => [o.nick, o.id, o.own]).sort()).toEqual([["Ann", "id of Ann", true], ["Eve", "id of Eve", false]]);
    room.others.delete("Eve");
    await reconnect(s, true);
    expect(d.scene?.occupants.map((o) => o.nick)).toEqual(["Ann"]);
    expect(room.joins).toHaveLength(2);
  });

  it("knows people who change their nicks, itself too", async () => {
    const { d, room } = await enter((room) => room.others.add("Bob"));
    room.rename("Bob", "Robert");
    room.rename("Ann", "Anna");
    await d.write("hello");
    await d.quiet();
    await expect.poll(() => d.scene?.nick).toBe("Anna"); // told when some time has passed
    expect(await d.states()).toEqual(["delivered"]);
    expect(d.scene?.occupants.map((o) => [o.nick, o.id, o.own]).sort()).toEqual([["Anna", "id of Ann", true], ["Robert", "id of Bob", false]]);
    expect(room.joins).toHaveLength(1);
  });

  it("takes nothing of what is not for the room", async () => {
    const { d } = await enter();
    d.server.send(`<message xmlns="jabber:client" type="chat" from="${address}/Bob" id="p"><body>psst</body><request xmlns="${stanzas.ns.receipts}"/></message>`);
    d.server.send(`<message xmlns="jabber:client" type="groupchat" from="other@conference.here/Bob" id="q"><body>elsewhere</body></message>`);
    await d.quiet();
    expect(await bodies(d)).toEqual([]);
    expect(await d.store.messages("other@conference.here", 10)).toEqual([]);
    expect(d.came).toEqual([]);
  });

  it("gives up what waits for a room that does not come", async () => {
    const { d } = await enter((room) => (room.refuses = error("service-unavailable", "wait")));
    await d.write("hello");
    await d.quiet();
    expect(await d.states()).toEqual(["queued"]);
    d.now += 120_000;
    await expect.poll(async () => (await d.states())[0]).toBe("failed");
  });

  // The room has each message once and in order, and so has the device, whatever breaks.
  for (let seed = 1; seed <= 12; seed++) {
    it(`loses and repeats nothing, whatever breaks (${seed})`, async () => {
      const random = randomFrom(seed);
      const { d, room } = await enter(undefined, Infinity);
      let written = 0;
      let said = 0;
      // An error for a message that the server had taken is not lost with its session: see forget.
      const owes = (): boolean => [...d.server.sessions.values()].some((s) => s.outbox.some((x) => x.includes("not-acceptable")));
      for (let step = 0; step < 120; step++) {
        d.now += random(3000);
        switch (random(14)) {
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
            if (!d.link.ready && !owes()) d.server.forget(random(2) === 0);
            break;
          case 4:
          case 5:
            room.say("Bob", `t${said++}`);
            break;
          case 6:
          case 7:
          case 8:
            await d.write(`w${written++}`);
            break;
          case 9:
            d.link.connect();
            break;
          case 10:
            if (random(3) === 0) room.inside.clear();
            break;
          case 11:
            if (random(3) === 0) room.remove([307, 333]);
            break;
          default:
            d.link.deliver();
        }
        await new Promise((resolve) => setTimeout(resolve, random(4)));
      }
      d.link.cut();
      d.link.connect();
      await d.quiet();
      d.courier.hurry(address);
      for (let n = 0; n < 3; n++) await d.quiet();
      expect(d.failed).toEqual([]);
      const all = await d.all();
      const mine = all.filter((m) => m.dir === "out");
      const theirs = all.filter((m) => m.dir === "in");
      expect(theirs.map((m) => m.body)).toEqual(Array.from({ length: said }, (_, n) => `t${n}`));
      expect(mine.map((m) => m.body)).toEqual(Array.from({ length: written }, (_, n) => `w${n}`));
      // What the room refused a second time is the user's again, and not in the room.
      const arrived = mine.filter((m) => m.state !== "failed");
      expect(new Set(arrived.map((m) => m.state))).toEqual(new Set(["delivered"]));
      expect(room.history.filter((m) => m.nick === "Ann").map((m) => m.body)).toEqual(arrived.map((m) => m.body));
      for (const m of mine) if (m.state === "failed") expect(m.reason).toMatchObject({ condition: "not-acceptable" });
      expect(await d.store.queue()).toEqual([]);
    });
  }
});

