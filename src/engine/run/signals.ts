// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import { signalNumber } from '../../linux/process.js';
import { readWindowSize } from '../../linux/terminal.js';
import type { LauncherMessage, SupervisorConfig } from '../config.js';

/** Signals that a scheduler, a shell or a user may send to the job. The rest stop or end a process by themselves. */
const FORWARDED = [
  ...['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGTERM', 'SIGALRM', 'SIGVTALRM', 'SIGURG', 'SIGXCPU'],
  ...['SIGWINCH', 'SIGIO', 'SIGPWR', 'SIGCONT'],
] as const satisfies readonly NodeJS.Signals[];

export type ForwardedSignal = (typeof FORWARDED)[number];

/** Those that ask the job to end. */
export const ENDING: readonly string[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

export interface CaughtSignals {
  /** Who gets them from now on; first the ones that came before. Undefined: nobody any more. */
  forward(to: ((name: ForwardedSignal) => void) | undefined): void;
  /** Wait for a step before the job exists; a signal that would end the job ends the wait, with `aborted`. */
  unlessEnded<T>(step: Promise<T>): Promise<T>;
  stop(): void;
}

/** From the first moment on: a signal that comes while the job is still being prepared reaches it all the same. */
export function catchSignals(): CaughtSignals {
  const early: ForwardedSignal[] = [];
  const ignored = ignoredSignals();
  let endEarly: (error: Error) => void = () => undefined;
  const ended = new Promise<never>((_, reject) => (endEarly = reject));
  // Whoever waits sees it; when nobody does, the signal is still among the early ones.
  ended.catch(() => undefined);
  let target: ((name: ForwardedSignal) => void) | undefined = (name) => {
    early.push(name);
    if (ENDING.includes(name) && !ignored.includes(signalNumber(name) ?? 0)) endEarly(cameFirst(name));
  };
  const handlers = FORWARDED.map((name) => {
    const handler = (): void => target?.(name);
    process.on(name, handler);
    return [name, handler] as const;
  });
  return {
    forward: (to) => {
      target = to;
      if (to !== undefined) for (const name of early.splice(0)) to(name);
    },
    unlessEnded: (step) => Promise.race([step, ended]),
    stop: () => {
      for (const [name, handler] of handlers) process.off(name, handler);
    },
  };
}

function cameFirst(signal: string): FastFreezeError {
  return new FastFreezeError({
    code: 'aborted',
    op: 'get the application ready',
    reason: `${signal} came first`,
    hint: 'the same command starts or continues it',
  });
}

export function forwardSignal(
  name: ForwardedSignal,
  send: (message: LauncherMessage) => void,
  config: SupervisorConfig,
  ifNotReady = false,
): void {
  const number = signalNumber(name) ?? 0;
  if (config.ignoredSignals.includes(number)) return;
  if (name === 'SIGWINCH' && config.outer.terminal[0]) {
    send({ type: 'window-size', size: readWindowSize(0).toString('base64') });
  } else {
    send({ type: 'signal', signal: number, ...(ifNotReady ? { ifNotReady } : {}) });
  }
}

/** Signals that our caller ignores (nohup), from the mask that bin/fastfreeze read before Node reset it. */
export function ignoredSignals(): number[] {
  const text = process.env['FF_SIGIGN'] ?? '';
  if (!/^[0-9a-f]{1,16}$/i.test(text)) return [];
  const mask = BigInt(`0x${text}`);
  return Array.from({ length: 64 }, (_, i) => i + 1).filter((number) => (mask >> BigInt(number - 1)) & 1n);
}
