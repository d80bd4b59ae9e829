// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';

export interface CommandResult {
  /** Null when it was killed, for taking too long. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const MAX_OUTPUT = 1 << 20;
/** For the last of its output after its end, and for its end after it was killed. */
const DRAIN_MS = 500;

/**
 * Runs a command to its end, or to the timeout. What it leaves behind may hold its output open; that is not waited for.
 * Rejects with a system error when it cannot be started.
 */
export async function runCommand(
  words: readonly string[],
  options: { readonly timeoutMs: number; readonly signal: AbortSignal; readonly env?: NodeJS.ProcessEnv },
): Promise<CommandResult> {
  const [program = '', ...args] = words;
  return await new Promise<CommandResult>((resolve, reject) => {
    // In a group of its own: a shell is ended with what it has started.
    const { env = process.env } = options;
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true, env });
    let drain: NodeJS.Timeout | undefined;
    const end = (): void => {
      killGroup(child.pid);
      drain ??= setTimeout(() => finish(null), DRAIN_MS);
    };
    const timer = setTimeout(end, options.timeoutMs);
    options.signal.addEventListener('abort', end);
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (piece: string) => (stdout = (stdout + piece).slice(0, MAX_OUTPUT)));
    child.stderr.setEncoding('utf8').on('data', (piece: string) => (stderr = (stderr + piece).slice(0, MAX_OUTPUT)));
    const over = (): void => {
      clearTimeout(timer);
      clearTimeout(drain);
      options.signal.removeEventListener('abort', end);
    };
    const finish = (code: number | null): void => {
      over();
      child.stdout.destroy();
      child.stderr.destroy();
      child.unref();
      resolve({ code, stdout, stderr });
    };
    child.once('error', (error) => {
      over();
      reject(error);
    });
    child.once('exit', (code) => {
      clearTimeout(drain);
      drain = setTimeout(() => finish(code), DRAIN_MS);
    });
    child.once('close', finish);
  });
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    return; // It has just ended.
  }
}
