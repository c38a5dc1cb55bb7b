// The link of strophe.js 5: WebSocket (RFC 7395), or BOSH (XEP-0124) where WebSocket does not come through, with the same
// session of XEP-0198 over either, so that one goes on where the other ended.
//
// strophe speaks the protocols, counts, and keeps what is not acknowledged. What is left to its user is here:
//
//   - connecting again, and which of the two ways to try;
//   - noticing that a connection is dead: over WebSocket strophe has no time-out at all. It is asked for an
//     acknowledgement when nothing was heard for a while, and broken when nothing comes. disconnect() would end the
//     session for good;
//   - XEP-0198 over BOSH: strophe negotiates it over WebSocket only, so the link does it at the moment of binding;
//   - <a h/> that tells of what is stored, not of what strophe has dispatched (see core/courier.ts);
//   - what a lost session did not bring over is not sent again by strophe, which would have it overtake; the courier has
//     it in the queue.

import { Strophe, type SMState } from "strophe.js";
import { Backoff } from "../core/backoff.js";
import { idOf, nameOf, type Ledger, type Link, type Listener, type Numbered, type Phase } from "../core/link.js";
import { anonymous } from "./guest.js";

export type Login = { kind: "guest"; secret: string } | { kind: "password"; user: string; password: string } | { kind: "token"; user: string; token: string };

export interface Service {
  websocket: string; // "" for none
  bosh: string; // "" for none
  domain: string;
  login: Login;
}

// Times in ms; tests have shorter ones.
export const times = {
  open: 10_000, // from connecting to a session
  idle: 20_000, // silence after which the server is asked whether it is there
  answer: 8_000, // how long it may take to answer
  doubt: 2_500, // the same when the browser says that the network changed
  probe: 60_000, // how often WebSocket is tried while BOSH serves
};

type Way = "websocket" | "bosh";
type Connection = InstanceType<typeof Strophe.Connection>;

// What strophe's engine of XEP-0198 has. Its published types are those of an earlier one.
interface Management {
  serverSupported: boolean;
  readonly state: SMState;
  readonly resumed: boolean;
  readonly resumePending: boolean;
  initialize(jid: string): void;
  hasResumableState(): boolean;
  isTracking(): boolean;
  sendEnable(jid: string): void;
  sendResume(): void;
  requestAck(): void;
  sendAck(): void;
  reset(): void;
  onEnabled(): void;
  onFailed(view?: { attrs: Record<string, string> }, resuming?: boolean): void;
}

// What is strophe's own and is used all the same. The version is pinned, and e2e covers each.
interface Inside {
  sm: Management;
  _proto: { _abortAllRequests(): void };
  _doDisconnect(): void;
  _registerSMHandlers(): void;
}

export class StropheLink implements Link {
  ledger: Ledger | undefined;
  ready = false;

  #conn: Connection | undefined;
  #way: Way = "websocket";
  #attempt = 0; // what an earlier one still says does not count
  #entries: Numbered[] = []; // of the ledger, as they were when it last changed
  #backoff = new Backoff();
  #drops = new Backoff(1000, 60_000);
  #retry: ReturnType<typeof setTimeout> | undefined;
  #watch: ReturnType<typeof setInterval> | undefined;
  #heard = 0;
  #asked = 0; // when the server was asked for a sign of life, 0 when it has given one since
  #patience = times.answer;
  #started = 0;
  #probed = 0;
  #stopped = true;

  constructor(
    private readonly service: Service,
    private readonly listener: Listener,
  ) {
    Strophe.setLogLevel(Strophe.LogLevel.FATAL); // broken connections are the daily bread here
  }

  start(ledger: Ledger | undefined): void {
    this.#adopt(ledger);
    this.#stopped = false;
    this.#watch = setInterval(() => this.#look(), 500);
    addEventListener("online", this.#doubt);
    addEventListener("offline", this.#doubt);
    document.addEventListener("visibilitychange", this.#seen);
    this.#connect(this.#first());
  }

  stop(): void {
    this.#stopped = true;
    clearInterval(this.#watch);
    clearTimeout(this.#retry);
    removeEventListener("online", this.#doubt);
    removeEventListener("offline", this.#doubt);
    document.removeEventListener("visibilitychange", this.#seen);
    this.#break();
    this.listener.phase({ kind: "off" });
  }

  end(): void {
    const conn = this.#conn;
    if (this.ready && conn) {
      this.#attempt++;
      conn.disconnect("the user left");
      this.#conn = undefined;
      this.ready = false;
      this.ledger = undefined;
    }
    this.stop();
  }

  push(stanzas: string[], wantsAck: boolean): void {
    const conn = this.#conn;
    if (!this.ready || !conn) {
      const now = Date.now();
      for (const stanza of stanzas) this.ledger?.unacked.push({ name: nameOf(stanza), stanza, queuedAt: now });
      this.#entries = [...(this.ledger?.unacked ?? [])];
      return;
    }
    for (const stanza of stanzas) conn.send(Strophe.Stanza.toElement(stanza, true));
    if (wantsAck) this.#ask(times.answer);
  }

  handled(h: number): void {
    this.#drops.reset();
    if (this.ready) this.#conn?.send(Strophe.Stanza.toElement(`<a xmlns="urn:xmpp:sm:3" h="${h >>> 0}"/>`, true));
  }

  drop(): void {
    if (this.#stopped) return;
    this.#break();
    this.#wait(this.#drops.next());
  }

  hurry(): void {
    if (this.#stopped) return;
    if (this.ready) {
      this.#ask(times.doubt);
      if (this.#way === "bosh") this.#probe();
      return;
    }
    if (this.#retry === undefined) return; // it tries already
    this.#backoff.reset();
    this.#connect(this.#first());
  }

  readonly #doubt = (): void => this.hurry();

  readonly #seen = (): void => {
    if (document.visibilityState === "visible") this.hurry();
  };

  #first(): Way {
    return this.service.websocket === "" ? "bosh" : "websocket";
  }

  #adopt(ledger: Ledger | undefined): void {
    this.ledger = ledger;
    this.#entries = [...(ledger?.unacked ?? [])];
  }

  #connect(way: Way): void {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#break();
    const attempt = ++this.#attempt;
    this.#way = way;
    this.#started = this.#heard = Date.now();
    this.#asked = 0;
    this.listener.phase({ kind: "connecting" });
    const { login, domain } = this.service;
    let conn: Connection;
    try {
      conn = new Strophe.Connection(way === "websocket" ? this.service.websocket : this.service.bosh, {
        enableStreamManagement: true,
        explicitResourceBinding: true,
        streamManagement: { maxUnacked: 0, storage: this.#storage(attempt) },
        ...(login.kind === "guest" ? { mechanisms: [anonymous(login.secret)] } : {}),
        ...(login.kind === "password" ? { mechanisms: [Strophe.SASLSHA512, Strophe.SASLSHA256, Strophe.SASLSHA1, Strophe.SASLPlain] } : {}),
        ...(login.kind === "token" ? { mechanisms: [Strophe.SASLOAuthBearer] } : {}),
      });
    } catch (err) {
      this.#refused(String(err));
      return;
    }
    this.#conn = conn;
    conn.maxRetries = 1;
    const sm = inside(conn).sm;
    sm.onEnabled = () => {
      if (attempt !== this.#attempt) return;
      this.#is();
      this.listener.ready(false);
    };
    sm.onFailed = (view, resuming) => {
      if (attempt !== this.#attempt) return;
      if (!resuming) return this.#refused("no-stream-management");
      // What the server had of the session that is over, strophe has told by now; the rest is the courier's.
      sm.reset();
      sm.serverSupported = true;
      this.#lost(view?.attrs["h"]);
    };
    // Answered when what came in before is stored.
    sm.sendAck = () => {
      if (attempt === this.#attempt) this.listener.asked();
    };
    conn.rawInput = () => {
      this.#heard = Date.now();
      this.#asked = 0;
    };
    // Before the session is there, since what it brings may come in one piece with the news of it.
    for (const name of ["message", "presence", "iq"]) {
      conn.addHandler(
        (stanza) => {
          if (attempt === this.#attempt && !ours(stanza)) this.listener.stanza({ stanza, session: this.ledger?.id ?? "", h: sm.state.hIn });
          return true;
        },
        null,
        name,
        null,
      );
    }
    const jid = login.kind === "guest" ? domain : `${login.user}@${domain}`;
    const secret = login.kind === "guest" ? "" : login.kind === "token" ? login.token : login.password;
    conn.connect(jid, secret, (status, condition, elem) => {
      if (attempt === this.#attempt) this.#status(conn, status, condition, elem);
    });
  }

  #status(conn: Connection, status: number, condition: string | null, elem?: Element): void {
    const { Status } = Strophe;
    const { sm, ...rest } = { sm: inside(conn).sm, bosh: this.#way === "bosh" };
    switch (status) {
      case Status.BINDREQUIRED:
        if (!sm.serverSupported) return this.#refused("no-stream-management");
        if (rest.bosh && !sm.resumePending) {
          sm.initialize(conn.jid);
          if (sm.hasResumableState()) {
            inside(conn)._registerSMHandlers();
            sm.sendResume();
            return;
          }
        }
        conn.bind();
        return;
      case Status.CONNECTED:
        if (sm.resumed) {
          this.#is();
          this.listener.ready(true);
        } else if (!sm.isTracking()) {
          inside(conn)._registerSMHandlers();
          sm.sendEnable(conn.jid);
        }
        return;
      case Status.AUTHFAIL: {
        const why = elem?.querySelector("failure > *")?.localName ?? elem?.querySelector("error > *")?.localName ?? condition ?? "not-authorized";
        if (passing.has(why)) return this.#over(false);
        return this.#refused(why);
      }
      case Status.CONNFAIL:
      case Status.CONNTIMEOUT:
      case Status.ERROR:
      case Status.DISCONNECTED:
        if (condition === "no-auth-mech") return this.#refused(condition);
        this.#over(this.#way === "websocket" && !this.#spoke(conn));
    }
  }

  // #spoke says whether the server said anything: then the way is not what is wrong.
  #spoke(conn: Connection): boolean {
    return this.ready || conn.features !== null || this.#heard > this.#started;
  }

  #is(): void {
    this.ready = true;
    this.#backoff.reset();
    this.#probed = Date.now();
    this.listener.phase({ kind: "online", via: this.#way });
  }

  // #over is the end of an attempt. When WebSocket did not come through at all, BOSH is tried at once.
  #over(another: boolean): void {
    this.#break();
    if (this.#stopped) return;
    if (another && this.service.bosh !== "") return this.#connect("bosh");
    this.#wait(this.#backoff.next());
  }

  #wait(pause: number): void {
    clearTimeout(this.#retry);
    this.listener.phase({ kind: "waiting", until: Date.now() + pause });
    this.#retry = setTimeout(() => this.#connect(this.#first()), pause);
  }

  #refused(reason: string): void {
    this.#break();
    this.#stopped = true;
    clearInterval(this.#watch);
    this.listener.phase({ kind: "refused", reason });
  }

  // #break drops the connection and not the session.
  #break(): void {
    this.#attempt++;
    this.ready = false;
    const conn = this.#conn;
    this.#conn = undefined;
    if (!conn) return;
    inside(conn)._proto._abortAllRequests();
    inside(conn)._doDisconnect();
    conn.send = () => undefined; // what a login that is still computed would send
  }

  #ask(patience: number): void {
    if (!this.ready || !this.#conn) return;
    if (this.#asked === 0) {
      this.#asked = Date.now();
      this.#patience = patience;
    } else this.#patience = Math.min(this.#patience, patience);
    inside(this.#conn).sm.requestAck();
  }

  // #look is the time-outs.
  #look(): void {
    const now = Date.now();
    if (!this.#conn) return;
    if (!this.ready) {
      if (now - this.#started > times.open) this.#over(this.#way === "websocket" && !this.#spoke(this.#conn));
      return;
    }
    if (this.#asked > 0 && now - this.#asked > this.#patience) {
      this.#break();
      return this.#connect(this.#first());
    }
    if (this.#asked === 0 && now - this.#heard > times.idle) this.#ask(times.answer);
    if (this.#way === "bosh" && now - this.#probed > times.probe) this.#probe();
  }

  // #probe looks whether WebSocket comes through by now, and if so goes on with it.
  #probe(): void {
    if (this.service.websocket === "") return;
    this.#probed = Date.now();
    const attempt = this.#attempt;
    const socket = new WebSocket(this.service.websocket, "xmpp");
    const timer = setTimeout(() => socket.close(), times.open);
    socket.onclose = () => clearTimeout(timer);
    socket.onopen = () => {
      socket.close();
      if (attempt === this.#attempt && this.ready) this.#connect("websocket");
    };
  }

  // #storage is where strophe keeps the state of the session: in the ledger, which the courier stores.
  #storage(attempt: number) {
    return {
      load: (): SMState | null => {
        if (!this.ledger) return null;
        this.#entries = [...this.ledger.unacked];
        return { ...(this.ledger as unknown as SMState), hIn: this.listener.stored, unacked: [...this.ledger.unacked], enabled: false, enableSent: false, resumed: false };
      },
      save: (_key: string, state: SMState): void => {
        if (attempt !== this.#attempt) return;
        const open: Numbered[] = state.unacked;
        const first = open[0];
        const acked = first ? Math.max(0, this.#entries.indexOf(first)) : this.#entries.length;
        const gone = this.#entries.slice(0, acked);
        this.#entries = [...open];
        if (state.id) this.ledger = state as unknown as Ledger;
        if (gone.length > 0) this.listener.acknowledged(gone);
      },
      clear: (): void => undefined, // what was lost is told by onFailed
    };
  }

  #lost(h: string | undefined): void {
    const before = this.ledger;
    const acked = before && h !== undefined ? before.unacked.slice(0, (Number(h) - before.hOutAcked) >>> 0).map(idOf) : [];
    this.ledger = undefined;
    this.#entries = [];
    this.listener.lost(acked);
  }
}

// Conditions after which a login may succeed later.
const passing = new Set(["temporary-auth-failure", "resource-constraint", "internal-server-error", "remote-server-timeout"]);

function inside(conn: Connection): Inside {
  return conn as unknown as Inside;
}

// ours are the answers to what strophe itself asked.
function ours(stanza: Element): boolean {
  return stanza.localName === "iq" && /^_(bind|session|auth)/.test(stanza.getAttribute("id") ?? "");
}

export type { Phase };
