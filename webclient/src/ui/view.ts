// The widget's window, without what moves it.

import type { Phase } from "../core/link.js";
import type { Texts } from "../i18n/strings.js";
import { make } from "./bubble.js";
import { icon } from "./icons.js";
import type { People } from "./people.js";

export interface Actions {
  write(text: string): void;
  typed(empty: boolean): void;
  hurry(): void;
  open(open: boolean): void;
  login(user: string, password: string): void;
}

export class View {
  readonly launcher = make("button", "launcher", icon("chat"));
  readonly panel = make("section", "panel");
  readonly badge = make("span", "badge");
  readonly input = make("textarea");
  readonly #dot = make("span", "dot");
  readonly #presence = make("span", "", "");
  readonly #notice = make("div", "notice");
  readonly #typing = make("div", "typing");
  readonly #said = make("div", "only-read");
  readonly #comings = make("div", "only-read");
  readonly #form = make("form", "write");
  readonly #body = make("div", "body");
  #login: HTMLFormElement | undefined;
  #people: People | undefined;

  constructor(
    private readonly texts: Texts,
    private readonly name: string,
    private readonly floating: boolean,
    private readonly actions: Actions,
    user: string,
  ) {
    const close = make("button", "round close", icon("close"));
    close.type = "button";
    close.setAttribute("aria-label", texts("close"));
    close.onclick = () => actions.open(false);
    close.hidden = !floating;
    const title = make("h2", "name", name);
    title.dir = "auto";
    const header = make("header", "", make("div", "who", title, make("div", "presence", this.#dot, this.#presence)), this.badge, close);
    this.#notice.hidden = true;
    this.#notice.setAttribute("role", "status");
    this.#said.setAttribute("role", "status");
    this.#comings.setAttribute("role", "status");
    this.#body.style.display = "contents";
    this.panel.setAttribute("aria-label", name);
    this.panel.append(header, this.#notice, this.#body, this.#typing, this.#form, this.#said, this.#comings);
    this.panel.onkeydown = (e) => {
      if (e.key !== "Escape") return;
      if (this.#people?.isOpen) {
        e.stopPropagation();
        this.#people.open(false);
        this.#people.count.focus();
      } else if (floating) {
        e.stopPropagation();
        actions.open(false);
      }
    };
    this.launcher.type = "button";
    this.launcher.onclick = () => actions.open(true);
    this.badge.hidden = true;
    this.#write();
    this.presence(undefined, "");
    this.unread(0);
    this.input.setAttribute("data-user", user);
  }

  content(...nodes: Node[]): void {
    this.#body.replaceChildren(...nodes);
  }

  // inRoom shows who is in a room, where it would show whether a contact is there.
  inRoom(people: People): void {
    this.#people = people;
    this.#presence.replaceWith(people.count);
    this.panel.querySelector(".name")?.after(people.subject);
    this.#notice.before(people.list);
  }

  open(open: boolean): void {
    this.panel.hidden = !open;
    this.launcher.hidden = !this.floating || open;
    this.launcher.setAttribute("aria-expanded", String(open));
  }

  #write(): void {
    this.input.rows = 1;
    this.input.dir = "auto";
    this.input.placeholder = this.texts("placeholder");
    this.input.setAttribute("aria-label", this.texts("placeholder"));
    this.input.enterKeyHint = "send";
    const go = make("button", "round go", icon("send"));
    go.type = "submit";
    go.setAttribute("aria-label", this.texts("send"));
    this.#form.append(this.input, go);
    this.#form.onsubmit = (e) => {
      e.preventDefault();
      this.actions.write(this.input.value);
    };
    this.input.onkeydown = (e) => {
      // isComposing: the key belongs to an input method.
      if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
      e.preventDefault();
      this.actions.write(this.input.value);
    };
    this.input.oninput = () => {
      this.#grow();
      this.actions.typed(this.input.value.trim() === "");
    };
  }

  // #grow is for browsers without field-sizing.
  #grow(): void {
    this.input.style.blockSize = "auto";
    this.input.style.blockSize = `${this.input.scrollHeight + 2}px`;
  }

  // taken clears the field of a text that is on its way into the queue. What is typed from now on stays.
  taken(): void {
    this.input.value = "";
    this.#grow();
  }

  // giveBack puts a text that did not get there before what has been typed since.
  giveBack(text: string): void {
    const since = this.input.value;
    this.input.value = since === "" ? text : `${text}\n${since}`;
    this.#grow();
  }

  askLogin(user: string | undefined): void {
    this.#form.hidden = user !== undefined;
    this.#login?.remove();
    this.#login = undefined;
    if (user === undefined) return;
    const name = make("input");
    name.name = "username";
    name.autocomplete = "username";
    name.required = true;
    name.value = user;
    const password = make("input");
    password.type = "password";
    password.name = "password";
    password.autocomplete = "current-password";
    password.required = true;
    const go = make("button", "", this.texts("signIn"));
    this.#login = make("form", "login", make("label", "", this.texts("user"), name), make("label", "", this.texts("password"), password), go);
    this.#login.onsubmit = (e) => {
      e.preventDefault();
      this.actions.login(name.value.trim(), password.value);
      password.value = "";
    };
    this.content(this.#login);
  }

  phase(phase: Phase): void {
    const { texts } = this;
    if (phase.kind === "online" || phase.kind === "off") return this.notice("");
    if (phase.kind === "connecting") {
      // Nobody is bothered with what takes a moment; what was said before stays until then.
      if (this.#notice.hidden) setTimeout(() => this.panel.dataset["phase"] === "connecting" && this.#notice.hidden && this.notice(texts("connecting")), 1500);
      return;
    }
    if (phase.kind === "refused") return this.notice(texts("refused", { reason: phase.reason }), true);
    this.notice(texts("waiting"));
    this.#offer(texts("tryNow"));
  }

  // trouble says why one is not in the room, in which one was before or not.
  trouble(text: string, before: boolean): void {
    this.notice(text, true);
    this.#offer(this.texts(before ? "joinAgain" : "tryNow"));
  }

  #offer(text: string): void {
    const now = make("button", "plain", text);
    now.type = "button";
    now.onclick = () => this.actions.hurry();
    this.#notice.append(now);
  }

  notice(text: string, bad = false): void {
    // The button that somebody pressed goes, and with it the focus.
    const focused = this.#notice.contains((this.#notice.getRootNode() as ShadowRoot | Document).activeElement);
    this.#notice.hidden = text === "";
    this.#notice.classList.toggle("bad", bad);
    this.#notice.replaceChildren(...(text === "" ? [] : [make("span", "", text)]));
    if (focused) this.input.focus();
  }

  // presence shows what is known of the other side; undefined for nothing.
  presence(available: boolean | undefined, status = ""): void {
    const kind = available === undefined ? "unknown" : !available ? "offline" : status === "" || status === "chat" ? "online" : "away";
    this.#dot.className = `dot ${kind}`;
    this.#presence.textContent = this.texts(kind); // not seen in a room
  }

  typing(state: "composing" | "paused" | ""): void {
    this.#typing.textContent = state === "" ? "" : this.texts(state === "composing" ? "typing" : "paused", { name: this.name });
  }

  // say tells a screen reader something that is seen elsewhere.
  say(text: string): void {
    this.#said.textContent = text;
  }

  // sayComings does so of who comes and goes, apart from what concerns oneself.
  sayComings(text: string): void {
    this.#comings.textContent = text;
  }

  unread(count: number): void {
    const text = count > 99 ? "99+" : String(count);
    this.badge.hidden = count === 0;
    this.badge.replaceChildren(make("span", "", text), make("span", "only-read", ` ${this.texts("unread", { count })}`));
    (this.badge.firstElementChild as HTMLElement).setAttribute("aria-hidden", "true");
    const label = this.texts("open", { name: this.name });
    this.launcher.setAttribute("aria-label", count === 0 ? label : `${label}, ${this.texts("unread", { count })}`);
    if (this.floating) {
      const home = this.launcher.hidden ? this.panel.querySelector("header .close") : null;
      if (home) home.before(this.badge);
      else this.launcher.append(this.badge);
    }
  }
}
