// SPDX-License-Identifier: Apache-2.0
import { randomInt } from 'node:crypto';

/** One seed for a whole test run, printed, so that FF_TEST_SEED=N repeats the same choices. */
export const SEED = Number(process.env['FF_TEST_SEED'] ?? randomInt(1, 2 ** 31));

/** True for the campaigns at full length (`npm run test:full`). */
export const FULL = process.env['FF_TEST_FULL'] === '1';

/** A stream of choices that depends on the seed and on its own name only, not on the order in which tests run. */
export class Choices {
  #state: number;

  constructor(name: string, seed: number = SEED) {
    this.#state = Buffer.from(`${seed}/${name}`).reduce((hash, byte) => Math.imul(hash ^ byte, 0x01000193), 0x811c9dc5);
  }

  /** mulberry32: a number in [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from `low` up to and including `high`. */
  between(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  pick<T>(from: readonly T[]): T {
    const chosen = from[this.between(0, from.length - 1)];
    if (chosen === undefined) throw new Error('nothing to pick from');
    return chosen;
  }

  shuffled<T>(from: readonly T[]): T[] {
    return from
      .map((value) => ({ value, order: this.next() }))
      .sort((a, b) => a.order - b.order)
      .map(({ value }) => value);
  }
}
