// A conversation with somebody: receipts (XEP-0184), markers (XEP-0333), chat states (XEP-0085), presence (RFC 6121).

import type { Note } from "../store/store.js";
import type { Conversation, Office } from "./conversation.js";
import type { Received, Sent } from "./message.js";
import * as stanzas from "./stanzas.js";
import type { ChatState, Said } from "./stanzas.js";

const mostResources = 20;

export class Contact implements Conversation {
  readonly gate = "open";
  readonly #resources = new Map<string, string>(); // available full addresses with what they show

  constructor(
    readonly address: string,
    private readonly office: Office,
  ) {}

  // The server tells of changes only, so what is known goes on with the session.
  restore(note: Note): void {
    this.#resource(note.name, note.value as string);
  }

  over(): void {
    this.#resources.clear();
    this.report();
  }

  // enter asks for the contact's presence, and sees to what it knows of ours.
  enter(): Promise<void> {
    this.office.push(stanzas.subscription("subscribed", this.address), stanzas.subscription("subscribe", this.address));
    return Promise.resolve();
  }

  resumed(): Promise<void> {
    this.report();
    return Promise.resolve();
  }

  hurry(): Promise<void> {
    return Promise.resolve();
  }

  answered(): Promise<void> {
    return Promise.resolve();
  }

  stop(): void {
    // Nothing is under way.
  }

  report(): void {
    const shows = [...this.#resources.values()];
    const status = shows.includes("") || shows.includes("chat") ? "" : (shows[0] ?? "");
    this.office.reports.present(this.address, shows.length > 0, status);
  }

  write(m: Sent): string {
    return stanzas.chat(m, this.office.now());
  }

  typing(state: ChatState): void {
    this.office.push(stanzas.chatState(this.address, state));
  }

  async message(_stanza: Element, said: Said): Promise<void> {
    const { store, reports, told } = this.office;
    const learn = async (id: string, fact: Parameters<typeof store.learn>[2]): Promise<void> => told(await store.learn(this.address, id, fact, this.office.snapshot()));
    if (said.error) return await learn(said.id, { kind: "refused", ...said.error });
    if (said.received !== undefined) await learn(said.received, { kind: "received" });
    if (said.displayed !== undefined) await learn(said.displayed, { kind: "displayed" });
    if (said.body !== undefined) await this.#said(said, said.body);
    if (said.state !== undefined && said.at === undefined) reports.typing(this.address, said.state);
  }

  async #said(said: Said, body: string): Promise<void> {
    const { store, reports, now, id } = this.office;
    const m: Omit<Received, "key"> = {
      id: said.id === "" ? id() : said.id,
      with: this.address,
      from: said.from,
      dir: "in",
      body,
      at: Math.min(said.at ?? now(), now()),
      seen: false,
      markable: said.markable && said.id !== "",
    };
    const taken = await store.take(m, said.wantsReceipt && said.id !== "" ? id() : undefined, this.office.snapshot());
    if (taken) reports.came(taken);
    if (said.wantsReceipt) await this.office.pump();
  }

  async presence(stanza: Element): Promise<void> {
    const type = stanza.getAttribute("type");
    if (!this.office.shows(this.address)) return;
    if (type === "subscribe") {
      // The page named this contact, so its wish is granted; nobody else's is answered.
      this.office.push(stanzas.subscription("subscribed", this.address));
      return;
    }
    if (type !== null && type !== "unavailable") return;
    const from = stanza.getAttribute("from") ?? "";
    const show = type === null ? (stanzas.child(stanza, "show")?.textContent ?? "") : undefined;
    if (!this.#resource(from, show)) return;
    await this.office.store.note(this.address, [[from, show]], this.office.snapshot());
    this.report();
  }

  // #resource notes what a resource shows, undefined when it is gone; false when that is more than is kept.
  #resource(from: string, show: string | undefined): boolean {
    if (show === undefined) this.#resources.delete(from);
    else if (this.#resources.size < mostResources || this.#resources.has(from)) this.#resources.set(from, show);
    else return false;
    return true;
  }
}
