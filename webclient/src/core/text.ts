// What is done with the text of messages. Nothing here, or anywhere, makes markup of it.

// Piece is a part of a text: plain, or a link to what it says.
export interface Piece {
  text: string;
  href?: string;
}

// Schemes that a link may have. A text that says javascript: or data: stays a text.
// eslint-disable-next-line no-control-regex
const link = /\b(?:https?:\/\/|mailto:)[^\s<>"'`\u0000-\u0020\u007f-\u00a0\u2028\u2029\u202a-\u202e\u2066-\u2069]+/giu;
// Longer ones are a text.
const mostLink = 2048; // characters

// pieces finds links in a text. What it returns is the text again when joined.
export function pieces(text: string): Piece[] {
  const all: Piece[] = [];
  let from = 0;
  for (const match of text.matchAll(link)) {
    if (match[0].length > mostLink) continue;
    const found = trim(match[0]);
    const href = safe(found);
    if (href === undefined) continue;
    if (match.index > from) all.push({ text: text.slice(from, match.index) });
    all.push({ text: found, href });
    from = match.index + found.length;
  }
  if (from < text.length) all.push({ text: text.slice(from) });
  return all;
}

const ends = new Set(".,;:!?])}…»”’");

// trim leaves out what ends the sentence, not the link. A closing bracket belongs to it when the link opened one.
function trim(found: string): string {
  let open = 0;
  for (const c of found) open += c === "(" ? 1 : c === ")" ? -1 : 0;
  let end = found.length;
  for (; end > 0; end--) {
    const last = found.charAt(end - 1);
    if (!ends.has(last) || (last === ")" && open >= 0)) break;
    if (last === ")") open++;
  }
  return found.slice(0, end);
}

// safe is the address of a link, undefined when it is none to follow: no host, or a user name before it, which only
// serves to look like another host.
export function safe(text: string): string | undefined {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return undefined;
  }
  if (url.protocol === "mailto:") return /^[^@\s]+@[^@\s]+$/u.test(url.pathname) ? url.href : undefined;
  if ((url.protocol === "https:" || url.protocol === "http:") && url.hostname !== "" && url.username === "" && url.password === "") return url.href;
  return undefined;
}

// Characters that XML 1.0 §2.2 does not have, and halves of pairs: a stanza with one would end the stream.
// eslint-disable-next-line no-control-regex
const impossible = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

// sendable is a text as it can be sent: what cannot is U+FFFD.
export function sendable(text: string): string {
  return text.replace(/\r\n?/g, "\n").replace(impossible, "\ufffd");
}

// cut is a text as one line of no more than so many characters.
export function cut(text: string, most: number): string {
  return Array.from(text.replace(/\s+/g, " ").trim()).slice(0, most).join("").trim();
}

// mostBytes bounds what a message may be on the wire, escaped: the gateway takes stanzas of 256 KiB.
export const mostBytes = 128 * 1024;

// bytes is how long a text is on the wire.
export function bytes(text: string): number {
  return new TextEncoder().encode(text.replace(/&/g, "&amp;").replace(/[<>]/g, "&lt;").replace(/["']/g, "&quot;")).length;
}

// shown is a text as it can be shown: characters that nothing shows are made visible, and those which turn the reading
// order of what comes after the message around are left out. The element that shows it isolates its direction.
export function shown(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g, (c) => (c === "\u007f" ? "\u2421" : String.fromCharCode(0x2400 + c.charCodeAt(0)))).replace(/[\u202a-\u202e\u2066-\u2069]/g, "");
}

const emoji = /^(?:\p{Regional_Indicator}{2}|\p{Extended_Pictographic}(?:\ufe0f|\p{Emoji_Modifier})?(?:\u200d\p{Extended_Pictographic}(?:\ufe0f|\p{Emoji_Modifier})?)*|[0-9#*]\ufe0f?\u20e3|\s)+$/u;

// onlyEmoji says whether a short text is nothing else, so that it can be shown large.
export function onlyEmoji(text: string): boolean {
  const t = text.trim();
  return t.length > 0 && t.length <= 30 && !/^[\s0-9#*]+$/.test(t) && emoji.test(t);
}
