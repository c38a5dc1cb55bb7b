// The list of messages: in order, with the days between, scrolled to the end while the reader is there.

import type { Message } from "../core/message.js";
import type { Texts } from "../i18n/strings.js";
import { bubble, make, senderOf, type Bubble, type Doing } from "./bubble.js";

const mostShown = 1000; // in the page; older ones are in the store

export class Log {
  readonly el = make("div", "log");
  readonly newer = make("button", "newer");
  readonly #bubbles = new Map<number, Bubble>();
  readonly #messages = new Map<number, Message>();
  readonly #watch: IntersectionObserver;
  readonly #empty = make("p", "empty");
  #atEnd = true;
  #from = 0; // older messages are not in the page
  #top = 0; // where it was scrolled to
  #dated = false;
  #silence: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly texts: Texts,
    private readonly language: string,
    private readonly name: string,
    private readonly doing: Doing,
    private readonly seen: (key: number) => void,
  ) {
    this.el.tabIndex = 0;
    this.el.setAttribute("role", "log");
    this.el.setAttribute("aria-label", texts("history", { name }));
    this.#empty.textContent = texts("empty");
    this.el.append(this.#empty);
    this.newer.type = "button";
    this.newer.textContent = texts("newer");
    this.newer.hidden = true;
    this.newer.onclick = () => this.toEnd();
    this.el.onscroll = () => {
      const { scrollTop, scrollHeight, clientHeight } = this.el;
      // Who scrolls up leaves the end; what grows below does not mean that somebody left.
      if (scrollHeight - scrollTop - clientHeight < 40) this.#atEnd = true;
      else if (scrollTop < this.#top) this.#atEnd = false;
      this.#top = scrollTop;
      if (this.#atEnd) this.newer.hidden = true;
    };
    new ResizeObserver(() => this.#atEnd && this.toEnd()).observe(this.el);
    this.#watch = new IntersectionObserver((entries) => {
      for (const e of entries) if (e.isIntersecting) this.#looked(e.target);
    });
    document.addEventListener("visibilitychange", this.#again);
  }

  // history shows what was there before.
  history(messages: Message[]): void {
    this.#from = Math.max(this.#from, messages[0]?.key ?? 0);
    this.#quietly(messages);
    this.toEnd();
  }

  // #quietly shows what is no news to a screen reader.
  #quietly(messages: Message[]): void {
    this.el.setAttribute("aria-live", "off");
    for (const m of messages) this.put(m);
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.el.setAttribute("aria-live", "polite"), 500);
  }

  // old shows a message that is new here and no news.
  old(m: Message): void {
    if (this.has(m.key)) return this.put(m);
    if (m.key >= this.#from) this.#quietly([m]);
  }

  put(m: Message): void {
    const had = this.#bubbles.get(m.key);
    this.#messages.set(m.key, m);
    if (had) {
      had.update(m);
      return this.#keepEnd();
    }
    this.#empty.remove();
    const b = bubble(m, this.texts, this.language, this.name, this.doing);
    this.#bubbles.set(m.key, b);
    this.#insert(m, b.el);
    if (m.dir === "in" && !m.seen) {
      this.#watch.observe(b.meta);
      if (!this.#atEnd) this.newer.hidden = false;
    }
    if (m.dir === "out") this.#atEnd = true;
    if (this.#bubbles.size > mostShown) this.#dropFirst();
    this.#keepEnd();
  }

  remove(key: number): void {
    this.#bubbles.get(key)?.el.remove();
    this.#bubbles.delete(key);
    this.#messages.delete(key);
    this.#days();
    if (this.#bubbles.size === 0) this.el.append(this.#empty);
  }

  has(key: number): boolean {
    return this.#bubbles.has(key);
  }

  get unseen(): number {
    let n = 0;
    for (const m of this.#messages.values()) if (m.dir === "in" && !m.seen) n++;
    return n;
  }

  get messages(): Message[] {
    return [...this.#messages.values()].sort((a, b) => a.key - b.key);
  }

  toEnd(): void {
    this.#atEnd = true;
    this.newer.hidden = true;
    this.el.scrollTop = this.el.scrollHeight;
  }

  close(): void {
    this.#watch.disconnect();
    document.removeEventListener("visibilitychange", this.#again);
  }

  #keepEnd(): void {
    if (this.#atEnd) this.el.scrollTop = this.el.scrollHeight;
  }

  #insert(m: Message, el: HTMLElement): void {
    // Nearly always it is the last.
    let after: HTMLElement | undefined;
    for (let c = this.el.lastElementChild; c instanceof HTMLElement; c = c.previousElementSibling as HTMLElement | null) {
      const key = c.dataset["key"];
      if (key === undefined || Number(key) < m.key) {
        if (key === undefined) continue;
        after = c;
        break;
      }
    }
    if (after) after.after(el);
    else this.el.prepend(el);
    this.#days();
  }

  #looked(meta: Element): void {
    if (document.visibilityState !== "visible") return;
    const key = Number(meta.parentElement?.dataset["key"]);
    this.#watch.unobserve(meta);
    if (Number.isFinite(key)) this.seen(key);
  }

  // The page is visible again: what is in view is looked at anew.
  readonly #again = (): void => {
    if (document.visibilityState !== "visible") return;
    for (const [key, m] of this.#messages) {
      const b = this.#bubbles.get(key);
      if (m.dir !== "in" || m.seen || !b) continue;
      this.#watch.unobserve(b.meta);
      this.#watch.observe(b.meta);
    }
  };

  #dropFirst(): void {
    for (const m of this.messages) {
      if (m.dir === "out" && (m.state === "failed" || m.state === "queued" || m.state === "sending")) continue;
      this.#from = m.key + 1;
      return this.remove(m.key);
    }
  }

  // #days has a line put where the day changes, once for all that is new.
  #days(): void {
    if (this.#dated) return;
    this.#dated = true;
    queueMicrotask(() => {
      this.#dated = false;
      this.#date();
    });
  }

  #date(): void {
    const lines = new Map<string, HTMLElement>();
    for (const c of [...this.el.querySelectorAll<HTMLElement>(":scope > .day")]) {
      lines.set(`${c.dataset["day"]} ${(c.nextElementSibling as HTMLElement | null)?.dataset["key"]}`, c);
    }
    let last = "";
    let who: string | undefined;
    for (const c of this.el.querySelectorAll<HTMLElement>(":scope > .message")) {
      const m = this.#messages.get(Number(c.dataset["key"]));
      if (!m) continue;
      const day = new Date(m.at).toDateString();
      c.toggleAttribute("data-follows", day === last && who === senderOf(m));
      who = senderOf(m);
      if (day === last) continue;
      last = day;
      const id = `${day} ${m.key}`;
      if (lines.delete(id)) continue;
      const line = make("div", "day", this.#dayText(m.at));
      line.dataset["day"] = day;
      c.before(line);
    }
    for (const line of lines.values()) line.remove();
    this.#keepEnd();
  }

  #dayText(at: number): string {
    const day = new Date(at).toDateString();
    if (day === new Date().toDateString()) return this.texts("today");
    if (day === new Date(Date.now() - 86_400_000).toDateString()) return this.texts("yesterday");
    return new Intl.DateTimeFormat(this.language, { dateStyle: "long" }).format(at);
  }
}
