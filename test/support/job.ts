// SPDX-License-Identifier: Apache-2.0
import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import type { Writable } from 'node:stream';
import type { Bed } from './bed.js';
import { PATH_OF_JOBS, type Answer, type ExecOptions, type Place } from './place.js';
import { signalPid } from './processes.js';
import { fastfreeze } from './stage.js';
import { until } from './until.js';

export interface JobOptions {
  /** A file for stdin, 'pipe' to write to `job.stdin`, or nothing: /dev/null. */
  readonly stdin?: 'pipe' | { readonly file: string };
  /** Descriptors to use instead of files of the test's own. */
  readonly stdoutFd?: number;
  readonly env?: Readonly<Record<string, string>>;
  /** Words put before `node bin/fastfreeze ...`, e.g. an outer `unshare`. */
  readonly within?: readonly string[];
  /** Instead of `fastfreeze`. */
  readonly program?: readonly string[];
  readonly cwd?: string;
}

/** How a job ended: exit code as a shell has it. */
export interface End {
  readonly code: number;
  readonly signal: NodeJS.Signals | null;
}

/** One `fastfreeze run`. Its stdout and stderr go to files, so that not a byte depends on how fast the test reads. */
export class Job {
  readonly child: ChildProcess;
  readonly #stdoutPath: string;
  readonly #stderrPath: string;
  #end: End | undefined;
  #spawnError: Error | undefined;

  constructor(
    readonly bed: Bed,
    readonly place: Place,
    readonly args: readonly string[],
    options: JobOptions,
    number: number,
  ) {
    this.#stdoutPath = bed.write(`job-${number}.out`, '');
    this.#stderrPath = bed.write(`job-${number}.err`, '');
    const stdin =
      typeof options.stdin === 'object'
        ? openSync(options.stdin.file, 'r')
        : options.stdin === 'pipe'
          ? 'pipe'
          : 'ignore';
    const stdout = options.stdoutFd ?? openSync(this.#stdoutPath, 'a');
    const stderr = openSync(this.#stderrPath, 'a');
    const words = place.command(
      [...(options.within ?? []), ...(options.program ?? fastfreeze()), ...args],
      options.env ?? {},
    );
    const [program = '', ...rest] = words;
    this.child = spawn(program, rest, {
      stdio: [stdin, stdout, stderr],
      cwd: options.cwd ?? bed.path('work'),
      env: { PATH: PATH_OF_JOBS },
    });
    if (typeof stdin === 'number') closeSync(stdin);
    if (options.stdoutFd === undefined) closeSync(stdout);
    closeSync(stderr);
    this.child.once('error', (error) => (this.#spawnError = error));
    this.child.once(
      'exit',
      (code, signal) => (this.#end = { code: code ?? 128 + (signal === null ? 0 : constants.signals[signal]), signal }),
    );
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error(`not started: ${String(this.#spawnError)}`);
    return this.child.pid;
  }

  get stdin(): Writable {
    if (this.child.stdin === null) throw new Error('this job has no stdin pipe');
    return this.child.stdin;
  }

  get stdoutBytes(): Buffer {
    return readFileSync(this.#stdoutPath);
  }

  get stdout(): string {
    return this.stdoutBytes.toString('utf8');
  }

  get stderr(): string {
    return readFileSync(this.#stderrPath, 'utf8');
  }

  get running(): boolean {
    return this.#end === undefined && this.#spawnError === undefined;
  }

  /** Waits until the application runs, from scratch or restored. */
  async ready(how: 'scratch' | 'restored' | 'any' = 'any', timeoutMs?: number): Promise<this> {
    const pattern = {
      scratch: /Application is ready, started from scratch/,
      restored: /Application is ready, restore took [\d.]+s/,
      any: /Application is ready/,
    }[how];
    await this.says(pattern, timeoutMs);
    return this;
  }

  /** Waits for a pattern on stderr; the job ending before it is an error at once. */
  async says(pattern: RegExp, timeoutMs?: number): Promise<RegExpExecArray> {
    return await this.#waitFor(`${String(pattern)} on stderr`, () => pattern.exec(this.stderr) ?? undefined, timeoutMs);
  }

  /** Waits for a pattern on the application's stdout. */
  async prints(pattern: RegExp, timeoutMs?: number): Promise<RegExpExecArray> {
    return await this.#waitFor(`${String(pattern)} on stdout`, () => pattern.exec(this.stdout) ?? undefined, timeoutMs);
  }

  /** Waits until the application has printed `count` more complete lines than now. */
  async progresses(count = 3, timeoutMs?: number): Promise<void> {
    const target = countLines(this.stdoutBytes) + count;
    await this.#waitFor(`${count} more lines`, () => countLines(this.stdoutBytes) >= target, timeoutMs);
  }

  async #waitFor<T>(what: string, probe: () => T | undefined | false, timeoutMs?: number): Promise<T> {
    return await until(
      what,
      () => {
        const value = probe();
        if (value === undefined || value === false) {
          if (!this.running) {
            // What it wrote last may have come between the probe and its end.
            const last = probe();
            if (last !== undefined && last !== false) return last;
            throw new Error(`the job ended (${this.#describeEnd()}) before ${what}`);
          }
          return undefined;
        }
        return value;
      },
      timeoutMs,
    );
  }

  /** Waits for the end. */
  async ends(timeoutMs?: number): Promise<End> {
    return await until('the job to end', () => this.#end, timeoutMs);
  }

  signal(signal: NodeJS.Signals): void {
    signalPid(this.pid, signal);
  }

  /** `fastfreeze checkpoint` at this job's place. */
  async checkpoint(args: readonly string[] = [], options: ExecOptions = {}): Promise<Answer> {
    return await this.place.fastfreeze(['checkpoint', ...args], options);
  }

  /** A checkpoint that must succeed. */
  async commits(args: readonly string[] = [], options: ExecOptions = {}): Promise<Answer> {
    const answer = await this.checkpoint(args, options);
    if (answer.code !== 0) throw new Error(`checkpoint ended with ${answer.code}:\n${answer.stderr}`);
    return answer;
  }

  /** A checkpoint that must succeed, after which the job has ended with 137. */
  async freeze(args: readonly string[] = [], options: ExecOptions = {}): Promise<Answer> {
    const answer = await this.commits(args, options);
    const end = await this.ends();
    if (end.code !== 137) throw new Error(`after the checkpoint the job ended with ${end.code}, not 137`);
    return answer;
  }

  dispose(): void {
    if (this.running && this.child.pid !== undefined) signalPid(this.child.pid, 'SIGKILL');
    this.child.stdin?.destroy();
  }

  #describeEnd(): string {
    if (this.#spawnError !== undefined) return String(this.#spawnError);
    return this.#end === undefined ? 'runs' : `exit code ${this.#end.code}`;
  }

  report(): string {
    const tail = (text: string): string => (text.length > 3000 ? `[...]${text.slice(-3000)}` : text);
    return `job at ${this.place.hostname}: fastfreeze ${this.args.join(' ')}: ${this.#describeEnd()}\n--- its stderr:\n${tail(this.stderr)}\n--- the end of its stdout:\n${tail(this.stdout).slice(-600)}`;
  }
}

function countLines(bytes: Buffer): number {
  let count = 0;
  for (let at = bytes.indexOf(10); at !== -1; at = bytes.indexOf(10, at + 1)) count += 1;
  return count;
}
