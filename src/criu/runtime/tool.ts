// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import type { Readable } from 'node:stream';

export interface ToolOptions {
  /** After this long the tool is killed and `timedOut` is set. */
  readonly timeoutMs: number;
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  readonly signal?: AbortSignal;
}

export interface ToolResult {
  readonly ok: boolean;
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly timedOut: boolean;
  /** The program does not exist or may not be executed. */
  readonly missing: boolean;
  readonly aborted: boolean;
}

let report: ((words: readonly string[]) => void) | undefined;

/** From now on be told of every tool that this process runs. */
export function reportTools(told: (words: readonly string[]) => void): void {
  report = told;
}

/** Run a short-lived tool to its end, its output kept. Never throws: why it failed is in the result. */
export async function runTool(command: readonly string[], options: ToolOptions): Promise<ToolResult> {
  const [program = '', ...args] = command;
  report?.(command);
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    // Messages are parsed: they must not be translated.
    env: { ...(options.env ?? process.env), LC_ALL: 'C', LANGUAGE: '' },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  const stopped = { timedOut: false, aborted: false };
  const timer = setTimeout(() => {
    stopped.timedOut = true;
    child.kill('SIGKILL');
  }, options.timeoutMs);
  const abort = (): void => {
    stopped.aborted = true;
    child.kill('SIGKILL');
  };
  if (options.signal?.aborted === true) abort();
  options.signal?.addEventListener('abort', abort, { once: true });
  try {
    const { exitCode, error } = await ended(child);
    return {
      ok: exitCode === 0 && !stopped.timedOut && !stopped.aborted,
      exitCode,
      stdout: stdout(),
      stderr: error === undefined ? stderr() : error.message,
      missing: error !== undefined,
      ...stopped,
    };
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener('abort', abort);
  }
}

/** One line that says why a tool failed, for an error's reason. */
export function whyFailed(result: ToolResult): string {
  if (result.timedOut) return 'it did not end in time';
  if (result.aborted) return 'stopped on request';
  if (result.missing) return result.stderr;
  const lines = result.stderr.split('\n').filter((line) => line.trim() !== '');
  const telling = lines.find((line) => /^(E:|Error|.*\berror\b)/i.test(line)) ?? lines.at(-1);
  return telling?.trim() ?? `exit code ${String(result.exitCode)}`;
}

/** Enough for any tool run here; a runaway one must not eat the memory. */
const KEPT_BYTES = 4 * 1024 * 1024;

function collect(stream: Readable): () => string {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  stream.on('data', (chunk: Buffer) => {
    if (sizeBytes < KEPT_BYTES) chunks.push(chunk);
    sizeBytes += chunk.length;
  });
  stream.on('error', () => undefined);
  return () => Buffer.concat(chunks).toString('utf8');
}

/** A killed tool's own children may hold its pipes open, so `close` is waited for only a moment after `exit`. */
const LAST_OUTPUT_MS = 500;

async function ended(child: ChildProcess): Promise<{ exitCode: number | null; error?: Error }> {
  return await new Promise((resolve) => {
    let lastOutput: NodeJS.Timeout | undefined;
    child.once('error', (error) => {
      // Also raised when a kill fails; only a child that never started has no PID.
      if (child.pid === undefined) resolve({ exitCode: null, error });
    });
    child.once('exit', (exitCode) => {
      lastOutput = setTimeout(() => {
        child.stdout?.destroy();
        child.stderr?.destroy();
        resolve({ exitCode });
      }, LAST_OUTPUT_MS);
    });
    child.once('close', (exitCode) => {
      clearTimeout(lastOutput);
      resolve({ exitCode });
    });
  });
}
