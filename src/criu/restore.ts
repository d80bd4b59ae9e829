// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import type { Poller } from '../linux/poller.js';
import { gateEnvironment, openGate } from './gate.js';
import { type CriuSetup, restoreArguments } from './options.js';

/** A running `criu restore`. Nothing of the application runs before it has exited with 0. */
export interface RestoreProcess {
  readonly logPath: string;
  readonly exited: Promise<number>;
  /** Resolves when everything is back and nothing runs yet. */
  readonly gateReached: Promise<void>;
  /** Let the application run. */
  release(): void;
  /** End CRIU; what it has restored so far never ran and is for the caller to remove. */
  kill(): void;
}

export interface StartRestore {
  readonly setup: CriuSetup;
  readonly directory: string;
  /** Our descriptors and the resources of the image whose place they take. */
  readonly inherited: readonly { readonly ourFd: number; readonly resource: string }[];
  readonly leaveStopped: boolean;
  readonly poller: Poller;
  readonly adopt: (child: ChildProcess) => void;
}

export function startRestore(options: StartRestore): RestoreProcess {
  // In CRIU they are numbered from 3 up: 0 to 2 are its own.
  const inherited = options.inherited.map(({ resource }, i) => ({ fd: i + 3, resource }));
  const gate = openGate(options.directory, options.poller);
  const [file, ...args] = restoreArguments(options.setup, {
    inherited,
    gateScript: gate.script,
    leaveStopped: options.leaveStopped,
  });
  const child = spawn(file ?? 'criu', args, {
    stdio: ['ignore', 'ignore', 'ignore', ...options.inherited.map(({ ourFd }) => ourFd)],
    cwd: options.directory,
    detached: true,
    env: gateEnvironment(options.directory, 'post-restore'),
  });
  options.adopt(child);
  const exited = new Promise<number>((resolve) => {
    child.once('error', () => resolve(127));
    child.once('exit', (code, signal) => resolve(code ?? (signal === null ? 1 : 137)));
  }).finally(() => gate.close());
  return {
    logPath: join(options.directory, 'restore.log'),
    exited,
    gateReached: gate.reached,
    release: () => gate.release('commit'),
    kill: () => void child.kill('SIGKILL'),
  };
}
