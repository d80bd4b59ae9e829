// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';

export interface CommandResult {
  /** Null when it was killed, for taking too long. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const MAX_OUTPUT = 1 << 20;

/** Runs a command to its end. Rejects with a system error when it cannot be started. */
export async function runCommand(
  words: readonly string[],
  options: { readonly timeoutMs: number; readonly signal: AbortSignal },
): Promise<CommandResult> {
  const [program = '', ...args] = words;
  return await new Promise<CommandResult>((resolve, reject) => {
    // In a group of its own: a shell is ended with what it has started.
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    const end = (): void => killGroup(child.pid);
    const timer = setTimeout(end, options.timeoutMs);
    options.signal.addEventListener('abort', end);
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (piece: string) => (stdout = (stdout + piece).slice(0, MAX_OUTPUT)));
    child.stderr.setEncoding('utf8').on('data', (piece: string) => (stderr = (stderr + piece).slice(0, MAX_OUTPUT)));
    const over = (): void => {
      clearTimeout(timer);
      options.signal.removeEventListener('abort', end);
    };
    child.once('error', (error) => {
      over();
      reject(error);
    });
    child.once('close', (code) => {
      over();
      resolve({ code, stdout, stderr });
    });
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
