// Events is a list of those who want to hear of something.
export class Events<T> {
  readonly #all = new Set<(event: T) => void>();

  on(f: (event: T) => void): () => void {
    this.#all.add(f);
    return () => this.#all.delete(f);
  }

  emit(event: T): void {
    for (const f of [...this.#all]) f(event);
  }
}

// Chain runs steps one after the other. A step that fails does not keep the next from running.
export class Chain {
  #last: Promise<unknown> = Promise.resolve();

  constructor(private readonly failed: (err: unknown) => void) {}

  run<T>(step: () => Promise<T> | T): Promise<T> {
    const next = this.#last.then(step);
    this.#last = next.catch(this.failed);
    return next;
  }

  // Resolves when all steps that were given until now are done.
  get idle(): Promise<unknown> {
    return this.#last;
  }
}
