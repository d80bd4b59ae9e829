// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { ErrorRecord } from '../base/errors.js';
import type { CheckpointResult } from '../engine/config.js';
import { lineSplitter } from '../engine/control-protocol.js';
import { nodeCommand } from '../linux/node-command.js';

export type Environment = Readonly<Record<string, string | undefined>>;

/** How `fastfreeze run` ended. */
export interface RunEnd {
  readonly exitCode: number;
  /** `checkpointed`, or in words how the application ended; null where that is not known. */
  readonly reason: string | null;
  /** When it was our failure, not the application's. */
  readonly error: ErrorRecord | null;
}

export interface RunChild {
  readonly pid: number | undefined;
  /** Resolves once the application runs; undefined when `run` ended before. */
  readonly ready: Promise<Ready | undefined>;
  readonly ended: Promise<RunEnd>;
  signal(name: NodeJS.Signals): void;
}

export interface Ready {
  readonly restoredGeneration: number | null;
}

/** The descriptor on which `run` tells what becomes of it: `--notify-fd`. */
export const NOTIFY_FD = 3;

type Notice = ({ readonly event: 'ready' } & Ready) | ({ readonly event: 'ended' } & Partial<RunEnd>);

/** Start `fastfreeze run`. Its streams are ours; what it tells comes over a pipe of its own, so that nothing need be asked for. */
export function startRun(words: readonly string[], env: Environment): RunChild {
  const child = start(words, env, ['ignore', 'inherit', 'inherit', 'pipe']);
  const exitCode = exitCodeOf(child);
  let tellReady: (ready: Ready | undefined) => void = () => undefined;
  const ready = new Promise<Ready | undefined>((resolve) => (tellReady = resolve));
  let told: Partial<RunEnd> = {};
  readLines(streamOf(child, NOTIFY_FD), (line) => {
    const notice = JSON.parse(line) as Notice;
    if (notice.event === 'ready') tellReady({ restoredGeneration: notice.restoredGeneration });
    else told = notice;
  });
  const ended = exitCode.then((code) => {
    tellReady(undefined);
    return { exitCode: code, reason: told.reason ?? null, error: told.error ?? null };
  });
  return { pid: child.pid, ready, ended, signal: (name) => void child.kill(name) };
}

export interface CheckpointEnd {
  readonly exitCode: number;
  readonly result?: CheckpointResult;
  /** What it wrote to standard error about its failure. */
  readonly failure?: { readonly message: string; readonly hint?: string };
}

export interface CheckpointChild {
  readonly ended: Promise<CheckpointEnd>;
  kill(): void;
}

/** Start `fastfreeze checkpoint --json`. `hear` gets each line of its standard error. */
export function startCheckpoint(
  words: readonly string[],
  env: Environment,
  hear: (line: string) => void,
): CheckpointChild {
  const child = start(words, env, ['ignore', 'pipe', 'pipe']);
  const exitCode = exitCodeOf(child);
  let stdout = '';
  let failure: CheckpointEnd['failure'];
  readLines(streamOf(child, 1), (line) => (stdout += line));
  readLines(streamOf(child, 2), (line) => {
    hear(line);
    if (line.startsWith('Error: ')) failure = { message: line.slice('Error: '.length) };
    else if (line.startsWith('Try: ') && failure !== undefined)
      failure = { ...failure, hint: line.slice('Try: '.length) };
  });
  const ended = exitCode.then((code) => ({
    exitCode: code,
    ...(code === 0 ? { result: JSON.parse(stdout) as CheckpointResult } : {}),
    ...(failure === undefined ? {} : { failure }),
  }));
  return { ended, kill: () => void child.kill('SIGKILL') };
}

/**
 * The entry itself, not `bin/fastfreeze`: that would note our own limit of open files, which Node has raised, where the application
 * must get that of our caller. In a session of its own: Ctrl-C reaches it through us, once.
 */
function start(words: readonly string[], env: Environment, stdio: StdioOptions): ChildProcess {
  const entry = fileURLToPath(new URL('../../bin/main.js', import.meta.url));
  const [program, ...before] = nodeCommand();
  return spawn(program, [...before, '--no-warnings', entry, ...words], { stdio, env, detached: true });
}

/** A process that could not be started for want of descriptors has no streams at all; its error comes a moment later. */
function streamOf(child: ChildProcess, fd: number): Readable | undefined {
  return (child.stdio as readonly unknown[] | undefined)?.[fd] as Readable | undefined;
}

function readLines(stream: Readable | undefined, line: (text: string) => void): void {
  stream?.setEncoding('utf8');
  stream?.on('error', () => undefined);
  stream?.on('data', lineSplitter(line) as (piece: string | Buffer) => void);
}

/** Once it has ended and all that it wrote has been read; 128 + n when a signal ended it. */
async function exitCodeOf(child: ChildProcess): Promise<number> {
  return await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])));
  });
}
