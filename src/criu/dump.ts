// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, constants, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { closeFd, makeFifo, tryRead } from '../linux/fds.js';
import { type Poller, POLLIN } from '../linux/poller.js';
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
    env: gateEnvironment(options.directory),
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

interface Gate {
  readonly script: string;
  readonly reached: Promise<void>;
  release(verdict: 'commit' | 'resume'): void;
  close(): void;
}

/*
 * CRIU's post-dump script runs between "image complete" and "end the application". Ours says so through one named
 * pipe and reads the verdict from another. If we vanish, the pipe ends, the verdict is empty, and CRIU resumes.
 */
const GATE_SCRIPT = `#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = post-dump ] || exit 0
echo reached > "$FF_GATE/gate-up"
verdict=
read -r verdict < "$FF_GATE/gate-down"
[ "$verdict" = commit ]
`;

function gateEnvironment(directory: string): NodeJS.ProcessEnv {
  return { PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin', FF_GATE: directory };
}

function openGate(directory: string, poller: Poller): Gate {
  const script = join(directory, 'gate.sh');
  const up = join(directory, 'gate-up');
  const down = join(directory, 'gate-down');
  makeFifo(up);
  makeFifo(down);
  writeFileSync(script, GATE_SCRIPT, { mode: 0o700 });
  // Read-write, so that neither open blocks and the script always finds a peer while we live.
  const upFd = openSync(up, constants.O_RDWR | constants.O_NONBLOCK);
  const downFd = openSync(down, constants.O_RDWR | constants.O_NONBLOCK);
  let announce: () => void = () => undefined;
  const reached = new Promise<void>((resolve) => (announce = resolve));
  const bytes = Buffer.alloc(64);
  let open = true;
  const watch = poller.watch(upFd, POLLIN, () => {
    const got = tryRead(upFd, bytes, bytes.length);
    if (got !== 'again' && got > 0) announce();
  });
  return {
    script,
    reached,
    release(verdict) {
      if (open) writeSync(downFd, `${verdict}\n`);
    },
    close() {
      open = false;
      watch.close();
      closeFd(upFd);
      closeSync(downFd);
    },
  };
}
