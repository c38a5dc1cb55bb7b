// <holdfast-chat>: the custom element that a page has. README.md of the project says what its attributes mean.

import { Client, Refused, type Account, type News, type Wanted } from "../client.js";
import type { Scene, Trouble } from "../core/conversation.js";
import type { Phase } from "../core/link.js";
import type { Message } from "../core/message.js";
import type { Occupant } from "../core/muc.js";
import type { ChatState } from "../core/stanzas.js";
import { shown } from "../core/text.js";
import { inRoom, texts, type Table, type Texts } from "../i18n/strings.js";
import { stateText } from "./bubble.js";
import { Log } from "./log.js";
import { People } from "./people.js";
import css from "./styles.css";
import { unreadInTitle } from "./title.js";
import { View } from "./view.js";

const origin = new URL(import.meta.url);

const attributes = ["service", "bosh", "domain", "contact", "room", "nick", "name", "user", "guest", "theme", "lang", "mode", "give-up"] as const;
type Attribute = (typeof attributes)[number];

const nowhere: Scene = { stage: "out", nick: "", subject: "", occupants: [] };

function same(a: Occupant[], b: Occupant[]): boolean {
  return a.length === b.length && a.every((o, n) => o.nick === b[n]?.nick && o.own === b[n].own && o.id === b[n].id);
}

const composingFor = 5_000; // ms without a key after which somebody is said to have paused

export class HoldfastChat extends HTMLElement {
  static readonly observedAttributes = [...attributes, "open", "title-count"];

  #client: Client | undefined;
  #view: View | undefined;
  #log: Log | undefined;
  #texts: Texts = texts("en");
  #strings: Table = {};
  #account: Account | undefined; // from login()
  #phase: Phase = { kind: "off" };
  #people: People | undefined; // only in a room
  #scene: Scene = nowhere;
  #building = false;
  #composing: ReturnType<typeof setTimeout> | undefined;
  #theirs: ReturnType<typeof setTimeout> | undefined;
  readonly #dark = matchMedia("(prefers-color-scheme: dark)");

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(css);
    root.adoptedStyleSheets = [sheet];
  }

  connectedCallback(): void {
    this.#dark.addEventListener("change", this.#theme);
    visualViewport?.addEventListener("resize", this.#fit);
    visualViewport?.addEventListener("scroll", this.#fit);
    this.#build();
  }

  disconnectedCallback(): void {
    this.#dark.removeEventListener("change", this.#theme);
    visualViewport?.removeEventListener("resize", this.#fit);
    visualViewport?.removeEventListener("scroll", this.#fit);
    this.#tearDown();
  }

  attributeChangedCallback(name: string, before: string | null, after: string | null): void {
    if (before === after || !this.isConnected) return;
    if (name === "theme") this.#theme();
    else if (name === "open") {
      this.#view?.open(this.isOpen);
      this.#unread();
    }
    else if (name === "title-count") this.#unread();
    else this.#build();
  }

  // The JavaScript API.

  // login connects as a user, with a password or with a token that the site's own server made.
  login(who: { user: string; password: string } | { user: string; token: string }): void {
    this.#account = "token" in who ? { kind: "token", ...who } : { kind: "password", ...who };
    this.#build();
  }

  // logout ends the session; the history stays on this device.
  async logout(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    this.#account = undefined;
    await client?.logout();
    this.#build();
  }

  // send puts a text into the queue; it is kept when the promise resolves.
  async send(text: string): Promise<{ id: string }> {
    if (this.#building) await Promise.resolve(); // by the microtask of #build, which is before this one
    if (!this.#client) throw new Error("holdfast-chat: not connected to a contact");
    const { id } = await this.#client.send(text);
    return { id };
  }

  get messages(): { id: string; direction: "in" | "out"; body: string; at: Date; state: string; nick?: string }[] {
    return (this.#log?.messages ?? []).map((m) => ({
      id: m.id,
      direction: m.dir,
      body: m.body,
      at: new Date(m.at),
      state: m.dir === "out" ? m.state : m.seen ? "seen" : "unseen",
      ...(m.dir === "in" && m.nick !== undefined ? { nick: m.nick } : {}),
    }));
  }

  get unread(): number {
    return this.#log?.unseen ?? 0;
  }

  // Who is in the room, while one is in it oneself.
  get occupants(): { nick: string; own: boolean }[] {
    return this.#scene.occupants.map(({ nick, own }) => ({ nick, own }));
  }

  // The room's subject, "" for none.
  get subject(): string {
    return this.#scene.subject;
  }

  // The own address, "" until it is known.
  get address(): string {
    return this.#client?.address ?? "";
  }

  get connection(): { state: Phase["kind"]; via?: "websocket" | "bosh" } {
    return this.#phase.kind === "online" ? { state: "online", via: this.#phase.via } : { state: this.#phase.kind };
  }

  // strings are a language of the page's own, or other words: a table like src/i18n/en.json, in full or in part.
  get strings(): Table {
    return this.#strings;
  }

  set strings(table: Table) {
    this.#strings = { ...table };
    if (this.isConnected) this.#build();
  }

  get isOpen(): boolean {
    return this.#attribute("mode") !== "button" || this.hasAttribute("open");
  }

  show(): void {
    this.setAttribute("open", "");
    this.#view?.input.focus();
  }

  hide(): void {
    this.removeAttribute("open");
    this.#view?.launcher.focus();
  }

  // What happens inside.

  #attribute(name: Attribute): string {
    return this.getAttribute(name)?.trim() ?? "";
  }

  get #language(): string {
    const asked = this.#attribute("lang") || this.closest("[lang]")?.getAttribute("lang") || document.documentElement.lang || navigator.language;
    try {
      return Intl.getCanonicalLocales(asked)[0] ?? "en";
    } catch {
      return "en";
    }
  }

  // #build makes everything anew after the attributes that are there now, once for all that change at a time.
  #build(): void {
    if (this.#building) return;
    this.#building = true;
    queueMicrotask(() => {
      this.#building = false;
      if (this.isConnected) this.#rebuild();
    });
  }

  #tearDown(): void {
    void this.#client?.close();
    this.#client = undefined;
    this.#log?.close();
    this.#log = undefined;
    clearTimeout(this.#composing);
    clearTimeout(this.#theirs);
    unreadInTitle(this, 0);
  }

  #rebuild(): void {
    this.#tearDown();
    this.#phase = { kind: "off" };
    this.#scene = nowhere;
    const [contact, room] = [this.#attribute("contact"), this.#attribute("room")];
    const name = this.#attribute("name") || room || contact;
    const floating = this.#attribute("mode") === "button";
    const words = texts(this.#language, this.#strings);
    this.#texts = room === "" ? words : inRoom(words);
    this.dataset["mode"] = floating ? "button" : "inline";
    this.#theme();
    this.#fit();
    const view = new View(
      this.#texts,
      name,
      floating,
      {
        write: (text) => void this.#write(text),
        typed: (empty) => this.#typed(empty),
        hurry: () => this.#client?.hurry(),
        open: (open) => (open ? this.show() : this.hide()),
        login: (user, password) => this.login({ user, password }),
      },
      this.#attribute("user"),
    );
    this.#view = view;
    view.open(this.isOpen);
    this.shadowRoot?.replaceChildren(view.launcher, view.panel);
    this.#people = room === "" ? undefined : new People(this.#texts, (text) => view.sayComings(text));
    if (this.#people) view.inRoom(this.#people);
    if (contact !== "" && room !== "") {
      view.notice(this.#texts("both"), true);
      return this.#emit("holdfast-error", { error: new Error("holdfast-chat: contact and room exclude each other") });
    }
    if (contact === "" && room === "") return;
    const user = this.#attribute("user");
    if (user !== "" && !this.#account) return view.askLogin(user);
    const wanted: Wanted = room === "" ? { contact } : { room, nick: this.#attribute("nick"), guestNick: (id) => this.#texts("guestNick", { id }) };
    this.#start(view, wanted, name);
  }

  // #domain is where the account is: by default the contact's, and for a room that without its first label.
  #domain(wanted: Wanted): string {
    const at = (address: string): string => address.slice(address.indexOf("@") + 1).replace(/\/.*/, "");
    return this.#attribute("domain") || ("room" in wanted ? at(wanted.room).replace(/^[^.]*\./, "") : at(wanted.contact));
  }

  #start(view: View, wanted: Wanted, name: string): void {
    const service = this.#attribute("service");
    const client = new Client({
      websocket: service === "none" ? "" : this.#url(service, "xmpp-websocket", "ws"),
      bosh: this.#attribute("bosh") === "none" ? "" : this.#url(this.#attribute("bosh"), "http-bind", "http"),
      domain: this.#domain(wanted),
      with: wanted,
      account: this.#account ?? { kind: "guest", profile: this.#attribute("guest") || "guest" },
      giveUp: (Number(this.#attribute("give-up")) || 120) * 1000,
    });
    this.#client = client;
    const log = new Log(
      this.#texts,
      this.#language,
      name,
      {
        again: (key) => this.#quietly(client, client.resend(key)),
        discard: (key) => this.#quietly(client, this.#discard(client, key)),
      },
      (key) => {
        if (this.isOpen) this.#quietly(client, client.seen(key));
      },
    );
    this.#log = log;
    view.content(log.el, log.newer);
    client.news.on((news) => {
      if (this.#client === client) this.#news(client, view, log, news);
    });
    client
      .open()
      .then((history) => {
        if (this.#client !== client) return;
        log.history(history);
        this.#unread();
        this.#emit("holdfast-ready", {});
      })
      .catch((err: unknown) => {
        if (this.#client === client) view.notice(this.#texts("storage", { reason: err instanceof Error ? err.message : String(err) }), true);
      });
  }

  // #url is an address of the gateway: as it is given, or where this script came from.
  #url(given: string, path: string, scheme: "ws" | "http"): string {
    const url = new URL(given || `/${path}`, given === "" ? origin : document.baseURI);
    url.protocol = url.protocol === "https:" || url.protocol === "wss:" ? `${scheme}s:` : `${scheme}:`;
    return url.href;
  }

  #news(client: Client, view: View, log: Log, news: News): void {
    switch (news.kind) {
      case "messages":
        this.#quietly(client, this.#changed(client, log, news.keys));
        return;
      case "came":
        view.typing("");
        log.put(news.message);
        this.#unread();
        this.#emit("holdfast-message", {
          id: news.message.id,
          body: news.message.body,
          from: news.message.with,
          ...(news.message.nick === undefined ? {} : { nick: news.message.nick }),
        });
        return;
      case "room":
        return this.#room(view, news.scene);
      case "typing":
        return this.#theyType(view, news.state);
      case "presence":
        return view.presence(news.available, news.status);
      case "phase":
        this.#phase = news.phase;
        view.panel.dataset["phase"] = news.phase.kind;
        view.panel.dataset["via"] = news.phase.kind === "online" ? news.phase.via : "";
        if (news.phase.kind !== "online") {
          view.presence(undefined);
          view.typing("");
          this.#people?.away(false);
        }
        view.phase(news.phase);
        if (news.phase.kind === "refused") this.#refused(view, news.phase.reason);
        this.#emit("holdfast-connection", this.connection);
        return;
      case "me":
        this.#emit("holdfast-address", { address: news.address });
        return;
      case "error":
        view.notice(this.#texts("storage", { reason: news.error instanceof Error ? news.error.message : String(news.error) }), true);
        this.#emit("holdfast-error", { error: news.error });
    }
  }

  async #changed(client: Client, log: Log, keys: number[]): Promise<void> {
    const found = await client.messages(keys);
    if (this.#client !== client) return;
    found.forEach((m, n) => {
      const key = keys[n];
      if (key === undefined) return;
      if (!m) return log.remove(key);
      if (m.dir === "in" && m.seen) log.old(m);
      else log.put(m);
      this.#tell(m);
    });
    this.#unread();
  }

  #tell(m: Message): void {
    if (m.dir !== "out") return;
    if (m.state === "failed") this.#view?.say(`${stateText(m, this.#texts)}: ${m.body.slice(0, 100)}`);
    this.#emit("holdfast-state", { id: m.id, state: m.state, ...(m.reason ? { reason: m.reason } : {}) });
  }

  #room(view: View, scene: Scene): void {
    const before = this.#scene;
    this.#scene = scene;
    if (this.#phase.kind !== "online") return;
    view.presence(scene.stage === "in" ? true : undefined);
    this.#people?.update(scene);
    if (scene.trouble) view.trouble(this.#troubleText(scene.trouble), scene.trouble.kind !== "refused" && scene.trouble.kind !== "nick");
    else if (before.trouble) view.notice("");
    if (!same(before.occupants, scene.occupants)) this.#emit("holdfast-occupants", { occupants: this.occupants });
    if (scene.trouble && JSON.stringify(before.trouble) !== JSON.stringify(scene.trouble)) this.#emit("holdfast-error", { error: new Error(this.#troubleText(scene.trouble)), ...scene.trouble });
  }

  #troubleText({ kind, condition, text }: Trouble): string {
    const reason = shown(text || condition);
    if (kind === "refused") return this.#texts("roomRefused", { reason });
    if (kind === "nick") return this.#texts("nickTaken");
    return text === "" ? this.#texts(kind) : `${this.#texts(kind)} (${reason})`;
  }

  #refused(view: View, reason: string): void {
    if (this.#account?.kind === "password") {
      const user = this.#account.user;
      this.#account = undefined;
      view.askLogin(user);
      view.notice(this.#texts(reason === "not-authorized" ? "refusedLogin" : "refused", { reason }), true);
    } else if (reason === "no-auth-mech" && !this.#account) view.notice(this.#texts("refusedGuest"), true);
  }

  async #write(text: string): Promise<void> {
    const { view, client } = { view: this.#view, client: this.#client };
    if (!view || !client) return;
    // At once: it takes a moment to be safe in the queue, and meanwhile the next one is typed.
    view.taken();
    clearTimeout(this.#composing);
    this.#composing = undefined;
    try {
      await client.send(text);
    } catch (err) {
      view.giveBack(text);
      if (err instanceof Refused) {
        if (err.why !== "empty") view.notice(this.#texts(err.why), true);
        return;
      }
      view.notice(this.#texts("storage", { reason: String(err) }), true);
    }
  }

  async #discard(client: Client, key: number): Promise<void> {
    const sure = await client.discard(key);
    this.#view?.say(this.#texts(sure ? "discarded" : "discardedMaybe"));
    if (!sure) this.#view?.notice(this.#texts("discardedMaybe"));
    this.#view?.input.focus();
  }

  #typed(empty: boolean): void {
    if (empty && this.#composing === undefined) return;
    if (this.#composing === undefined) this.#client?.typing("composing");
    clearTimeout(this.#composing);
    const pause = (): void => {
      this.#composing = undefined;
      this.#client?.typing(empty ? "active" : "paused");
    };
    if (empty) pause();
    else this.#composing = setTimeout(pause, composingFor);
  }

  #theyType(view: View, state: ChatState): void {
    clearTimeout(this.#theirs);
    view.typing(state === "composing" || state === "paused" ? state : "");
    if (state === "composing" || state === "paused") this.#theirs = setTimeout(() => view.typing(""), 60_000);
  }

  #unread(): void {
    const count = this.unread;
    this.#view?.unread(count);
    unreadInTitle(this, this.getAttribute("title-count") === "off" ? 0 : count);
    this.#emit("holdfast-unread", { count });
  }

  // #quietly says what failed, unless it is because the widget was closed or made anew meanwhile.
  #quietly(client: Client, work: Promise<unknown>): void {
    work.catch((error: unknown) => {
      if (this.#client === client) this.#emit("holdfast-error", { error });
    });
  }

  #emit(name: string, detail: object): void {
    this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
  }

  readonly #theme = (): void => {
    const theme = this.#attribute("theme");
    this.toggleAttribute("data-dark", theme === "dark" || (theme !== "light" && this.#dark.matches));
  };

  // #fit makes room for the on-screen keyboard, which covers the page without telling it (iOS).
  readonly #fit = (): void => {
    if (!visualViewport || visualViewport.scale > 1.01) return;
    this.style.setProperty("--hf-height", `${visualViewport.height}px`);
    this.style.setProperty("--hf-top", `${visualViewport.offsetTop}px`);
  };
}
