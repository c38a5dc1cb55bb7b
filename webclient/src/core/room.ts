// A conversation in a room (XEP-0045). The room sends every message to everybody, its author too, in one order: the copy
// that comes back, now or as history, is what says that a message is there.
//
// One is in when the room has told who is there, what was said before, and the subject, in this order (§7.1). Messages
// wait for that: what an earlier session sent and never heard of is found in the history, or did not arrive.

import type { Note } from "../store/store.js";
import { Backoff } from "./backoff.js";
import type { Conversation, Gate, Office, Place, Scene, Trouble } from "./conversation.js";
import type { Received, Sent } from "./message.js";
import { readHeard, readSeen, timeOf, type Heard, type Occupant, type Seen } from "./muc.js";
import * as stanzas from "./stanzas.js";
import type { Said } from "./stanzas.js";

type Entry = Extract<Place, { kind: "room" }>;

// Kept is the note of the room itself; those of its occupants have their nicks for a name.
interface Kept {
  nick: string; // the wanted one
  as: string; // the one that one is in under
  occupant?: string;
  stage: "out" | "in" | "barred";
  subject: string;
  more?: number; // occupants without a note
  trouble?: Trouble;
}

// Tests have smaller ones.
export const limits = {
  occupants: 2000, // who are known by name; of others only how many there are
  patience: 20_000, // ms without a word of the room, until it has let one in
};

const requests = "enter-"; // begins the ids of tries to enter
const mostNicks = 9; // that are tried
const firstHistory = 50; // messages that somebody new is shown
// History is asked for from a little before the newest message that is here: what comes twice is taken once.
const overlap = 60_000; // ms
const skew = 3_600_000; // ms by which the room's clock may be behind
const ahead = 86_400_000; // ms by which it may be before; what is later than that is not true
const silence = 900_000; // ms after which the room is asked whether one is still in (XEP-0410 §4)
const steady = 60_000; // ms in a room after which it is believed to work
// What a room says to who is not in it (§7.4), and what is said of a room that is no more.
const unknown = new Set(["not-acceptable", "item-not-found"]);
// Answers to whether one is in that do not say no: another client does not know the question, or the room is out of
// reach, or one is in under another nick (XEP-0410 §3.2).
const noAnswer = new Set(["item-not-found", "service-unavailable", "feature-not-implemented", "remote-server-not-found", "remote-server-timeout"]);
const gathering = 100; // ms at least in which changes of who is there become one report; 1 more for each of them

export class Room implements Conversation {
  readonly address: string;
  readonly #wanted: string;
  #try = 1; // which variant of the wanted nick
  #stage: Scene["stage"] = "out";
  #nick = "";
  #request = ""; // the id of the last try to enter
  #self = false; // the room said in answer to it that one is in
  #occupant: string | undefined; // one's own id; undefined where the room knows none
  #subject = "";
  #trouble: Trouble | undefined;
  readonly #occupants = new Map<string, Occupant>();
  #more = 0; // occupants who are not among them
  #known = false; // this device was in the room before
  #entered = 0; // ms since the epoch
  #ping = "";
  readonly #backoff = new Backoff(1000, 60_000);
  #timer: ReturnType<typeof setTimeout> | undefined;
  #telling: ReturnType<typeof setTimeout> | undefined;
  #listening: ReturnType<typeof setTimeout> | undefined;

  constructor(
    place: Entry,
    private readonly office: Office,
  ) {
    this.address = place.address;
    this.#wanted = place.nick;
  }

  // revived is the room that an earlier page was in, undefined if the note is of none.
  static revived(note: Note, office: Office): Room | undefined {
    return note.name === "" ? new Room({ kind: "room", address: note.peer, nick: (note.value as Kept).nick }, office) : undefined;
  }

  restore(note: Note): void {
    if (note.name !== "") {
      this.#occupants.set(note.name, note.value as Occupant);
      return;
    }
    const kept = note.value as Kept;
    this.#stage = kept.stage;
    this.#self = kept.stage === "in";
    this.#nick = kept.as;
    this.#occupant = kept.occupant;
    this.#subject = kept.subject;
    this.#more = kept.more ?? 0;
    this.#trouble = kept.trouble;
  }

  get gate(): Gate {
    if (this.#stage === "in") return "open";
    return this.#trouble ?? "shut";
  }

  over(): void {
    clearTimeout(this.#timer);
    this.#empty();
    if (this.#stage !== "barred") this.#stage = "out";
    this.report();
  }

  async enter(): Promise<void> {
    clearTimeout(this.#timer);
    if (this.#stage === "in") return this.report();
    if (this.#stage === "barred") {
      // So that the next page knows it too.
      await this.#note();
      return this.report();
    }
    if (!this.office.ready) return this.report();
    this.#stage = "joining";
    this.#request = requests + this.office.id();
    this.#self = false;
    this.#empty();
    this.#later(limits.patience); // first, so that it is tried again whatever fails here
    await this.#note([], true);
    const entered = await this.office.store.entered(this.address);
    const last = (await this.office.store.newest(this.address)) ?? entered;
    this.#known = entered !== undefined;
    this.office.push(stanzas.join(this.address, this.#variant, this.#request, last === undefined ? { most: firstHistory } : { since: sane(Math.min(last, this.office.now()) - overlap) }));
    this.report();
  }

  async resumed(): Promise<void> {
    if (this.#stage !== "in") return await this.enter();
    this.#ask();
    this.report();
  }

  // #ask finds out whether the room has lost sight of this session (XEP-0410).
  #ask(): void {
    this.#listen();
    if (this.#stage !== "in") return;
    this.#ping = this.office.id();
    this.office.push(stanzas.ping(`${this.address}/${this.#nick}`, this.#ping));
  }

  #listen(): void {
    clearTimeout(this.#listening);
    this.#listening = setTimeout(() => this.office.step(() => this.#ask()), silence);
  }

  async hurry(): Promise<void> {
    if (this.#stage === "in") return;
    this.#stage = "out";
    this.#trouble = undefined;
    this.#try = 1;
    this.#backoff.reset();
    await this.enter();
  }

  stop(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#telling);
    clearTimeout(this.#listening);
  }

  report(): void {
    clearTimeout(this.#telling);
    this.#telling = undefined;
    this.office.reports.room(this.address, {
      stage: this.#stage,
      nick: this.#stage === "in" ? this.#nick : "",
      subject: this.#subject,
      occupants: this.#stage === "in" ? [...this.#occupants.values()] : [],
      ...(this.#stage === "in" && this.#more > 0 ? { more: this.#more } : {}),
      ...(this.#trouble ? { trouble: this.#trouble } : {}),
    });
  }

  write(m: Sent): string {
    return stanzas.groupchat(m);
  }

  typing(): void {
    // Not in rooms.
  }

  // What comes.

  async message(stanza: Element, said: Said): Promise<void> {
    if (said.error) {
      // Of an occupant's client that does not like a message the room says nothing.
      if (stanzas.resource(said.from) === "") await this.#bounced(said.id, said.error);
      return;
    }
    const heard = readHeard(stanza, this.address);
    if (!heard) return; // an invitation, or for one's own ears only
    this.#listen();
    this.#arriving();
    if (heard.subject !== undefined) return await this.#titled(heard.subject);
    if (heard.body) await this.#heard(heard, heard.body, said.from);
  }

  async presence(stanza: Element): Promise<void> {
    if (stanza.getAttribute("type") === "error") {
      if (this.#stage === "joining" && this.#answers(stanza.getAttribute("id") ?? "")) await this.#refused(stanzas.readError(stanza));
      return;
    }
    const seen = readSeen(stanza);
    if (seen.nick === "") return;
    this.#arriving();
    if (seen.gone) await this.#gone(seen);
    else await this.#here(seen);
  }

  // answered reads what came of a question of #ask.
  async answered(stanza: Element): Promise<void> {
    if (this.#ping === "" || stanza.getAttribute("id") !== this.#ping) return;
    this.#ping = "";
    if (stanza.getAttribute("type") === "error" && !noAnswer.has(stanzas.readError(stanza).condition)) await this.#again();
  }

  async #bounced(id: string, error: { condition: string; text: string }): Promise<void> {
    const { store, told, snapshot, now } = this.office;
    const outside = unknown.has(error.condition);
    const { condition, text } = (outside && this.#trouble) || error;
    // A room that does not know one does not have the message either. It goes again, unless one does not come in again.
    const recalled = outside && !this.#trouble && (await store.recall(this.address, id, now(), snapshot()));
    if (!recalled) return told(await store.learn(this.address, id, { kind: "refused", condition, text }, snapshot()));
    told(recalled);
    await this.#again();
  }

  async #heard(heard: Heard, body: string, from: string): Promise<void> {
    const { store, reports, told, now, id, snapshot } = this.office;
    const stamp = this.#stamp(heard);
    const times = { at: Math.min(stamp ?? now(), now()), ...(stamp === undefined ? {} : { stamp }) };
    const own = this.#own(heard);
    if (own !== "no") {
      const name = heard.id || heard.stanzaId || id();
      const changes = await store.reflected({ id: name, with: this.address, body, ...times }, own === "yes", snapshot());
      if (changes) return told(changes);
    }
    const m: Omit<Received, "key"> = {
      id: heard.stanzaId ?? (heard.id === "" ? id() : `${heard.nick}/${heard.id}`),
      with: this.address,
      from,
      dir: "in",
      body,
      ...times,
      // What was said before one came for the first time is no news.
      seen: !this.#known && this.#history(heard) !== undefined,
      markable: false,
    };
    if (heard.nick !== "") m.nick = heard.nick;
    const occupant = this.#knows ? heard.occupant : undefined;
    if (occupant !== undefined) m.occupant = occupant;
    const taken = await store.take(m, undefined, snapshot());
    if (!taken) return;
    if (taken.seen) told([{ with: this.address, keys: [taken.key] }]);
    else reports.came(taken);
  }

  // #stamp is when a message was said by the room's clock. Its id tells it better than a stamp, which somebody may have
  // got past a room; undefined when neither tells.
  #stamp(heard: Heard): number | undefined {
    const stamp = (heard.stanzaId === undefined ? undefined : timeOf(heard.stanzaId)) ?? this.#history(heard);
    return stamp === undefined ? undefined : Math.min(sane(stamp), this.office.now() + ahead);
  }

  // #history is the stamp of a message that was said before, and those come only before one is in.
  #history(heard: Heard): number | undefined {
    return this.#stage === "joining" ? heard.history : undefined;
  }

  // #own says whether a message is one's own. Nicks of the past prove nothing, since others may have had them: without an
  // id of the room's only a message that is known here counts.
  #own(heard: Heard): "yes" | "maybe" | "no" {
    if (this.#knows && heard.occupant !== undefined) return heard.occupant === this.#occupant ? "yes" : "no";
    if (heard.nick !== this.#nick || heard.nick === "") return "no";
    return heard.history === undefined ? "yes" : "maybe";
  }

  // The room tells occupants apart by ids. Where it does not, an id is the sender's own word.
  get #knows(): boolean {
    return this.#occupant !== undefined;
  }

  // #titled takes the subject, which is also the end of the history.
  async #titled(subject: string): Promise<void> {
    this.#subject = subject;
    const entered = this.#stage === "joining" && this.#self;
    if (!entered) {
      await this.#note();
      return this.report();
    }
    clearTimeout(this.#timer);
    this.#stage = "in";
    this.#try = 1;
    this.#known = true;
    this.#entered = this.office.now();
    await this.office.store.enter(this.address, this.#entered - skew);
    await this.#note([...this.#occupants]);
    this.report();
    await this.office.pump();
  }

  // #answers says whether what has this id may be the answer to the last try to enter, and not to one before: what the room
  // says in between, that it does not know who sent a message, comes first. Not every room repeats the id.
  #answers(id: string): boolean {
    return !id.startsWith(requests) || id === this.#request;
  }

  async #here(seen: Seen): Promise<void> {
    const self = seen.codes.has(110);
    const occupant: Occupant = { nick: seen.nick, id: seen.occupant ?? seen.nick, own: self || (this.#self && seen.nick === this.#nick) };
    const had = this.#occupants.get(seen.nick);
    if (self && this.#answers(seen.id)) this.#self = true;
    if (had && had.id === occupant.id && had.own === occupant.own && (!self || this.#occupant === seen.occupant)) return;
    if (self) {
      this.#nick = seen.nick;
      this.#occupant = seen.occupant;
      // The next page may be told what was said before, and not again who it is.
      if (this.#stage === "joining") await this.#note();
    }
    if (had || self || this.#occupants.size < limits.occupants) {
      // In this order: when it cannot be noted it comes again, as something new.
      await this.#changed(seen.nick, occupant);
      this.#occupants.set(seen.nick, occupant);
    } else {
      this.#more++;
      await this.#changed();
    }
  }

  async #gone(seen: Seen): Promise<void> {
    if (!this.#occupants.delete(seen.nick)) this.#more = Math.max(0, this.#more - 1);
    const self = seen.codes.has(110) || (this.#self && seen.nick === this.#nick);
    if (self && seen.codes.has(303) && seen.newNick !== undefined) this.#nick = seen.newNick;
    else if (self) return await this.#out(seen);
    await this.#changed(seen.nick);
  }

  // #changed notes who has come, gone or changed. While one enters nothing is kept of it: the next page enters anew.
  async #changed(nick?: string, occupant?: Occupant): Promise<void> {
    if (this.#stage !== "in") return;
    await this.#note(nick === undefined ? [] : [[nick, occupant]]);
    this.#tell();
  }

  // #out is the end of being in: for good when somebody wanted it, else one comes back.
  async #out({ codes, destroyed, reason }: Seen): Promise<void> {
    if (this.#stage === "barred") return;
    if (destroyed) return await this.#bar({ kind: "destroyed", condition: "gone", text: reason });
    if (codes.has(301)) return await this.#bar({ kind: "banned", condition: "forbidden", text: reason });
    // 333 beside it: nobody's wish, but a failure.
    if (codes.has(307) && !codes.has(333)) return await this.#bar({ kind: "kicked", condition: "not-allowed", text: reason });
    this.#leave();
    await this.#note([], true);
    // A room that puts one out at once each time is not asked at once each time.
    if (this.office.now() - this.#entered > steady) this.#backoff.reset();
    this.#later(this.#backoff.next());
  }

  async #refused({ type, condition, text }: { type: string; condition: string; text: string }): Promise<void> {
    if (condition === "conflict" && this.#try < mostNicks) {
      this.#try++;
      this.#leave();
      return await this.enter();
    }
    if (condition === "conflict") return await this.#bar({ kind: "nick", condition, text });
    if (type !== "wait") return await this.#bar({ kind: "refused", condition, text });
    this.#leave();
    this.#later(this.#backoff.next());
  }

  // #again enters a room that does not know one any more.
  async #again(): Promise<void> {
    if (this.#stage !== "in") return;
    this.#leave();
    await this.enter();
  }

  #leave(): void {
    this.#stage = "out";
    this.#self = false;
    this.#empty();
    this.report();
  }

  async #bar(trouble: Trouble): Promise<void> {
    clearTimeout(this.#timer);
    this.#leave();
    this.#stage = "barred";
    this.#trouble = trouble;
    await this.#note([], true);
    this.report();
    await this.office.pump(); // what waits will not go
  }

  #empty(): void {
    this.#occupants.clear();
    this.#more = 0;
  }

  // #arriving gives a room that is still telling what it has more time.
  #arriving(): void {
    if (this.#stage === "joining") this.#later(limits.patience);
  }

  // #later tries to enter, unless one is in by then.
  #later(pause: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.office.step(async () => {
        if (this.#stage === "in" || this.#stage === "barred") return;
        await this.enter();
      });
    }, pause);
  }

  get #variant(): string {
    return this.#try === 1 ? this.#wanted : `${this.#wanted} ${this.#try}`;
  }

  // #note stores how it stands, with what has changed of the occupants; clear leaves none of them.
  async #note(occupants: [string, Occupant | undefined][] = [], clear = false): Promise<void> {
    const kept: Kept = { nick: this.#wanted, as: this.#nick, stage: this.#stage === "joining" ? "out" : this.#stage, subject: this.#subject };
    if (this.#occupant !== undefined) kept.occupant = this.#occupant;
    if (this.#more > 0) kept.more = this.#more;
    if (this.#trouble) kept.trouble = this.#trouble;
    await this.office.store.note(this.address, [["", kept], ...occupants], this.office.snapshot(), clear);
  }

  // #tell reports soon who is there, many changes at once. While one enters it is told when that is done.
  #tell(): void {
    if (this.#telling !== undefined) return;
    this.#telling = setTimeout(() => this.office.step(() => this.report()), gathering + this.#occupants.size);
  }
}

// sane is a moment that can be written as a date.
function sane(ms: number): number {
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), 8.64e15) : 0;
}
