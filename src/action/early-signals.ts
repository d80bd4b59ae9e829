// SPDX-License-Identifier: Apache-2.0
import { LAST_TRY } from './engine-task.js';

const KEPT: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', LAST_TRY];

/** From now on none of these ends the engine, which ends by its work alone. Hands those that have come to whoever listens by then, once. */
export function keepSignals(): () => void {
  const early = new Set<NodeJS.Signals>();
  let isKeeping = true;
  for (const name of KEPT) {
    process.on(name, () => {
      if (isKeeping) early.add(name);
    });
  }
  return () => {
    isKeeping = false;
    for (const name of early) process.emit(name, name);
  };
}
