// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { FastFreezeError } from '../base/errors.js';
import { inNewIpcNamespace, requireLimits } from '../linux/ipc.js';
import { nodeCommand } from '../linux/node-command.js';
import { type ExitStatus, signalNumber } from '../linux/process.js';
import type { Children } from './children.js';
import type { ExecPlan } from './exec-plan.js';
import { APP_PID, setLastPid } from './pids.js';
import type { AppStreams } from './stdio/app-stdio.js';

/** The application's root process. */
export interface App {
  readonly pid: number;
  readonly exited: Promise<ExitStatus>;
}

export interface StartApp {
  /** Words before the program: `WITHOUT_CAPABILITIES`, or none. */
  readonly prefix: readonly string[];
  readonly plan: Omit<ExecPlan, 'terminalPath' | 'terminalFds' | 'stdinFile'>;
  readonly streams: AppStreams;
  readonly children: Children;
  readonly timeoutMs: number;
  /**
   * With an IPC namespace of its own, which CRIU saves. Where the kernel refuses that, or to bring it back, the application
   * shares ours, and `onSharedIpc` is told.
   */
  readonly ownIpc: boolean;
  readonly onSharedIpc: (error: unknown) => void;
}

/** Start the program as PID 1000. Resolves when exec has succeeded, which is what "ready" means. */
export async function startApp(options: StartApp): Promise<App> {
  const { streams } = options;
  const plan: ExecPlan = {
    ...options.plan,
    terminalFds: streams.terminalFds,
    ...(streams.terminalPath === undefined ? {} : { terminalPath: streams.terminalPath }),
    ...(streams.stdinFile === undefined ? {} : { stdinFile: streams.stdinFile }),
  };
  setLastPid(APP_PID - 1);
  const starter = fileURLToPath(new URL('./exec-main.js', import.meta.url));
  const [node, ...flags] = nodeCommand();
  const [file, ...args] = [...options.prefix, node, ...flags, starter];
  const child = inItsIpcNamespace(options, () =>
    spawn(file, args, {
      stdio: [...streams.stdio, 'pipe'],
      detached: true,
    }),
  );
  options.children.adopt(child);
  const exited = new Promise<ExitStatus>((resolve) => {
    child.once('exit', (code, signal) =>
      resolve(signal === null ? { code: code ?? 0, signal: null } : { code: null, signal: signalNumber(signal) ?? 0 }),
    );
  });
  const channel = child.stdio[3] as Socket;
  channel.on('error', () => undefined);
  const heard = hear(channel, options.timeoutMs);
  channel.write(`${JSON.stringify(plan)}\n`);
  if (child.pid !== undefined && child.pid !== APP_PID) {
    child.kill('SIGKILL');
    throw new FastFreezeError({
      code: 'host',
      op: 'start the application as PID',
      subject: String(APP_PID),
      reason: `it became PID ${child.pid}: something else starts processes in this container`,
      hint: 'let fastfreeze make its own container, or start helpers with --on-app-ready',
    });
  }
  const failure = await heard;
  channel.destroy();
  if (failure !== '') throw startFailure(options.plan.command, failure);
  return { pid: APP_PID, exited };
}

/** The process is made on this thread, and inherits its namespace. */
function inItsIpcNamespace<T>({ ownIpc, onSharedIpc }: StartApp, action: () => T): T {
  if (!ownIpc) return action();
  const seen = { isBegun: false };
  try {
    return inNewIpcNamespace(() => {
      requireLimits();
      seen.isBegun = true;
      return action();
    });
  } catch (error) {
    if (seen.isBegun) throw error;
    onSharedIpc(error);
    return action();
  }
}

/** What the starter says before exec closes its end: nothing when all went well. */
async function hear(channel: Socket, timeoutMs: number): Promise<string> {
  return await new Promise<string>((resolve, reject) => {
    let text = '';
    const timer = setTimeout(
      () =>
        reject(
          new FastFreezeError({ code: 'app', op: 'start the application', reason: `no answer in ${timeoutMs} ms` }),
        ),
      timeoutMs,
    );
    channel.setEncoding('utf8');
    channel.on('data', (piece: string) => (text += piece));
    channel.once('close', () => {
      clearTimeout(timer);
      resolve(text);
    });
  });
}

function startFailure(command: readonly string[], text: string): FastFreezeError {
  const message = /"message":"((?:[^"\\]|\\.)*)"/.exec(text)?.[1] ?? text;
  const missing = message.includes('ENOENT');
  return new FastFreezeError({
    code: 'app',
    op: 'start',
    subject: command[0] ?? '(no command)',
    reason: missing ? 'there is no such program' : message,
    hint: missing ? 'check the name and PATH' : 'check that the file may be executed',
  });
}
