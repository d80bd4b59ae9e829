// SPDX-License-Identifier: Apache-2.0
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Launched } from '../../container/launch.js';
import { unmapIdleCode } from '../../linux/memory.js';
import type { LauncherMessage, SupervisorConfig, SupervisorMessage } from '../config.js';
import { lineSplitter } from '../control-protocol.js';
import type { Metrics } from '../metrics/metrics.js';
import { emptySpoolInBackground } from '../spool.js';
import type { RunHooks } from './options.js';

/** A batch system tells the processes of a job to leave one after the other: the application may end before we are told. */
const SIGNAL_GRACE_MS = 250;
/** From the supervisor's last word to the end of its container. */
const LEAVE_TIMEOUT_MS = 15_000;

export interface Conversation {
  readonly send: (message: LauncherMessage) => void;
  state(): { last: SupervisorMessage | undefined; heard: boolean; prefix: { prefix: string; url: string } | undefined };
}

export function converse(
  launched: Launched,
  makeConfig: () => SupervisorConfig,
  metrics: Metrics,
  onEvent: RunHooks['onEvent'],
  ready: () => void,
): Conversation {
  const { channel } = launched;
  let heard = false;
  let config: SupervisorConfig | undefined;
  let last: SupervisorMessage | undefined;
  let prefix: { prefix: string; url: string } | undefined;
  const waiting: LauncherMessage[] = [];
  const write = (message: LauncherMessage): void => void channel.write(`${JSON.stringify(message)}\n`);
  channel.setEncoding('utf8');
  channel.on('error', () => undefined);
  channel.on(
    'data',
    lineSplitter((line) => {
      const message = JSON.parse(line) as SupervisorMessage;
      if (message.type === 'hello') {
        heard = true;
        config = makeConfig();
        write({ type: 'config', config });
        // From here on we only wait: what the start needed is not needed again.
        unmapIdleCode();
        for (const early of waiting.splice(0)) write(early);
      } else if (message.type === 'ready') {
        ready();
      } else if (message.type === 'app-ended') {
        setTimeout(() => write({ type: 'not-told-to-leave' }), SIGNAL_GRACE_MS);
      } else if (message.type === 'spooled') {
        if (config !== undefined) emptySpoolOf(config, message.url);
      } else if (message.type === 'event') {
        metrics.emit(message.event);
        onEvent?.(message.event);
      } else if (message.type === 'prefix') {
        prefix = message.prefix === null ? undefined : { prefix: message.prefix, url: message.url };
      } else {
        last = message;
        // It has said its last word; a container that does not end is ended.
        setTimeout(() => launched.child.kill('SIGKILL'), LEAVE_TIMEOUT_MS).unref();
      }
    }) as (piece: string | Buffer) => void,
  );
  return {
    send: (message) => {
      if (heard) write(message);
      else waiting.push(message);
    },
    state: () => ({ last, heard, prefix }),
  };
}

/** Only here, outside the container, can a process outlive the job. */
function emptySpoolOf(config: SupervisorConfig, url: string): void {
  if (config.spoolDirectory === undefined) return;
  mkdirSync(config.logDirectory, { recursive: true, mode: 0o700 });
  emptySpoolInBackground(
    { directory: config.spoolDirectory, url, keep: config.keep },
    join(config.logDirectory, 'spool.log'),
  );
}
