// Who is in a room: how many in the header, their names when somebody wants to know.

import type { Scene } from "../core/conversation.js";
import type { Occupant } from "../core/muc.js";
import { shown } from "../core/text.js";
import type { Texts } from "../i18n/strings.js";
import { colour, make } from "./bubble.js";

// More who come or go at a time, or in a larger company, are not named to a screen reader.
const fewChanges = 3;
const fewPeople = 20;
const pause = 5000; // ms from one such announcement to the next
const mostNames = 200; // that are listed

export class People {
  readonly count = make("button", "here");
  readonly list = make("ul", "occupants");
  readonly subject = make("p", "subject");
  #last: Map<string, Occupant> | undefined; // undefined while one is not in
  #more = 0; // who are there besides
  #told: Map<string, Occupant> | undefined; // who was there at the last announcement
  #telling: ReturnType<typeof setTimeout> | undefined;

  // say tells a screen reader who has come and gone.
  constructor(
    private readonly texts: Texts,
    private readonly say: (text: string) => void,
  ) {
    this.count.type = "button";
    this.count.setAttribute("aria-expanded", "false");
    this.count.setAttribute("aria-controls", "occupants");
    this.count.onclick = () => this.#last && this.open(this.list.hidden);
    this.list.id = "occupants";
    this.list.hidden = true;
    this.list.tabIndex = 0;
    this.list.setAttribute("role", "list"); // WebKit takes it away from a list without bullets
    this.list.setAttribute("aria-label", texts("occupants"));
    this.subject.hidden = true;
    this.subject.dir = "auto";
    this.away(false);
  }

  get isOpen(): boolean {
    return !this.list.hidden;
  }

  open(open: boolean): void {
    this.list.hidden = !open;
    this.#render();
    this.count.setAttribute("aria-expanded", String(open));
  }

  // away shows that one is not in the room.
  away(connected: boolean): void {
    this.#last = this.#told = undefined;
    clearTimeout(this.#telling);
    this.#telling = undefined;
    if (this.list.contains((this.list.getRootNode() as ShadowRoot | Document).activeElement)) this.count.focus();
    this.open(false);
    this.count.textContent = this.texts(connected ? "notIn" : "unknown");
    this.count.setAttribute("aria-disabled", "true");
  }

  update(scene: Scene): void {
    this.subject.textContent = this.subject.title = shown(scene.subject.replace(/\s+/g, " ").trim());
    this.subject.hidden = this.subject.textContent === "";
    if (scene.stage !== "in") {
      this.away(true);
      if (scene.stage === "joining") this.count.textContent = this.texts("joining");
      return;
    }
    this.count.removeAttribute("aria-disabled");
    this.#more = scene.more ?? 0;
    this.count.textContent = this.texts("here", { count: scene.occupants.length + this.#more });
    this.#last = new Map(scene.occupants.map((o) => [o.nick, o]));
    this.#render();
    this.#told ??= this.#last;
    if (this.#telling === undefined) this.#tell();
  }

  // #tell says who has come and gone since it was said last, which it is not more often than now and then.
  #tell(): void {
    this.#telling = undefined;
    const [before, now] = [this.#told, this.#last];
    if (!before || !now || before === now) return;
    const text = this.#news(before, now);
    this.#told = now;
    if (text === "") return;
    this.say(text);
    this.#telling = setTimeout(() => this.#tell(), pause);
  }

  // #render makes the names, when they are seen: there may be many.
  #render(): void {
    const all = this.list.hidden ? [] : [...(this.#last?.values() ?? [])];
    all.sort((a, b) => Number(b.own) - Number(a.own) || a.nick.localeCompare(b.nick));
    const others = Math.max(0, all.length - mostNames) + (this.list.hidden ? 0 : this.#more);
    const items = all.slice(0, mostNames).map((o) => this.#item(o));
    if (others > 0) items.push(make("li", "more-people", this.texts("more", { count: others })));
    this.list.replaceChildren(...items);
  }

  #item(o: Occupant): HTMLElement {
    const name = make("bdi", "nick", shown(o.nick));
    colour(name, o.id);
    const item = make("li", o.own ? "own" : "", name);
    item.dataset["nick"] = o.nick;
    if (o.own) item.append(` (${this.texts("you")})`);
    return item;
  }

  #news(before: Map<string, Occupant>, now: Map<string, Occupant>): string {
    if (now.size > fewPeople) return "";
    // Somebody under another nick has neither come nor gone.
    const missing = (all: Map<string, Occupant>, there: Map<string, Occupant>): string[] => {
      const ids = new Set([...there.values()].map((o) => o.id));
      return [...all.values()].filter((o) => !there.has(o.nick) && !ids.has(o.id) && !o.own).map((o) => shown(o.nick));
    };
    const [came, left] = [missing(now, before), missing(before, now)];
    if (came.length + left.length > fewChanges) return "";
    const said: string[] = [];
    if (came.length > 0) said.push(this.texts("cameIn", { names: came.join(", ") }));
    if (left.length > 0) said.push(this.texts("wentOut", { names: left.join(", ") }));
    return said.join(" ");
  }
}
