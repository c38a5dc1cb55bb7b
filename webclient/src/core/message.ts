// What a message is here, and where it can be. Everything in this folder knows neither the page nor the network.

// State is where a message that was written here really is.
//
//   queued     in the queue of this device; nothing of it was sent
//   sending    given to a connection; the server has not said that it has it
//   held       the server acknowledged it (XEP-0198): it can no longer be lost
//   delivered  the other side's client has it (XEP-0184); the room sent it to everybody, us too (XEP-0045)
//   read       the other side has seen it (XEP-0333)
//   failed     it will not go by itself: the user decides
export type State = "queued" | "sending" | "held" | "delivered" | "read" | "failed";

// Reason is why a message failed: no connection for too long, or the condition of the error that came back.
export type Reason = { kind: "timeout" } | { kind: "error"; condition: string; text: string };

interface Common {
  key: number; // the order on this device; given by the store
  id: string; // of the stanza, and what receipts and markers name
  with: string; // bare address of the other side
  body: string;
  at: number; // ms since the epoch: written here, or when the other side's was sent
  stamp?: number; // the same by the clock of the room that it is in
}

export interface Sent extends Common {
  dir: "out";
  state: State;
  since: number; // when it was last given to the queue, ms since the epoch
  reason?: Reason;
  room?: true; // with is a room
  recalled?: true; // the room did not have it, so it was sent again, which happens once
}

export interface Received extends Common {
  dir: "in";
  from: string; // full address that receipt and marker go to
  seen: boolean;
  markable: boolean; // asked for a marker (XEP-0333)
  nick?: string; // who said it in a room, and by what the room knows them under any nick (XEP-0421)
  occupant?: string;
}

export type Message = Sent | Received;

// Fact is something that was learnt about a message.
export type Fact =
  | { kind: "given" } // to a connection, or about to be
  | { kind: "returned" } // the session that had it is over and the server did not have it
  | { kind: "acknowledged" }
  | { kind: "received" } // a receipt came, or the room's own copy of it
  | { kind: "displayed" } // a marker came
  | { kind: "refused"; condition: string; text: string } // it came back as an error
  | { kind: "overdue" } // no connection for too long
  | { kind: "again" } // the user wants it sent
  | { kind: "missing" }; // the server had it, and the room has not

const rank: Record<State, number> = { failed: 0, queued: 0, sending: 1, held: 2, delivered: 3, read: 4 };

// advance says where a message is after a fact; the same state when the fact is no news. A message never goes back, but
// for what was not sent after all, and never shows what it has not reached.
export function advance(state: State, fact: Fact): State {
  switch (fact.kind) {
    case "given":
      return state === "queued" ? "sending" : state;
    case "returned":
      return state === "sending" ? "queued" : state;
    case "acknowledged":
      return upTo(state, "held");
    case "received":
      return upTo(state, "delivered");
    case "displayed":
      return upTo(state, "read");
    case "refused":
      // What the other side has cannot have failed, whatever comes later.
      return rank[state] >= rank.delivered ? state : "failed";
    case "overdue":
      return state === "queued" || state === "sending" ? "failed" : state;
    case "again":
      return state === "failed" ? "queued" : state;
    case "missing":
      return state === "sending" || state === "held" ? "queued" : state;
  }
}

function upTo(state: State, reached: State): State {
  return rank[state] < rank[reached] ? reached : state;
}

// impliesRead says whether a marker for a later message tells of this one too: XEP-0333 §4 covers all before, but only
// what is known to have left this device can have been read.
export function impliesRead(state: State): boolean {
  return state === "held" || state === "delivered";
}

// final says whether nothing is expected of this device for a message any more.
export function final(m: Message): boolean {
  return m.dir === "in" || rank[m.state] >= rank.held;
}
