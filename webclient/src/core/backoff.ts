// Backoff says how long to wait before the next try: at random within a bound that doubles, so that clients which lost
// the same server do not come back together.
export class Backoff {
  #tries = 0;

  constructor(
    readonly first = 500, // ms
    readonly most = 30_000, // ms
    private readonly random: () => number = Math.random,
  ) {}

  next(): number {
    const bound = Math.min(this.most, this.first * 2 ** this.#tries);
    if (bound < this.most) this.#tries++;
    return Math.round(bound * (0.5 + this.random() / 2));
  }

  reset(): void {
    this.#tries = 0;
  }
}
