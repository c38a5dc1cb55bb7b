// What the core needs of a connection. transport/ has the one that there is.

// Phase is how it stands with the connection.
export type Phase =
  | { kind: "off" } // nobody asked for one
  | { kind: "connecting" }
  | { kind: "online"; via: "websocket" | "bosh" }
  | { kind: "waiting"; until: number } // ms since the epoch; 0 while the browser says that there is no network
  | { kind: "refused"; reason: string }; // the server does not let this user in: no further tries

// Numbered is a stanza that was sent and not acknowledged.
export interface Numbered {
  name: string;
  stanza: string;
  queuedAt: number;
}

const rootId = /^<[^>]*?\sid=(?:"([^"]*)"|'([^']*)')/;

// idOf is the id of a stanza, "" for none.
export function idOf(n: Numbered): string {
  const m = rootId.exec(n.stanza);
  return m?.[1] ?? m?.[2] ?? "";
}

export function nameOf(stanza: string): string {
  return /^<(\w+)/.exec(stanza)?.[1] ?? "";
}

// Ledger is what a session of XEP-0198 is resumed with: strophe's state, kept by the core together with what it says
// about messages, so that one never tells of something that the other does not know.
export interface Ledger {
  id: string;
  boundJid: string;
  hIn: number;
  hOutAcked: number;
  unacked: Numbered[];
  [more: string]: unknown;
}

export interface Incoming {
  stanza: Element;
  session: string; // the id of the ledger that it counts for
  h: number; // the count of stanzas with this one
}

export interface Listener {
  // How many stanzas of the session are stored here: what <resume h/> says.
  readonly stored: number;
  phase(phase: Phase): void;
  // A session is there; a new one knows nothing of what was sent before.
  ready(resumed: boolean): void;
  // The session cannot be resumed. The ids are of those stanzas, not acknowledged before, that the server had all the same.
  lost(acked: string[]): void;
  // The server acknowledged these stanzas, which are not in the ledger any more.
  acknowledged(stanzas: Numbered[]): void;
  // The server asks how much was handled here.
  asked(): void;
  stanza(incoming: Incoming): void;
}

export interface Link {
  // Of the session there is or was, as it would be resumed; undefined for none. Entries may be changed in place while
  // nothing is connected.
  readonly ledger: Ledger | undefined;
  readonly ready: boolean;
  // start connects and stays connected. ledger is of an earlier page.
  start(ledger: Ledger | undefined): void;
  // push sends stanzas of the session; when the connection is gone they are sent when it resumes.
  push(stanzas: string[], wantsAck: boolean): void;
  // handled says how many stanzas are safe here (<a h/>).
  handled(h: number): void;
  // drop breaks the connection and resumes the session later: what came could not be stored and has to come again.
  drop(): void;
  // hurry tries at once when it waits to try again.
  hurry(): void;
  // stop lets go of the connection; the session can be resumed.
  stop(): void;
  // end ends the session.
  end(): void;
}
