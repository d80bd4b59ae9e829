// SPDX-License-Identifier: Apache-2.0
import { setTimeout as sleep } from 'node:timers/promises';

export { sleep };

/** Longer than anything should take on a loaded machine with two cores; a test that waits this long has failed. */
export const PATIENCE_MS = Number(process.env['FF_TEST_PATIENCE_MS'] ?? 60_000);

/** Polls until `probe` gives something other than undefined or false, and returns it; `what` names it in the error. */
export async function until<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs: number = PATIENCE_MS,
  detail: () => string = () => '',
): Promise<T> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > end) throw new Error(`waited ${timeoutMs} ms in vain for ${what}\n${detail()}`);
    await sleep(15);
  }
}

/** The code of a system error. Not by instanceof: Node's own errors come from another realm than jest's modules. */
export function errorCode(error: unknown): string | undefined {
  return typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : undefined;
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return typeof error === 'object' && error !== null && 'message' in error ? String(error.message) : String(error);
}
