import { describe, expect, it } from "vitest";
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
const error = (condition: string, type: string): string => `<error type="${type}"><${condition} xmlns="${stanzas.ns.stanzas}"/></error>`;

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
    await new Promise((resolve) => setTimeout(resolve, 10)); // it is there, and nothing comes back
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

  it("comes back when a failure put it out", async () => {
    const { d, room } = await enter();
    room.remove([307, 333]);
    await d.quiet();
    await d.write("hello");
    await d.quiet();
    expect(await d.states()).toEqual(["queued"]);
    await expect.poll(() => d.quiet().then(() => room.joins.length), { timeout: 5000 }).toBe(2);
    await d.quiet();
    expect(await d.states()).toEqual(["delivered"]);
  });

  it("waits for a room that is busy, and not for one that says no", async () => {
    const busy = await enter((room) => (room.refuses = error("service-unavailable", "wait")));
    expect(busy.d.scene).toMatchObject({ stage: "out" });
    busy.room.refuses = "";
    await expect.poll(() => busy.d.quiet().then(() => busy.d.scene?.stage), { timeout: 5000 }).toBe("in");
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
    await expect.poll(async () => (await d.states())[0], { timeout: 5000 }).toBe("failed");
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

