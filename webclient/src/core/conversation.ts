// A conversation is with a contact or in a room. What differs between the two is here and in the two that there are,
// contact.ts and room.ts; the courier and the store treat them alike.

import type { Change, Note, Store } from "../store/store.js";
import type { Ledger } from "./link.js";
import type { Received, Sent } from "./message.js";
import type { Occupant } from "./muc.js";
import type { ChatState, Said } from "./stanzas.js";

// Place says who a conversation is with.
export type Place = { kind: "contact"; address: string } | { kind: "room"; address: string; nick: string };

// Trouble is why one is not in a room, and does not come in again unless the user wants it.
export interface Trouble {
  kind: "kicked" | "banned" | "destroyed" | "nick" | "refused";
  condition: string; // of the error that came, or what fits best
  text: string; // the reason that somebody gave
}

// Scene is how it stands with a room.
export interface Scene {
  stage: "out" | "joining" | "in" | "barred";
  nick: string; // one's own, while one is in
  subject: string;
  occupants: Occupant[];
  more?: number; // who are there besides these
  trouble?: Trouble;
}

// What a conversation tells the tab that has the connection, and that the others.
export interface ConversationReports {
  changed(change: Change): void;
  came(message: Received): void;
  typing(peer: string, state: ChatState): void;
  present(peer: string, available: boolean, status: string): void;
  room(peer: string, scene: Scene): void;
}

// Office is what a conversation has of its courier. Everything is called from within a step.
export interface Office {
  readonly store: Store;
  readonly reports: ConversationReports;
  readonly now: () => number;
  readonly id: () => string;
  readonly ready: boolean;
  // The ledger to store together with what a stanza that came in says.
  readonly snapshot: () => Ledger | undefined;
  // Sends what need not arrive, such as presence: it is not in the queue.
  readonly push: (...stanzas: string[]) => void;
  readonly pump: () => Promise<void>;
  readonly told: (changes: Change[]) => void;
  // Runs something as a step of its own, later.
  readonly step: (f: () => Promise<void> | void) => void;
  // Whether a page shows this conversation now.
  readonly shows: (address: string) => boolean;
}

// Gate says whether messages can be sent now: they wait while it is shut, and fail when it will not open by itself.
export type Gate = "open" | "shut" | Trouble;

export interface Conversation {
  readonly gate: Gate;
  // A note of the session, kept by an earlier page.
  restore(note: Note): void;
  // The session is another one: what it told holds no more.
  over(): void;
  // There is a session, in which this conversation is not known yet.
  enter(): Promise<void>;
  resumed(): Promise<void>;
  // The user does not want to wait.
  hurry(): Promise<void>;
  report(): void;
  stop(): void;

  write(m: Sent): string;
  typing(state: ChatState): void;

  message(stanza: Element, said: Said): Promise<void>;
  presence(stanza: Element): Promise<void>;
  // What came of a request, which may be another's.
  answered(stanza: Element): Promise<void>;
}
