// The demo page: two people in one window, one to one or in a room, and a switch for the network of each.

import { inRoom, texts } from "../src/i18n/strings.js";
import { icon, type Icon } from "../src/ui/icons.js";

function find(selector: string): HTMLElement;
function find<K extends keyof HTMLElementTagNameMap>(selector: string, tag: K): HTMLElementTagNameMap[K];
function find(selector: string, tag = ""): HTMLElement {
  const el = document.querySelector<HTMLElement>(selector);
  if (!el || (tag !== "" && el.localName !== tag)) throw new Error(`no ${selector}`);
  return el;
}

const states = ["queued", "sending", "held", "delivered", "read", "failed"] as const satisfies Icon[];
const people: Record<string, string> = { romeo: "Romeo", juliet: "Juliet" };
const kind = find("#kind", "select");
kind.value = new URLSearchParams(location.search).has("room") ? "room" : "";
const language = find("#language", "select");
const theme = find("#theme", "select");

const isRoom = (): boolean => kind.value === "room";

function frames(): void {
  for (const [who, name] of Object.entries(people)) {
    const frame = find(`#${who} iframe`, "iframe");
    const here = new URLSearchParams(location.search);
    here.set("who", who);
    here.set("lang", language.value);
    here.set("theme", theme.value);
    if (isRoom()) here.set("room", "");
    else here.delete("room");
    frame.src = `/demo/side.html?${here.toString()}`;
    frame.title = isRoom() ? `The room as ${name} sees it` : `${name}’s chat with ${who === "romeo" ? "Juliet" : "Romeo"}`;
    set(who, true);
  }
}

// explain says what is different in a room: what the states mean, and the line that a page needs.
function explain(): void {
  const words = isRoom() ? inRoom(texts("en")) : texts("en");
  find("#states").replaceChildren(
    ...states
      .filter((state) => !(isRoom() && state === "read"))
      .map((state) => {
        const item = document.createElement("li");
        item.append(icon(state), words(state));
        return item;
      }),
  );
  const place = isRoom() ? 'room="lobby@conference.example.com" name="Lobby"' : 'contact="support@example.com" name="Support"';
  find("#snippet").textContent = `<script type="module" src="${location.origin}${widget.path}"
  integrity="${widget.integrity}" crossorigin></script>
<holdfast-chat ${place} mode="button"></holdfast-chat>`;
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

const { room } = (await (await fetch("/demo/settings.json")).json()) as { room: string };
if (room === "") find("#kind option[value=room]").remove();
const widget = (await (await fetch("/widget.json")).json()) as { integrity: string; path: string };
kind.addEventListener("change", () => {
  frames();
  explain();
});
explain();
