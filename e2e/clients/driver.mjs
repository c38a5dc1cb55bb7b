// What the drivers of both libraries share: the Go test talks to a driver in JSON lines, commands on standard input,
// events on standard output. A driver is the smallest app around a stock library: it has its own list of messages
// to send, hands them to the library while there is a session, and says what comes back.
//
// Commands: start {service, domain, user, password, resource, sm}; chat {id, xml}: one more message to send, in order;
// stanza {xml}: send this now; iq {ref, xml}: send this and report the answer; stop: log out and exit. Over BOSH also
// session: say what attaches to this session; in a browser reload {how} and screenshot {ref, file}.
// Events: online {jid, resumed}, offline, stanza {xml}, acked {id}, reply {ref, xml}, session {jid, sid, rid}, log {text}.

import { createInterface } from "node:readline";

export function emit(event, fields = {}) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");
}

export function log(...parts) {
  emit("log", { text: parts.map(String).join(" ").slice(0, 500) });
}

// window bounds what is sent and not acknowledged, as an app would.
const window = 100;

// Outgoing is an app's list of messages. transmit(item) hands one to the library and says whether the library took
// it (a promise or a value).
export class Outgoing {
  #transmit;
  #waiting = [];
  #sent = []; // taken by the library, not acknowledged
  #online = false;
  #pumping = false;

  constructor(transmit) {
    this.#transmit = transmit;
  }

  add(item) {
    this.#waiting.push(item);
    this.#pump();
  }

  get online() {
    return this.#online;
  }

  set online(yes) {
    this.#online = yes;
    this.#pump();
  }

  get sent() {
    return this.#sent;
  }

  // acknowledge reports and forgets the first n that were sent.
  acknowledge(n) {
    for (const item of this.#sent.splice(0, n)) emit("acked", { id: item.id });
    this.#pump();
  }

  // retry puts what the library gave up back in front, in order.
  retry() {
    this.#waiting.unshift(...this.#sent.splice(0));
  }

  async #pump() {
    if (this.#pumping) return;
    this.#pumping = true;
    while (this.#online && this.#waiting.length > 0 && this.#sent.length < window) {
      const item = this.#waiting.shift();
      this.#sent.push(item);
      if (!(await this.#transmit(item))) {
        // It was not taken, so nothing after it was either.
        this.#sent.splice(this.#sent.indexOf(item), 1);
        this.#waiting.unshift(item);
        this.#online = false;
      }
    }
    this.#pumping = false;
  }
}

export function commands(handlers) {
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => {
    const { cmd, ...args } = JSON.parse(line);
    Promise.resolve()
      .then(() => handlers[cmd](args))
      .catch((err) => log(cmd, "failed:", err?.stack ?? err));
  });
  // The test is gone: so is the driver.
  lines.on("close", () => process.exit(0));
}

process.on("unhandledRejection", (err) => log("unhandled rejection:", err?.stack ?? err));
process.on("uncaughtException", (err) => log("uncaught exception:", err?.stack ?? err));
