// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import type { Poller } from '../linux/poller.js';
import { gateEnvironment, openGate } from './gate.js';
import { type CriuSetup, dumpArguments } from './options.js';

/** A running `criu dump`. It is never killed: a SIGKILL while its parasite is in the application can kill that too. */
export interface DumpProcess {
  readonly pid: number;
  readonly logPath: string;
  /** The exit code; 128 + n after a signal. */
  readonly exited: Promise<number>;
  /** Resolves when the image is complete and the application still frozen. */
  readonly gateReached: Promise<void>;
  /** `commit` lets CRIU go on as told (end or resume the application), `resume` makes the application run on. */
  release(verdict: 'commit' | 'resume'): void;
}

export interface StartDump {
  readonly setup: CriuSetup;
  readonly pid: number;
  readonly directory: string;
  readonly externals: readonly string[];
  /** After `release('commit')` the application runs on; otherwise CRIU ends it. */
  readonly leaveRunning: boolean;
  readonly poller: Poller;
  /** Told the PID of every child, so that the reaper of PID 1 leaves it to Node. */
  readonly adopt: (child: ChildProcess) => void;
}

export function startDump(options: StartDump): DumpProcess {
  const gate = openGate(options.directory, options.poller);
  const [file, ...args] = dumpArguments(options.setup, {
    pid: options.pid,
    externals: options.externals,
    gateScript: gate.script,
    leaveRunning: options.leaveRunning,
  });
  // A session of its own: a Ctrl-C on the terminal must not reach CRIU.
  const child = spawn(file ?? 'criu', args, {
    stdio: 'ignore',
    cwd: options.directory,
    detached: true,
    env: gateEnvironment(options.directory, 'post-dump'),
  });
  options.adopt(child);
  const exited = new Promise<number>((resolve) => {
    child.once('error', () => resolve(127));
    child.once('exit', (code, signal) => resolve(code ?? (signal === null ? 1 : 137)));
  }).finally(() => gate.close());
  return {
    pid: child.pid ?? 0,
    logPath: join(options.directory, 'dump.log'),
    exited,
    gateReached: gate.reached,
    release: (verdict) => gate.release(verdict),
  };
}
