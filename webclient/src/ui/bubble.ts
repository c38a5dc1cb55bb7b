// How one message is shown. Texts only ever become text nodes.

import { hue } from "../core/colour.js";
import type { Message, Sent } from "../core/message.js";
import { onlyEmoji, pieces, shown } from "../core/text.js";
import type { Texts } from "../i18n/strings.js";
import { icon } from "./icons.js";

export interface Bubble {
  el: HTMLElement;
  meta: HTMLElement; // what tells, when it is seen, that the message was
  update(m: Message): void;
}

export interface Doing {
  again(key: number): void;
  discard(key: number): void;
}

// A text over one of these is folded.
const manyChars = 1500;
const manyLines = 15;
// What is in the page of a folded one: more than is seen of it. To lay out 100 kB takes a second or more.
const mostFolded = 6000; // characters

export function make<K extends keyof HTMLElementTagNameMap>(tag: K, className = "", ...children: (Node | string)[]): HTMLElementTagNameMap[K] {
  const el = document.createElement(tag);
  if (className !== "") el.className = className;
  el.append(...children);
  return el;
}

// colour gives a name the colour of who has it.
export function colour(el: HTMLElement, id: string): void {
  void hue(id).then((angle) => el.style.setProperty("--hue", angle.toFixed(1)));
}

// sender says who somebody in a room is, over the first of what they say in a row.
function sender(m: Message): HTMLElement | undefined {
  if (m.dir === "out" || m.nick === undefined) return undefined;
  const el = make("div", "sender nick", shown(m.nick));
  el.dir = "auto";
  el.setAttribute("aria-hidden", "true"); // each message says it to a screen reader
  colour(el, m.occupant ?? m.nick);
  return el;
}

// senderOf tells whether two messages are of the same one.
export function senderOf(m: Message): string {
  return m.dir === "out" ? "" : `${m.occupant ?? ""}/${m.nick ?? m.with}`;
}

// author is who said a message, for a screen reader. No nick reads as one's own messages do.
function author(m: Message, texts: Texts, name: string): string {
  if (m.dir === "out") return texts("you");
  return m.nick === undefined ? shown(name) : texts("saidBy", { name: shown(m.nick) });
}

export function bubble(m: Message, texts: Texts, language: string, name: string, doing: Doing): Bubble {
  const el = make("div", "message");
  el.dataset["key"] = String(m.key);
  const said = make("span", "only-read", `${author(m, texts, name)}: `);
  const text = make("p", "text");
  text.dir = "auto";
  const box = make("div", "bubble", said, text);
  if (m.body.length > manyChars || m.body.split("\n", manyLines + 1).length > manyLines) box.append(fold(text, m.body, texts));
  else fill(text, m.body);
  const meta = make("div", "meta");
  const who = sender(m);
  if (who) el.append(who);
  el.append(box, meta);
  const time = make("time", "", new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit" }).format(m.at));
  time.dateTime = new Date(m.at).toISOString();
  let actions: HTMLElement | undefined;
  const update = (m: Message): void => {
    if (m.dir === "in") {
      el.className = "message in";
      meta.replaceChildren(time);
      return;
    }
    el.className = `message out ${m.state}`;
    el.dataset["state"] = m.state;
    const state = make("span", "only-read", stateText(m, texts));
    const picture = icon(m.state);
    const tip = make("span", "", picture, state);
    tip.title = stateText(m, texts);
    meta.replaceChildren(time, tip);
    if (m.state === "failed") meta.append(make("span", "", stateText(m, texts)));
    if (m.state === "failed") state.remove(); // it is said once
    actions?.remove();
    actions = undefined;
    if (m.state === "failed") {
      const again = make("button", "plain again", texts("again"));
      const discard = make("button", "plain discard", texts("discard"));
      again.type = discard.type = "button";
      again.onclick = () => doing.again(m.key);
      discard.onclick = () => doing.discard(m.key);
      actions = make("div", "actions", again, discard);
      el.append(actions);
    }
  };
  update(m);
  return { el, meta, update };
}

export function stateText(m: Sent, texts: Texts): string {
  if (m.state !== "failed") return texts(m.state);
  switch (m.reason?.kind) {
    case "timeout":
      return texts("failedTimeout");
    case "error":
      return texts("failedError", { reason: shown(m.reason.text || m.reason.condition) });
    default:
      return texts("failed");
  }
}

// fill shows a text, or what comes before a place in it: no link that goes beyond, and no half of a character.
function fill(el: HTMLElement, body: string, most = Infinity): void {
  el.classList.toggle("emoji", onlyEmoji(body));
  el.replaceChildren();
  let left = most;
  for (const piece of pieces(shown(body))) {
    if (piece.text.length > left) {
      if (piece.href === undefined) el.append(piece.text.slice(0, left).replace(/[\ud800-\udbff]$/, ""));
      return;
    }
    left -= piece.text.length;
    if (piece.href === undefined) {
      el.append(piece.text);
      continue;
    }
    const a = make("a", "", piece.text);
    a.href = piece.href;
    a.target = "_blank";
    a.rel = "noopener noreferrer nofollow ugc";
    a.referrerPolicy = "no-referrer";
    el.append(a);
  }
}

// fold shows the beginning of a text, and all of it who asks for it.
function fold(text: HTMLElement, body: string, texts: Texts): HTMLElement {
  const more = make("button", "more");
  more.type = "button";
  const show = (all: boolean): void => {
    fill(text, body, all ? Infinity : mostFolded);
    text.classList.toggle("cut", !all);
    more.textContent = texts(all ? "showLess" : "showAll");
    more.setAttribute("aria-expanded", String(all));
  };
  show(false);
  more.onclick = () => show(text.classList.contains("cut"));
  return more;
}
