// SPDX-License-Identifier: Apache-2.0

/** Above this Node.js takes a delay for 1 ms (2^31 - 1 ms: 24.8 days). */
const MOST_DELAY_MS = 2_147_483_647;

/** Call `act` once, after any number of milliseconds. Returns what calls it off. */
export function after(delayMs: number, act: () => void): () => void {
  const atMs = performance.now() + delayMs;
  let timer: NodeJS.Timeout;
  const wait = (): void => {
    const leftMs = atMs - performance.now();
    timer = setTimeout(leftMs > MOST_DELAY_MS ? wait : act, Math.min(leftMs, MOST_DELAY_MS));
  };
  wait();
  return () => clearTimeout(timer);
}

/** Call `act` again and again, at any interval. Returns what ends it. */
export function every(intervalMs: number, act: () => void): () => void {
  let stop = after(intervalMs, function again() {
    stop = after(intervalMs, again);
    act();
  });
  return () => stop();
}
