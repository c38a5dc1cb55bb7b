// The demo page: two people in one window, and a switch for the network of each.

import type { Key } from "../src/i18n/strings.js";
import { texts } from "../src/i18n/strings.js";
import { icon, type Icon } from "../src/ui/icons.js";

function find(selector: string): HTMLElement;
function find<K extends keyof HTMLElementTagNameMap>(selector: string, tag: K): HTMLElementTagNameMap[K];
function find(selector: string, tag = ""): HTMLElement {
  const el = document.querySelector<HTMLElement>(selector);
  if (!el || (tag !== "" && el.localName !== tag)) throw new Error(`no ${selector}`);
  return el;
}

const states: Icon[] = ["queued", "sending", "held", "delivered", "read", "failed"];
const words = texts("en");
find("#states").append(
  ...states.map((state) => {
    const item = document.createElement("li");
    item.append(icon(state), words(state as Key));
    return item;
  }),
);

const language = find("#language", "select");
const theme = find("#theme", "select");

function frames(): void {
  for (const who of ["romeo", "juliet"]) {
    const frame = find(`#${who} iframe`, "iframe");
    const here = new URLSearchParams(location.search);
    here.set("who", who);
    here.set("lang", language.value);
    here.set("theme", theme.value);
    frame.src = `/demo/side.html?${here.toString()}`;
    set(who, true);
  }
}

function set(who: string, on: boolean): void {
  const button = find(`#${who} button`, "button");
  button.setAttribute("aria-checked", String(on));
  find(`#${who} .state`).textContent = on ? "Network on" : "Network cut";
  find(`#${who}`).classList.toggle("cut", !on);
}

for (const who of ["romeo", "juliet"]) {
  find(`#${who} button`, "button").addEventListener("click", () => {
    const page = find(`#${who} iframe`, "iframe").contentWindow;
    if (!page?.network) return;
    page.network.set(!page.network.on);
    set(who, page.network.on);
  });
}

function themed(): void {
  document.documentElement.dataset["theme"] = theme.value;
  frames();
}
language.addEventListener("change", frames);
theme.addEventListener("change", themed);
themed();

const { integrity, path } = (await (await fetch("/widget.json")).json()) as { integrity: string; path: string };
find("#snippet").textContent = `<script type="module" src="${location.origin}${path}"
  integrity="${integrity}" crossorigin></script>
<holdfast-chat contact="support@example.com" name="Support" mode="button"></holdfast-chat>`;
