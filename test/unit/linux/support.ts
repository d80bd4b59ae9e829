// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach } from '@jest/globals';
import { type Poller, createPoller } from '../../../src/linux/poller.js';

const directories: string[] = [];
afterAll(() => directories.forEach((directory) => rmSync(directory, { recursive: true, force: true })));

/** A directory of the test's own, removed afterwards. Its path is short enough for a socket. */
export function makeDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'ff-unit-'));
  directories.push(directory);
  return directory;
}

const pollers: Poller[] = [];
afterEach(() => pollers.splice(0).forEach((poller) => poller.close()));

/** A poller that is closed after the test. */
export function makePoller(): Poller {
  const poller = createPoller();
  pollers.push(poller);
  return poller;
}

/** Fails instead of waiting for ever. */
export async function within<T>(what: string, promise: Promise<T>, timeoutMs = 15_000): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${timeoutMs} ms in vain for ${what}`)), timeoutMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** How many of this process's descriptors are pipes or sockets: to see that none stays. */
export function openStreams(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return /^(?:pipe|socket):/.test(readlinkSync(`/proc/self/fd/${fd}`));
    } catch {
      return false; // The directory's own.
    }
  }).length;
}

export interface Outcome {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly input?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly timeoutMs?: number;
}

/** Run a program to its end, which must come in time. */
export async function runCommand(words: readonly string[], options: CommandOptions = {}): Promise<Outcome> {
  const [file = '', ...args] = words;
  const child = spawn(file, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, NODE_OPTIONS: '', ...options.env },
    timeout: options.timeoutMs ?? 15_000,
    killSignal: 'SIGKILL',
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (piece: string) => (stdout += piece));
  child.stderr.setEncoding('utf8').on('data', (piece: string) => (stderr += piece));
  child.stdin.on('error', () => undefined).end(options.input ?? '');
  return await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}

/** The words that run `body`, an ES module's text, in a Node of its own: for what changes the whole process. */
export function scriptCommand(body: string): string[] {
  return [process.execPath, '--no-warnings', '--input-type=module', '--eval', body];
}

/** A module of the sources, for `import` in such a script. */
export function moduleUrl(path: string): string {
  return new URL(`../../../src/${path}`, import.meta.url).href;
}

/** Run a script under `prefix` (such as `unshare ...`); what it prints is its answer, as JSON. */
export async function askScript(
  body: string,
  prefix: readonly string[] = [],
  options?: CommandOptions,
): Promise<unknown> {
  const outcome = await runCommand([...prefix, ...scriptCommand(body)], options);
  if (outcome.code !== 0) {
    throw new Error(
      `the script ended with ${outcome.code ?? outcome.signal ?? '?'}: ${outcome.stderr}${outcome.stdout}`,
    );
  }
  return JSON.parse(outcome.stdout) as unknown;
}

/** The words that make a private PID namespace, as root and as a normal user. */
export function ownPids(...more: string[]): string[] {
  const user = process.getuid?.() === 0 ? [] : ['--user', '--map-root-user'];
  return ['unshare', ...user, '--pid', '--fork', '--mount', '--mount-proc', '--kill-child', ...more, '--'];
}
