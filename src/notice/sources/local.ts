// SPDX-License-Identifier: Apache-2.0
import { readFileSync, statSync } from 'node:fs';
import { type Clock, type Notice, type NoticeSource, hasEnded, pause, poll, reasonOf } from '../notice.js';
import { runCommand } from './run-command.js';

/** A moment that is known from the start. */
export function timeLimitSource(atMs: number, of: string): NoticeSource {
  const detail = `${of} is reached at ${new Date(atMs).toISOString()}`;
  return {
    name: of,
    watch: ({ report }) => {
      report({ what: 'stop', deadline: { atMs, kind: 'limit' }, detail });
      return Promise.resolve();
    },
  };
}

/** Asks to leave at a moment that somebody has chosen; it says nothing before, since the moment itself is not to be planned. */
export function momentSource(atMs: number, who: string): NoticeSource {
  return {
    name: who,
    watch: async ({ report, signal }) => {
      report(undefined);
      await pause(Math.max(0, atMs - Date.now()), signal);
      if (!hasEnded(signal)) report({ what: 'stop-now', detail: `${who}: the moment has come` });
    },
  };
}

export interface LocalOptions {
  /** Reads `90s` and the like: milliseconds; undefined for what is none. */
  readonly parseDuration: (text: string) => number | undefined;
  readonly now?: Clock;
  readonly pollMs?: number;
}

const FILE_POLL_MS = 1_000;
const COMMAND_POLL_MS = 10_000;
const COMMAND_TIMEOUT_MS = 30_000;

/**
 * A file that appears or changes: an administrator, a script of the site, a sidecar. Its first line may say when. What is
 * there at the start was meant for an earlier run: else a job that was started again would stop at once, for ever.
 */
export function fileSource(path: string, options: LocalOptions): NoticeSource {
  const { now = Date.now, pollMs = FILE_POLL_MS } = options;
  return {
    name: `the file ${path}`,
    watch: (tools) => {
      let seen: string | undefined;
      let isFirst = true;
      return poll(tools, {
        everyMs: pollMs,
        look: () => {
          const stamp = stampOf(path);
          if (isFirst || (stamp === undefined && seen !== undefined)) tools.report(undefined);
          else if (stamp !== undefined && stamp !== seen) {
            const text = readFileSync(path, 'utf8').slice(0, 1000);
            tools.report(readDeadline(text, `the file ${path}`, options, now()));
          }
          seen = stamp;
          isFirst = false;
          return Promise.resolve('more');
        },
        explain: (error) => `${path} cannot be read, so notices in it are not seen: ${reasonOf(error)}`,
      });
    },
  };
}

/** Tells one state of a file from another; undefined where there is none that we may see. */
function stampOf(path: string): string | undefined {
  const found = statSync(path, { throwIfNoEntry: false, bigint: true });
  return found === undefined ? undefined : `${found.ino} ${found.size} ${found.mtimeNs}`;
}

/**
 * A command that ends with 0 when the job should go; its first line may say when. Any other code means: not now. A 0 counts
 * only after another code: what is so from the start would stop each run of the job at once, for ever.
 */
export function commandSource(command: string, options: LocalOptions): NoticeSource {
  const { now = Date.now, pollMs = COMMAND_POLL_MS } = options;
  return {
    name: `the command ${command}`,
    watch: (tools) => {
      let wasOtherwise = false;
      let isFirst = true;
      return poll(tools, {
        everyMs: pollMs,
        look: async () => {
          const words = ['/bin/sh', '-c', command];
          const found = await runCommand(words, { timeoutMs: COMMAND_TIMEOUT_MS, signal: tools.signal });
          const { code, stdout } = found;
          if (hasEnded(tools.signal)) return 'done';
          // As a shell has them: not found, not executable.
          if (code === null || code === 126 || code === 127) {
            throw new Error(code === null ? 'it took too long' : `its exit code is ${code}`);
          }
          if (isFirst) tools.report(undefined);
          isFirst = false;
          wasOtherwise ||= code !== 0;
          if (code !== 0 || !wasOtherwise) return 'more';
          tools.report(readDeadline(stdout, `the command ${command}`, options, now()));
          return 'done';
        },
        explain: (error) => `the command ${command} gives no notices: ${reasonOf(error)}`,
      });
    },
  };
}

/** A duration from now, a time in ISO 8601, or anything else: now. */
export function readDeadline(text: string, who: string, options: LocalOptions, nowMs: number): Notice {
  const word = text.split('\n', 1)[0]?.trim() ?? '';
  const durationMs = word === '' ? undefined : options.parseDuration(word);
  const atMs =
    durationMs === undefined ? (/^\d{4}-\d\d-\d\dT/u.test(word) ? Date.parse(word) : NaN) : nowMs + durationMs;
  if (Number.isNaN(atMs)) return { what: 'stop-now', detail: `${who} asks for it` };
  return {
    what: 'stop',
    deadline: { atMs, kind: 'limit' },
    detail: `${who} says that the job is ended at ${new Date(atMs).toISOString()}`,
  };
}
