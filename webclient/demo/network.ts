// A switch for the network of one side of the demo, between the page and the widget, which knows nothing of it. Off is
// what a phone has in a tunnel: what is under way is lost, both ends go on believing in connections that carry nothing
// any more, and new ones fail. The browser's own notice ("offline") comes with it, as it does there.

declare global {
  interface Window {
    network: { on: boolean; set(on: boolean): void };
  }
}

let on = true;
const sockets = new Set<DemoSocket>();
const requests = new Set<XMLHttpRequest>();

class DemoSocket extends WebSocket {
  dead = false;

  constructor(url: string | URL, protocols?: string | string[]) {
    super(url, protocols);
    // First in line, so that what a dead connection brings reaches nobody.
    for (const kind of ["open", "message", "error", "close"]) {
      this.addEventListener(kind, (e) => this.dead && e.stopImmediatePropagation());
    }
    this.addEventListener("close", () => sockets.delete(this));
    sockets.add(this);
    if (!on) this.close(); // fails, as it does without a network
  }

  override send(data: string | ArrayBufferLike | Blob | ArrayBufferView<ArrayBuffer>): void {
    if (!this.dead) super.send(data);
  }
}

// eslint-disable-next-line @typescript-eslint/unbound-method -- it is called with the request that it is of
const send = XMLHttpRequest.prototype.send;
XMLHttpRequest.prototype.send = function (body?: Document | XMLHttpRequestBodyInit | null): void {
  requests.add(this);
  this.addEventListener("loadend", () => requests.delete(this));
  send.call(this, body);
  if (!on) setTimeout(() => this.abort());
};

window.WebSocket = DemoSocket;
Object.defineProperty(navigator, "onLine", { get: () => on });

window.network = {
  get on() {
    return on;
  },
  set(next: boolean) {
    if (next === on) return;
    on = next;
    if (on) {
      for (const s of [...sockets]) if (s.dead) s.close();
    } else {
      for (const s of sockets) s.dead = true;
      for (const r of [...requests]) r.abort();
    }
    window.dispatchEvent(new Event(on ? "online" : "offline"));
  },
};

export {};
