import { describe, expect, it } from "vitest";
import { advance, final, impliesRead, type Fact, type Sent, type State } from "../src/core/message.js";

const states: State[] = ["queued", "sending", "held", "delivered", "read", "failed"];
const refused: Fact = { kind: "refused", condition: "forbidden", text: "" };

describe("where a message is", () => {
  // Every state with every fact: what is not in the row stays as it is.
  const table: [Fact, Partial<Record<State, State>>][] = [
    [{ kind: "given" }, { queued: "sending" }],
    [{ kind: "returned" }, { sending: "queued" }],
    [{ kind: "acknowledged" }, { queued: "held", sending: "held", failed: "held" }],
    [{ kind: "received" }, { queued: "delivered", sending: "delivered", held: "delivered", failed: "delivered" }],
    [{ kind: "displayed" }, { queued: "read", sending: "read", held: "read", delivered: "read", failed: "read" }],
    [refused, { queued: "failed", sending: "failed", held: "failed" }],
    [{ kind: "overdue" }, { queued: "failed", sending: "failed" }],
    [{ kind: "again" }, { failed: "queued" }],
  ];
  for (const [fact, moves] of table) {
    for (const state of states) {
      it(`${state}, ${fact.kind}`, () => {
        expect(advance(state, fact)).toBe(moves[state] ?? state);
      });
    }
  }

  it("never shows less than was reached, whatever comes in whatever order", () => {
    const facts: Fact[] = [{ kind: "acknowledged" }, { kind: "received" }, { kind: "displayed" }];
    const rank = states.indexOf.bind(states);
    for (let round = 0; round < 500; round++) {
      let state: State = "sending";
      for (let n = 0; n < 6; n++) {
        const fact = facts[Math.floor(Math.random() * facts.length)];
        if (!fact) continue;
        const next = advance(state, fact);
        if (rank(next) < rank(state)) expect.fail(`${state} became ${next} by ${fact.kind}`);
        state = next;
      }
    }
  });

  it("tells of earlier messages only what left this device", () => {
    expect(states.filter(impliesRead)).toEqual(["held", "delivered"]);
  });

  it("expects nothing more of this device from held on", () => {
    const message = (state: State): Sent => ({ key: 1, id: "a", with: "b@c", body: "", at: 0, since: 0, dir: "out", state });
    expect(states.filter((s) => final(message(s)))).toEqual(["held", "delivered", "read"]);
  });
});
