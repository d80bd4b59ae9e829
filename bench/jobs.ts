// SPDX-License-Identifier: Apache-2.0
// The things that the benchmark starts: everything has a time limit and is gone when the benchmark ends.
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CriuRuntime } from '../src/criu/runtime/find.js';
import { busySeconds, childrenCpuSeconds, sleep } from './machine.js';
import { inspect, readText, treeOf } from './processes.js';
import type { S3Server } from './s3-server.js';
import type { SamplerResult, SamplerStart } from './sampler.js';

/** Where a benchmark runs and what it uses. */
export interface Bench {
  readonly repository: string;
  /** On tmpfs: images, logs, state. */
  readonly memoryDirectory: string;
  readonly diskDirectory: string;
  readonly criu: CriuRuntime;
  readonly privileged: boolean;
  /** A copy of Node for fastfreeze alone: pages shared with our own Node would be counted by half. */
  readonly nodePath: string;
  readonly sampler: Sampler;
  /** Where uploads go, while they are measured. */
  readonly server?: S3Server;
}

export interface Child {
  readonly pid: number;
  readonly exited: Promise<number>;
  readonly hasExited: () => boolean;
  kill(signal: NodeJS.Signals): void;
}

const live = new Set<Child>();

/** Ends what is still running; what is inside its containers ends with it. */
export async function endAll(): Promise<void> {
  const left = [...live];
  for (const child of left) child.kill('SIGTERM');
  await Promise.race([Promise.all(left.map(({ exited }) => exited)), sleep(10_000)]);
  for (const child of live) child.kill('SIGKILL');
}

export function start(
  words: readonly string[],
  options: { readonly env?: NodeJS.ProcessEnv; readonly logPath: string; readonly timeoutMs?: number },
): Child {
  const [program = '', ...args] = words;
  const log = openSync(options.logPath, 'a');
  const child = spawn(program, args, {
    stdio: ['ignore', log, log],
    cwd: '/',
    detached: true,
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...options.env },
  });
  closeSync(log);
  let ended = false;
  const kill = (signal: NodeJS.Signals): void => {
    if (!ended) child.kill(signal);
  };
  const timer = setTimeout(() => kill('SIGKILL'), options.timeoutMs ?? 180_000);
  const exited = new Promise<number>((resolve) => {
    const over = (code: number): void => {
      ended = true;
      clearTimeout(timer);
      live.delete(one);
      resolve(code);
    };
    child.once('error', () => over(127));
    child.once('exit', (code) => over(code ?? 137));
  });
  const one: Child = { pid: child.pid ?? -1, exited, hasExited: () => ended, kill };
  live.add(one);
  return one;
}

/** Run to the end; anything but success is an error that shows what was said. */
export async function mustEnd(child: Child, what: string, logPath: string): Promise<void> {
  const code = await child.exited;
  if (code === 0) return;
  throw new Error(`${what} ended with exit code ${code}\n${(readText(logPath) ?? '').slice(-3000)}`);
}

export class Sampler {
  private constructor(private readonly child: ChildProcess) {}

  static start(): Sampler {
    const child = fork(fileURLToPath(new URL('./sampler.js', import.meta.url)), [], { stdio: 'inherit' });
    return new Sampler(child);
  }

  /** Begin to watch the tree below `root`. */
  watch(root: number, memory: boolean): void {
    const message: SamplerStart = { type: 'start', root, appPid: APP_PID, memory };
    this.child.send(message);
  }

  async stop(): Promise<SamplerResult> {
    const answer = new Promise<SamplerResult>((resolve) =>
      this.child.once('message', (message) => resolve(message as SamplerResult)),
    );
    this.child.send({ type: 'stop' });
    return await answer;
  }

  close(): void {
    this.child.disconnect();
  }
}

/** PID of the workload's root in its container; the same for everybody who restores it. */
export const APP_PID = 1000;

export interface Workload {
  readonly bytes: number;
  readonly processes: number;
}

/** The workload, running in a container that fastfreeze made. */
export interface App {
  /** What our caller sees of the container; the root of all that is ours. */
  readonly launcher: Child;
  readonly supervisorPid: number;
  readonly appPid: number;
  readonly log: AppLog;
}

/** The workload's own account of when it ran. */
export class AppLog {
  constructor(readonly path: string) {}

  lines(): string[] {
    return (readText(this.path) ?? '').split('\n').slice(0, -1);
  }

  async waitFor<T>(
    what: string,
    look: (lines: string[]) => T | undefined,
    child: Child,
    timeoutMs: number,
  ): Promise<T> {
    for (const endMs = Date.now() + timeoutMs; ;) {
      const found = look(this.lines());
      if (found !== undefined) return found;
      if (child.hasExited()) throw new Error(`the container ended before the workload ${what}`);
      if (Date.now() > endMs) throw new Error(`the workload has not ${what} in ${timeoutMs} ms`);
      await sleep(4);
    }
  }

  /** Longest time not running that began after `sinceSeconds` and is over. */
  longestGap(sinceSeconds: number): { start: number; end: number } | undefined {
    const gaps = this.lines()
      .map((line) => /^gap ([\d.]+) ([\d.]+)$/.exec(line))
      .filter((found) => found !== null)
      .map(([, from, to]) => ({ start: Number(from), end: Number(to) }))
      .filter(({ end }) => end > sinceSeconds);
    return gaps.sort((a, b) => b.end - b.start - (a.end - a.start))[0];
  }
}

export function fastfreezeEnvironment(bench: Bench): NodeJS.ProcessEnv {
  return {
    FF_NODE: bench.nodePath,
    FF_STATE_DIR: join(bench.memoryDirectory, 'state'),
    FF_LOG_DIR: join(bench.memoryDirectory, 'log'),
    FF_CRIU: process.env['FF_CRIU'],
    ...bench.server?.env,
  };
}

export function fastfreeze(bench: Bench, ...words: string[]): string[] {
  return [join(bench.repository, 'bin/fastfreeze'), ...words];
}

export async function startApp(bench: Bench, workload: Workload): Promise<App> {
  const logPath = join(bench.memoryDirectory, 'workload.log');
  const program = join(bench.repository, 'bench/workload.py');
  const url = `file:${join(bench.memoryDirectory, 'own')}`;
  const outputPath = join(bench.memoryDirectory, 'run.log');
  const launcher = start(
    fastfreeze(
      bench,
      ...['run', '--image-url', url, '--container', 'bench', '--'],
      ...['python3', program, String(workload.bytes), logPath, String(workload.processes)],
    ),
    { env: fastfreezeEnvironment(bench), logPath: outputPath, timeoutMs: 900_000 },
  );
  const log = new AppLog(logPath);
  try {
    await log.waitFor('begun', (lines) => (lines.includes('ready') ? true : undefined), launcher, 120_000);
  } catch (error) {
    throw new Error(readText(outputPath) ?? '', { cause: error });
  }
  const { supervisorPid, appPid } = findApp(launcher.pid);
  return { launcher, supervisorPid, appPid, log };
}

export function findApp(root: number): { supervisorPid: number; appPid: number } {
  const tree = treeOf(root).map((pid) => inspect(pid));
  const supervisor = tree.find((one) => one?.innerPid === 1);
  const app = tree.find((one) => one?.innerPid === APP_PID);
  if (supervisor === undefined || app === undefined) throw new Error('the container is not complete');
  return { supervisorPid: supervisor.pid, appPid: app.pid };
}

/** Have the workload look through its memory. */
export async function verify(log: AppLog, child: Child, appPid: number): Promise<void> {
  process.kill(appPid, 'SIGUSR1');
  const verdict = await log.waitFor(
    'looked through its memory',
    (lines) => lines.find((line) => line === 'intact' || line === 'damaged'),
    child,
    60_000,
  );
  if (verdict !== 'intact') throw new Error('the memory of the restored workload is not what it was');
}

/** CPU of the whole machine over a stretch of time, and what of it is accounted for. */
export class Ledger {
  private readonly busy = busySeconds();
  private readonly children = childrenCpuSeconds();
  private readonly own = process.cpuUsage();
  private readonly startMs = performance.now();
  private readonly serverSeconds: number;

  constructor(private readonly server?: S3Server) {
    this.serverSeconds = server?.cpuSeconds() ?? 0;
  }

  /** CPU seconds of children of ours that have ended since. */
  endedChildren(): number {
    return childrenCpuSeconds() - this.children;
  }

  /** Share of the machine that others took, given the CPU seconds of living processes that are part of the run. */
  foreignShare(knownSeconds: number, cores: number): number {
    const own = process.cpuUsage(this.own);
    const served = (this.server?.cpuSeconds() ?? 0) - this.serverSeconds;
    const known = knownSeconds + served + this.endedChildren() + (own.user + own.system) / 1e6;
    const wall = (performance.now() - this.startMs) / 1000;
    return Math.max(0, busySeconds() - this.busy - known) / (wall * cores);
  }
}

export function lastLines(path: string): string {
  return readFileSync(path, 'utf8').split('\n').slice(-20).join('\n');
}
