// SPDX-License-Identifier: Apache-2.0

/** One step that many take, in the order in which they came: each waits for those before it, or lets those behind pass. */
export class Turns {
  private last: Promise<void> = Promise.resolve();

  /** Take a number. `pass` must be called, once the step is done or will not be done; again it does nothing. */
  next(): Turn {
    const before = this.last;
    let pass: () => void = () => undefined;
    this.last = new Promise((resolve) => {
      // Whoever leaves early does not let others overtake those who are still before it.
      pass = () => resolve(before);
    });
    return { before, pass };
  }
}

export interface Turn {
  /** Resolves when all before have passed. */
  readonly before: Promise<void>;
  readonly pass: () => void;
}
