import { createHash } from "node:crypto";
import { DOMParser } from "@xmldom/xmldom";
import { describe, expect, it } from "vitest";
import { Backoff } from "../src/core/backoff.js";
import { Chain } from "../src/core/events.js";
import { readHeard, readSeen, timeOf } from "../src/core/muc.js";
import * as stanzas from "../src/core/stanzas.js";
import { guestName } from "../src/guest-address.js";
import de from "../src/i18n/de.json";
import en from "../src/i18n/en.json";
import { texts } from "../src/i18n/strings.js";

const parse = (xml: string): Element => new DOMParser().parseFromString(xml, "text/xml").documentElement as unknown as Element;

describe("back-off", () => {
  it("doubles up to its bound, at random in the upper half", () => {
    for (const [random, share] of [[0, 0.5], [0.999999, 1]] as const) {
      const b = new Backoff(100, 1000, () => random);
      expect([1, 2, 3, 4, 5, 6].map(() => b.next())).toEqual([100, 200, 400, 800, 1000, 1000].map((ms) => Math.round(ms * share)));
      b.reset();
      expect(b.next()).toBe(Math.round(100 * share));
    }
  });
});

describe("chain", () => {
  it("runs steps in order, also after one that fails", async () => {
    const failed: unknown[] = [];
    const chain = new Chain((err) => failed.push(err));
    const done: number[] = [];
    const slow = chain.run(async () => {
      await new Promise((resolve) => setTimeout(resolve, 10));
      done.push(1);
    });
    chain.run(() => Promise.reject(new Error("no"))).catch(() => undefined);
    await chain.run(() => void done.push(2));
    await slow;
    expect(done).toEqual([1, 2]);
    expect(failed).toHaveLength(1);
  });
});

describe("stanzas", () => {
  it("escapes whatever is in a message", () => {
    const nasty = `<&>"' ]]> </body>`;
    const el = parse(stanzas.chat({ id: nasty, with: `a'"@b`, body: nasty, at: 0 }, 5));
    expect([el.getAttribute("id"), el.getAttribute("to"), stanzas.child(el, "body")?.textContent]).toEqual([nasty, `a'"@b`, nasty]);
  });

  it("says since when a message waited, when it did", () => {
    const m = { id: "a", with: "b@c", body: "x", at: 1_000 };
    expect(stanzas.read(parse(stanzas.chat(m, 2_000))).at).toBeUndefined();
    expect(stanzas.read(parse(stanzas.chat(m, 60_000))).at).toBe(1_000);
  });

  it("reads what it writes", () => {
    expect(stanzas.read(parse(stanzas.chat({ id: "a", with: "b@c", body: "x", at: 0 }, 0)))).toEqual({ id: "a", from: "", body: "x", wantsReceipt: true, markable: true, state: "active" });
    expect(stanzas.read(parse(stanzas.receipt("r", "b@c/d", "a"))).received).toBe("a");
    expect(stanzas.read(parse(stanzas.displayed("r", "b@c/d", "a"))).displayed).toBe("a");
    expect(stanzas.read(parse(stanzas.chatState("b@c", "composing"))).state).toBe("composing");
  });

  it("reads errors, and takes nothing else of them", () => {
    const said = stanzas.read(parse(`<message xmlns="jabber:client" type="error" id="a" from="b@c"><body>x</body><received xmlns="urn:xmpp:receipts" id="z"/>
      <error type="auth"><forbidden xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/><text xmlns="urn:ietf:params:xml:ns:xmpp-stanzas">no</text></error></message>`));
    expect(said.error).toEqual({ condition: "forbidden", text: "no" });
    expect([said.body, said.received]).toEqual([undefined, undefined]);
  });

  it("goes by namespaces", () => {
    const said = stanzas.read(parse(`<message xmlns="jabber:client" from="b@c"><received xmlns="urn:other" id="z"/><x xmlns="urn:other"><body>no</body></x></message>`));
    expect([said.received, said.body]).toEqual([undefined, undefined]);
  });

  it("has the hash of its features (XEP-0115 §5.1)", () => {
    const text = `client/web//Holdfast<${stanzas.features.map((f) => f + "<").join("")}`;
    expect(stanzas.ver).toBe(createHash("sha1").update(text).digest("base64"));
  });

  it("answers requests", () => {
    const answer = (xml: string): Element | undefined => {
      const text = stanzas.answer(parse(xml));
      return text === undefined ? undefined : parse(text);
    };
    const ping = answer(`<iq xmlns="jabber:client" type="get" id="p" from="c"><ping xmlns="urn:xmpp:ping"/></iq>`);
    expect([ping?.getAttribute("type"), ping?.getAttribute("to"), ping?.getAttribute("id")]).toEqual(["result", "c", "p"]);
    const info = answer(`<iq xmlns="jabber:client" type="get" id="d" from="c"><query xmlns="${stanzas.ns.disco}" node="${stanzas.node}#${stanzas.ver}"/></iq>`);
    expect(info && stanzas.child(info, "query")?.getElementsByTagName("feature").length).toBe(stanzas.features.length);
    for (const bad of [`<query xmlns="${stanzas.ns.disco}" node="other"/>`, `<x xmlns="urn:x"/>`]) expect(answer(`<iq xmlns="jabber:client" type="get" id="d">${bad}</iq>`)?.getAttribute("type")).toBe("error");
    expect(answer(`<iq xmlns="jabber:client" type="set" id="d"><ping xmlns="urn:xmpp:ping"/></iq>`)?.getAttribute("type")).toBe("error");
    expect(answer(`<iq xmlns="jabber:client" type="result" id="d"/>`)).toBeUndefined();
  });
});

describe("what a room says", () => {
  const room = "lobby@conference.here";
  const heard = (inner: string): ReturnType<typeof readHeard> => readHeard(parse(`<message xmlns="jabber:client" type="groupchat" from="${room}/Ann" id="a">${inner}</message>`), room);

  it("is believed where only the room can have said it", () => {
    const said = heard(`<body>x</body><stanza-id xmlns="urn:xmpp:sid:0" by="other@here" id="forged"/><stanza-id xmlns="urn:xmpp:sid:0" by="${room}" id="s"/>
      <delay xmlns="urn:xmpp:delay" from="ann@here" stamp="2001-01-01T00:00:00Z"/>`);
    expect(said).toEqual({ nick: "Ann", id: "a", stanzaId: "s", body: "x" });
    expect(heard(`<body>x</body><delay xmlns="urn:xmpp:delay" stamp="2001-01-01T00:00:00Z"/>`)?.history).toBeUndefined();
    expect(heard(`<body>x</body><delay xmlns="urn:xmpp:delay" from="${room}" stamp="2001-01-01T00:00:00Z"/>`)?.history).toBe(Date.UTC(2001, 0));
  });

  it("is a subject only when it is nothing else (XEP-0045 §8.1)", () => {
    expect(heard("<subject>Tea</subject>")?.subject).toBe("Tea");
    expect(heard("<subject/>")?.subject).toBe("");
    expect(heard("<subject>Tea</subject><body>x</body>")?.subject).toBeUndefined();
    expect(heard("<subject>Tea</subject><thread>t</thread>")?.subject).toBeUndefined();
  });

  it("is nothing in a message to one alone", () => {
    expect(readHeard(parse(`<message xmlns="jabber:client" type="chat" from="${room}/Ann"><body>x</body></message>`), room)).toBeUndefined();
  });

  it("has the time in its ids, in those of version 7 only", () => {
    expect(timeOf("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")).toBe(0x017f22e279b0);
    for (const other of ["017f22e2-79b0-4cc3-98c4-dc0c0c07398f", "", "x017f22e2-79b0-7cc3-98c4-dc0c0c07398f"]) expect(timeOf(other)).toBeUndefined();
  });

  it("may say why somebody is gone", () => {
    const seen = readSeen(
      parse(`<presence xmlns="jabber:client" type="unavailable" from="${room}/a/b"><x xmlns="${stanzas.ns.mucUser}"><item affiliation="none" role="none"><reason>r</reason></item>
        <status code="110"/><status code="307"/></x></presence>`),
    );
    expect(seen).toEqual({ id: "", nick: "a/b", gone: true, codes: new Set([110, 307]), reason: "r", destroyed: false });
  });
});

describe("languages", () => {
  it("have the same keys, with the same values in them", () => {
    const values = (text: string): string[] => [...text.matchAll(/\{(\w+)\}/g)].map((m) => m[1] ?? "").sort();
    expect(Object.keys(de).sort()).toEqual(Object.keys(en).sort());
    for (const key of Object.keys(en) as (keyof typeof en)[]) expect([key, values(de[key])]).toEqual([key, values(en[key])]);
  });

  it("falls back: own table, language, English", () => {
    expect(texts("de-AT")("send")).toBe("Senden");
    expect(texts("de", { send: "Ab" })("send")).toBe("Ab");
    expect(texts("fr", { send: "Envoyer" })("discard")).toBe("Discard");
    expect(texts("en")("open", { name: "{count} $& <b>" })).toBe("Open chat with {count} $& <b>");
  });
});

describe("guests", () => {
  it("have the name that the gateway makes of the secret", async () => {
    // As auth.GuestName has it; a test there has the same.
    expect(await guestName("s3".repeat(22))).toBe("guest-kapw5g4pb3dytrajz2of5iszatwf2aqs");
  });
});
