// The stanzas that the widget sends, as text, and what it reads in those that come.

export const ns = {
  client: "jabber:client",
  receipts: "urn:xmpp:receipts",
  markers: "urn:xmpp:chat-markers:0",
  states: "http://jabber.org/protocol/chatstates",
  delay: "urn:xmpp:delay",
  sid: "urn:xmpp:sid:0",
  hints: "urn:xmpp:hints",
  disco: "http://jabber.org/protocol/disco#info",
  caps: "http://jabber.org/protocol/caps",
  ping: "urn:xmpp:ping",
  muc: "http://jabber.org/protocol/muc",
  mucUser: "http://jabber.org/protocol/muc#user",
  occupant: "urn:xmpp:occupant-id:0",
  stanzas: "urn:ietf:params:xml:ns:xmpp-stanzas",
} as const;

export function escape(text: string): string {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;").replace(/'/g, "&apos;");
}

// chat is a message that asks for a receipt and a marker. One that waited says since when (XEP-0203).
export function chat(m: { id: string; with: string; body: string; at: number }, now: number): string {
  const delay = now - m.at > 10_000 ? `<delay xmlns="${ns.delay}" stamp="${new Date(m.at).toISOString()}"/>` : "";
  return (
    `<message xmlns="${ns.client}" type="chat" to="${escape(m.with)}" id="${escape(m.id)}"><body>${escape(m.body)}</body>` +
    `<request xmlns="${ns.receipts}"/><markable xmlns="${ns.markers}"/><active xmlns="${ns.states}"/>${delay}</message>`
  );
}

export function receipt(id: string, to: string, of: string): string {
  return `<message xmlns="${ns.client}" to="${escape(to)}" id="${escape(id)}"><received xmlns="${ns.receipts}" id="${escape(of)}"/><store xmlns="${ns.hints}"/></message>`;
}

export function displayed(id: string, to: string, of: string): string {
  return `<message xmlns="${ns.client}" to="${escape(to)}" id="${escape(id)}"><displayed xmlns="${ns.markers}" id="${escape(of)}"/><store xmlns="${ns.hints}"/></message>`;
}

export type ChatState = "active" | "composing" | "paused" | "inactive" | "gone";

export function chatState(to: string, state: ChatState): string {
  return `<message xmlns="${ns.client}" type="chat" to="${escape(to)}"><${state} xmlns="${ns.states}"/><no-store xmlns="${ns.hints}"/></message>`;
}

// placeholder counts like the stanza in whose place it is, and does nothing (RFC 6120 §8.2.3: nobody answers a result).
export function placeholder(id: string): string {
  return `<iq xmlns="${ns.client}" type="result" id="${escape(id)}"/>`;
}

// What the widget says it can do (XEP-0030, XEP-0115).
export const node = "https://holdfast.invalid/webclient";
export const features = [ns.caps, ns.states, ns.disco, ns.markers, ns.ping, ns.receipts].sort();
// The hash of identity client/web and the features (XEP-0115 §5.1); a test computes it.
export const ver = "3YgQ+57ZRmVrtATkaBbUOvV3XyA=";

const caps = `<c xmlns="${ns.caps}" hash="sha-1" node="${node}" ver="${ver}"/>`;

export function presence(): string {
  return `<presence xmlns="${ns.client}">${caps}</presence>`;
}

export function subscription(type: "subscribe" | "subscribed", to: string): string {
  return `<presence xmlns="${ns.client}" type="${type}" to="${escape(to)}"/>`;
}

// groupchat is a message to a room. It asks for nothing: the room's own copy says that it is there (XEP-0184 §5).
export function groupchat(m: { id: string; with: string; body: string }): string {
  return `<message xmlns="${ns.client}" type="groupchat" to="${escape(m.with)}" id="${escape(m.id)}"><body>${escape(m.body)}</body></message>`;
}

// History is how much of what was said before the room is asked for (XEP-0045 §7.2.13): since a moment, or so many.
export type History = { since: number } | { most: number };

// join enters a room under a nick, or has the room tell everything anew.
export function join(room: string, nick: string, id: string, history: History): string {
  const wanted = "since" in history ? `since="${new Date(history.since).toISOString()}"` : `maxstanzas="${history.most}"`;
  return `<presence xmlns="${ns.client}" to="${escape(`${room}/${nick}`)}" id="${escape(id)}"><x xmlns="${ns.muc}"><history ${wanted}/></x>${caps}</presence>`;
}

// ping of the own occupant asks whether one is still in a room (XEP-0410).
export function ping(to: string, id: string): string {
  return `<iq xmlns="${ns.client}" type="get" to="${escape(to)}" id="${escape(id)}"><ping xmlns="${ns.ping}"/></iq>`;
}

// answer is what a request of somebody else gets.
export function answer(iq: Element): string | undefined {
  const type = iq.getAttribute("type");
  if (type !== "get" && type !== "set") return undefined;
  const from = iq.getAttribute("from");
  const head = `xmlns="${ns.client}" id="${escape(iq.getAttribute("id") ?? "")}"${from === null ? "" : ` to="${escape(from)}"`}`;
  if (type === "get" && child(iq, "ping", ns.ping)) return `<iq ${head} type="result"/>`;
  const query = type === "get" ? child(iq, "query", ns.disco) : undefined;
  const asked = query?.getAttribute("node") ?? undefined;
  if (query && (asked === undefined || asked === `${node}#${ver}`)) {
    const about = asked === undefined ? "" : ` node="${escape(asked)}"`;
    return `<iq ${head} type="result"><query xmlns="${ns.disco}"${about}><identity category="client" type="web" name="Holdfast"/>${features.map((f) => `<feature var="${f}"/>`).join("")}</query></iq>`;
  }
  return `<iq ${head} type="error"><error type="cancel"><service-unavailable xmlns="${ns.stanzas}"/></error></iq>`;
}

export function child(el: Element, name: string, space?: string): Element | undefined {
  for (let c = el.firstChild; c; c = c.nextSibling) {
    if (c.nodeType !== 1) continue;
    const e = c as Element;
    if (e.localName === name && (space === undefined || e.namespaceURI === space || e.getAttribute("xmlns") === space)) return e;
  }
  return undefined;
}

export function bare(address: string): string {
  const slash = address.indexOf("/");
  return slash < 0 ? address : address.slice(0, slash);
}

export function resource(address: string): string {
  const slash = address.indexOf("/");
  return slash < 0 ? "" : address.slice(slash + 1);
}

// Said is what a message stanza says.
export interface Said {
  id: string;
  from: string; // full address, "" for the own server
  body?: string;
  at?: number; // of a delay stamp
  wantsReceipt: boolean;
  markable: boolean;
  received?: string; // the id that a receipt names
  displayed?: string; // the id that a marker names
  state?: ChatState;
  error?: { condition: string; text: string };
}

const chatStates: ChatState[] = ["active", "composing", "paused", "inactive", "gone"];

export function read(message: Element): Said {
  const said: Said = {
    id: message.getAttribute("id") ?? child(message, "stanza-id", ns.sid)?.getAttribute("id") ?? "",
    from: message.getAttribute("from") ?? "",
    wantsReceipt: child(message, "request", ns.receipts) !== undefined,
    markable: child(message, "markable", ns.markers) !== undefined,
  };
  if (message.getAttribute("type") === "error") {
    const { condition, text } = readError(message);
    said.error = { condition, text };
    return said;
  }
  const body = child(message, "body")?.textContent;
  if (body) said.body = body;
  const stamp = Date.parse(child(message, "delay", ns.delay)?.getAttribute("stamp") ?? "");
  if (!Number.isNaN(stamp)) said.at = stamp;
  const received = child(message, "received", ns.receipts)?.getAttribute("id");
  if (received) said.received = received;
  const shown = child(message, "displayed", ns.markers)?.getAttribute("id");
  if (shown) said.displayed = shown;
  for (const state of chatStates) if (child(message, state, ns.states)) said.state = state;
  return said;
}

// readError reads what is in a stanza of type error (RFC 6120 §8.3).
export function readError(stanza: Element): { type: string; condition: string; text: string } {
  const error = child(stanza, "error");
  const condition = error ? [...elements(error)].find((e) => e.localName !== "text") : undefined;
  return { type: error?.getAttribute("type") ?? "", condition: condition?.localName ?? "undefined-condition", text: (error && child(error, "text")?.textContent) ?? "" };
}

export function* elements(el: Element): Generator<Element> {
  for (let c = el.firstChild; c; c = c.nextSibling) if (c.nodeType === 1) yield c as Element;
}
