// One side of the demo: a page with the widget, as any site would have it.

import type * as Widget from "../src/widget.js";

const widget = "/widget.js";
const { guestAddress } = (await import(widget)) as typeof Widget;

const people: Record<string, string> = { romeo: "Romeo", juliet: "Juliet" };
const here = new URLSearchParams(location.search);
const me = here.get("who") === "juliet" ? "juliet" : "romeo";
const other = me === "romeo" ? "juliet" : "romeo";
const { domain, room } = (await (await fetch("/demo/settings.json")).json()) as { domain: string; room: string };

const chat = document.createElement("holdfast-chat");
const place: Record<string, string> = here.has("room")
  ? { room, nick: people[me] ?? me, name: "Demo room" }
  : { contact: await guestAddress(`demo ${other}`, domain), name: people[other] ?? other };
const attributes: Record<string, string> = {
  ...place,
  domain,
  guest: `demo ${me}`,
  lang: here.get("lang") ?? "",
  theme: here.get("theme") ?? "",
  "give-up": here.get("give-up") ?? "60",
};
for (const [name, value] of Object.entries(attributes)) if (value !== "") chat.setAttribute(name, value);
document.body.append(chat);
