// The tabs of a site that use the same account elect one that has the connection, by a Web Lock, and talk over a
// BroadcastChannel. When the tab that leads goes away, however it does, the browser gives the lock to the next.
//
// Why no SharedWorker: the widget's script comes from the gateway, and a page of another site cannot start a worker from
// there; strophe parses with DOMParser, which workers do not have; and a worker has its session in memory, where a
// reload of the only tab loses it. Web Locks work on every page with a secure context.

export interface Leading {
  // start begins to lead; what it returns ends that, and has ended it when it resolves.
  start(): Promise<() => Promise<void>>;
}

// How long the tab that leads may not answer one that is looked at or wants something of it, before that takes over: it
// may be frozen.
const patience = 10_000; // ms

export class Tabs<M> {
  readonly #channel: BroadcastChannel;
  readonly #name: string;
  #end: (() => Promise<void>) | undefined;
  #release: (() => void) | undefined;
  #abort = new AbortController();
  #silent: ReturnType<typeof setTimeout> | undefined;
  #closed = false;
  #turn = 0; // of asking for the lock; what an earlier one says does not count

  constructor(
    name: string,
    private readonly leading: Leading,
    private readonly heard: (message: M) => void,
    private readonly failed: (err: unknown) => void,
  ) {
    this.#name = `holdfast ${name}`;
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = (e: MessageEvent<M | "there?" | "there">) => {
      if (this.#closed) return;
      if (e.data === "there?") {
        if (this.leads) this.#channel.postMessage("there");
      } else if (e.data === "there") this.#trust();
      else this.heard(e.data);
    };
    document.addEventListener("visibilitychange", this.#look);
    this.#request(false);
    this.#look();
  }

  #isClosed(): boolean {
    return this.#closed;
  }

  get leads(): boolean {
    return this.#end !== undefined;
  }

  // tell sends something to the other tabs.
  tell(message: M): void {
    if (!this.#closed) this.#channel.postMessage(message);
  }

  // ask tells the tab that leads what somebody waits for.
  ask(message: M): void {
    this.tell(message);
    this.#doubt();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#trust();
    document.removeEventListener("visibilitychange", this.#look);
    this.#abort.abort();
    await this.#stop();
    this.#channel.close();
  }

  #request(steal: boolean): void {
    const turn = ++this.#turn;
    const options: LockOptions = steal ? { steal: true } : { signal: this.#abort.signal };
    navigator.locks
      .request(this.#name, options, async () => {
        if (this.#closed || turn !== this.#turn) return;
        const released = new Promise<void>((resolve) => (this.#release = resolve));
        const end = await this.leading.start();
        // It may have been closed meanwhile, or the lock taken away.
        if (this.#isClosed() || turn !== this.#turn) return await end();
        this.#end = end;
        this.#trust();
        this.#channel.postMessage("there"); // also to those who have asked the one before
        await released;
      })
      .catch(async (err: unknown) => {
        // Another tab took the lock away, or this one is closed.
        if (turn !== this.#turn) return;
        await this.#stop();
        if (this.#closed) return;
        if (!(err instanceof DOMException && err.name === "AbortError")) this.failed(err);
        else this.#request(false);
      });
  }

  async #stop(): Promise<void> {
    const end = this.#end;
    this.#end = undefined;
    await end?.();
    this.#release?.();
  }

  readonly #look = (): void => {
    if (document.visibilityState === "visible") this.#doubt();
  };

  // #doubt wants an answer of the tab that leads.
  #doubt(): void {
    if (this.#closed || this.leads) return;
    this.#channel.postMessage("there?");
    this.#silent ??= setTimeout(() => {
      this.#silent = undefined;
      if (!this.#closed && !this.leads) this.#take();
    }, patience);
  }

  #trust(): void {
    clearTimeout(this.#silent);
    this.#silent = undefined;
  }

  // #take takes the lock from a tab that does not answer.
  #take(): void {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#request(true);
  }
}
