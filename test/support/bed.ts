// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { Job, type JobOptions } from './job.js';
import { Place } from './place.js';
import { processesIn, processesWithId, signalPid, type ProcessInfo } from './processes.js';
import { scratchDir } from './stage.js';
import { messageOf, until } from './until.js';

export type Identity = 'root' | 'user';

/** A uid that owns nothing on this machine. */
export const USER_ID = 64001;

export interface PlaceOptions {
  /** How far this place's monotonic and boot clocks are ahead of the host's. */
  readonly clockOffsetS?: number;
  /** Files of the machine that have another content here, by their path; they must exist. Nobody else sees it. */
  readonly files?: Readonly<Record<string, string>>;
}

/**
 * All that one test has: an identity, directories of its own, places ("machines") to run jobs at. `withBed` makes it, and at the end proves
 * that nothing is left: no process, no mount, no file of ours.
 */
export class Bed {
  readonly id = randomBytes(8).toString('hex');
  readonly dir: string;
  readonly #places: Place[] = [];
  readonly #jobs: Job[] = [];
  readonly #mounts: string[] = [];
  readonly #mountsBefore: ReadonlySet<string>;
  /** Set when a test leaves something on purpose, with the reason. */
  leavesState = false;

  constructor(readonly identity: Identity) {
    this.dir = join(scratchDir(), this.id.slice(0, 8));
    mkdirSync(this.dir);
    this.#mountsBefore = new Set(mountLines());
    for (const name of ['.', 'work', 'tmp', 'logs']) this.#own(join(this.dir, name));
  }

  /** A path in this test's directory. */
  path(...names: string[]): string {
    return join(this.dir, ...names);
  }

  /** Makes a directory that the identity owns. */
  directory(...names: string[]): string {
    const path = this.path(...names);
    this.#own(path);
    return path;
  }

  #own(path: string): void {
    mkdirSync(path, { recursive: true });
    this.give(path);
    chmodSync(path, 0o755);
  }

  /** Hands a file or directory to the identity. */
  give(path: string): void {
    if (this.identity === 'user') chownSync(path, USER_ID, USER_ID);
  }

  /** Writes a file that the identity owns. */
  write(name: string, content: string | Buffer): string {
    const path = this.path(name);
    writeFileSync(path, content);
    this.give(path);
    return path;
  }

  /** A new "machine": empty state directory, other host name, other clocks. */
  async place(options: PlaceOptions = {}): Promise<Place> {
    const number = this.#places.length + 1;
    const state = this.directory(`s${number}`);
    chmodSync(state, 0o700);
    const place = await Place.make(this, number, state, options);
    this.#places.push(place);
    return place;
  }

  /** Starts `fastfreeze run ...options -- ...command` at a place. */
  run(place: Place, options: readonly string[], command: readonly string[], more: JobOptions = {}): Job {
    return this.start(place, ['run', ...options, ...(command.length > 0 ? ['--', ...command] : [])], more);
  }

  /** Starts `fastfreeze ...words` at a place: what runs until it is told to end. */
  start(place: Place, words: readonly string[], more: JobOptions = {}): Job {
    const job = new Job(this, place, words, more, this.#jobs.length + 1);
    this.#jobs.push(job);
    return job;
  }

  /** A small tmpfs mounted under this test's directory; unmounted at the end. */
  tmpfs(name: string, sizeBytes: number): string {
    const path = this.path(name);
    mkdirSync(path);
    mount('-t', 'tmpfs', '-o', `size=${sizeBytes},mode=0777`, 'ff-test', path);
    this.#mounts.push(path);
    return path;
  }

  /** Makes a directory read-only for everybody, root too. */
  readOnly(path: string): void {
    mount('--bind', path, path);
    mount('-o', 'remount,bind,ro', path);
    this.#mounts.push(path);
  }

  unmountAll(): void {
    for (const path of this.#mounts.splice(0).reverse()) spawnSync('umount', ['-l', path]);
  }

  /** Names in a directory, sorted. */
  list(...names: string[]): string[] {
    const path = this.path(...names);
    return existsSync(path) ? readdirSync(path).sort() : [];
  }

  /** Everything of this test that still runs. */
  survivors(): ProcessInfo[] {
    const found = new Map<number, ProcessInfo>();
    for (const place of this.#places) for (const info of processesIn(place.uts)) found.set(info.pid, info);
    for (const info of processesWithId(this.id)) found.set(info.pid, info);
    for (const place of this.#places) for (const pid of place.holders) found.delete(pid);
    found.delete(process.pid);
    return [...found.values()];
  }

  /** What is left behind, in words; empty when nothing is. Waits a moment for processes that are ending. */
  async leaks(): Promise<string[]> {
    const leaks: string[] = [];
    const gone = await until('processes to end', () => this.survivors().length === 0, 5_000).catch(() => false);
    if (!gone)
      leaks.push(...this.survivors().map((p) => `process ${p.pid} (${p.state}, child of ${p.ppid}): ${p.command}`));
    for (const line of mountLines()) {
      if (this.#mountsBefore.has(line) || this.#mounts.some((path) => line.includes(` ${path} `))) continue;
      if (line.includes(this.dir) || /fastfreeze|criu/.test(line)) leaks.push(`mount: ${line}`);
    }
    if (!this.leavesState) {
      for (const place of this.#places) leaks.push(...filesUnder(place.stateDir).map((path) => `state file: ${path}`));
      leaks.push(...filesUnder(this.path('tmp')).map((path) => `temporary file: ${path}`));
    }
    return leaks;
  }

  /** Ends and removes everything, whatever happened. */
  async dispose(): Promise<void> {
    for (const job of this.#jobs) job.dispose();
    for (let i = 0; i < 50 && this.survivors().length > 0; i += 1) {
      // SIGCONT too: a process that was left stopped dies at once of SIGKILL, but its parent may be waiting for it.
      for (const { pid } of this.survivors()) signalPid(pid, 'SIGKILL');
      await until('processes to end', () => this.survivors().length === 0, 200).catch(() => undefined);
    }
    this.unmountAll();
    for (const place of this.#places) await place.dispose();
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** What a person wants to see when a test has failed. */
  report(): string {
    const jobs = this.#jobs.map((job) => job.report());
    return [`bed ${this.dir} as ${this.identity}`, ...jobs].join('\n');
  }
}

/** Runs a test body with a bed; afterwards nothing may be left. */
export async function withBed(identity: Identity, body: (bed: Bed) => Promise<void>): Promise<void> {
  const bed = new Bed(identity);
  try {
    await body(bed);
    const leaks = await bed.leaks();
    if (leaks.length > 0) throw new Error(`left behind:\n  ${leaks.join('\n  ')}`);
  } catch (error) {
    throw new Error(`${messageOf(error)}\n--- ${bed.report()}`, { cause: error });
  } finally {
    await bed.dispose();
  }
}

function mount(...args: string[]): void {
  const result = spawnSync('mount', args, { encoding: 'utf8' });
  if (result.status !== 0) throw new Error(`mount ${args.join(' ')}: ${result.stderr}`);
}

function mountLines(): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line !== '');
}

/** Files (not directories, not logs) below a directory. */
export function filesUnder(path: string): string[] {
  if (!existsSync(path)) return [];
  return readdirSync(path, { recursive: true, encoding: 'utf8' })
    .map((name) => join(path, name))
    .filter((name) => !name.endsWith('.log') && !statSync(name, { throwIfNoEntry: false })?.isDirectory());
}
