// SPDX-License-Identifier: Apache-2.0
import { spawn, spawnSync, type ChildProcess, type SpawnSyncReturns } from 'node:child_process';
import type { Bed, PlaceOptions } from './bed.js';
import { USER_ID } from './bed.js';
import { childrenOf, namespaceOf } from './processes.js';
import { fastfreeze, homeOf, nodePath } from './stage.js';
import { until } from './until.js';

export interface Answer {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ExecOptions {
  readonly env?: Record<string, string>;
  readonly as?: 'root' | 'user';
  /** Hangs, when it takes longer. */
  readonly timeoutMs?: number | undefined;
}

/**
 * A "machine": an own host name, own clocks, an own state directory. Its namespaces are held open by a process that ends when its stdin
 * does, so that nothing is left even when the test run is killed. Commands join them with nsenter, which execs: the PID that we see is the
 * command's own, as a scheduler would see it.
 */
export class Place {
  readonly uts: string;
  readonly holders: readonly number[];

  private constructor(
    readonly bed: Bed,
    readonly stateDir: string,
    readonly hostname: string,
    readonly clockOffsetS: number,
    private readonly holder: ChildProcess,
    private readonly inside: number,
    private readonly ownMounts: boolean,
  ) {
    this.holders = [holder.pid ?? -1, inside];
    const uts = namespaceOf(inside, 'uts');
    if (uts === undefined) throw new Error('the holder of the place is gone');
    this.uts = uts;
  }

  static async make(bed: Bed, number: number, stateDir: string, options: PlaceOptions): Promise<Place> {
    const { clockOffsetS = 0, files = {} } = options;
    const ownMounts = Object.keys(files).length > 0;
    const hostname = `host-${bed.id.slice(0, 6)}-${number}`;
    const clocks = ['--time', '--monotonic', String(clockOffsetS), '--boottime', String(clockOffsetS)];
    const mounts = Object.entries(files).map(([path, content], i) => {
      const source = bed.write(`file-${number}-${i}`, content);
      return `mount --bind ${source} ${path} && `;
    });
    const script = `${mounts.join('')}hostname ${hostname} 2>/dev/null || echo ${hostname} >/proc/sys/kernel/hostname; echo ready; exec cat >/dev/null`;
    const holder = spawn(
      'unshare',
      [...(ownMounts ? ['--mount'] : []), '--uts', ...clocks, '--fork', '--kill-child', 'sh', '-c', script],
      {
        stdio: ['pipe', 'pipe', 'inherit'],
        env: { PATH: PATH_OF_JOBS },
      },
    );
    let said = '';
    holder.stdout.on('data', (data: Buffer) => (said += data.toString()));
    await until('a place', () => said.includes('ready'), 10_000);
    const inside = childrenOf(holder.pid ?? -1)[0];
    if (inside === undefined) throw new Error('no holder of the place');
    return new Place(bed, stateDir, hostname, clockOffsetS, holder, inside, ownMounts);
  }

  /** The words that run `words` here under the bed's identity; all of them exec, so the PID stays. */
  command(
    words: readonly string[],
    env: Readonly<Record<string, string>> = {},
    as = this.bed.identity,
  ): readonly string[] {
    const drop = as === 'user' ? ['setpriv', `--reuid=${USER_ID}`, `--regid=${USER_ID}`, '--clear-groups'] : [];
    const variables = Object.entries({ ...this.environment(), ...env }).map(([name, value]) => `${name}=${value}`);
    const enter = ['nsenter', `--uts=/proc/${this.inside}/ns/uts`, `--time=/proc/${this.inside}/ns/time`];
    // Entering a mount namespace ends in its root directory.
    const [mounts, back] = this.ownMounts
      ? [[`--mount=/proc/${this.inside}/ns/mnt`], [`--chdir=${this.bed.path('work')}`]]
      : [[], []];
    return [...enter, ...mounts, ...drop, 'env', '-i', ...back, ...variables, ...words];
  }

  /** Nothing of the environment of the test run goes in, except where a CRIU was chosen by hand. */
  environment(): Record<string, string> {
    const criu = process.env['FF_CRIU'];
    return {
      PATH: PATH_OF_JOBS,
      HOME: homeOf(this.bed.identity),
      TMPDIR: this.bed.path('tmp'),
      LANG: 'C.UTF-8',
      PYTHONDONTWRITEBYTECODE: '1',
      UV_USE_IO_URING: '0',
      FF_STATE_DIR: this.stateDir,
      FF_LOG_DIR: this.bed.path('logs'),
      FF_TEST_ID: this.bed.id,
      FF_NODE: nodePath(),
      ...(criu === undefined ? {} : { FF_CRIU: criu }),
    };
  }

  /** Runs a `fastfreeze` command here to its end without blocking the event loop. */
  async fastfreeze(args: readonly string[], options: ExecOptions = {}): Promise<Answer> {
    return await this.exec([...fastfreeze(), ...args], options);
  }

  /** Runs any command here to its end. */
  async exec(words: readonly string[], options: ExecOptions = {}): Promise<Answer> {
    const child = this.start(words, options);
    let stdout = '';
    let stderr = '';
    child.stdout?.on('data', (data: Buffer) => (stdout += data.toString()));
    child.stderr?.on('data', (data: Buffer) => (stderr += data.toString()));
    const code = await ended(child, words.join(' '), () => stdout + stderr, options.timeoutMs);
    return { code, stdout, stderr };
  }

  /** Starts a command here; its PID is that of the command itself. */
  start(
    words: readonly string[],
    options: { readonly env?: Record<string, string>; readonly as?: 'root' | 'user' } = {},
  ): ChildProcess {
    const [program = '', ...args] = this.command(words, options.env, options.as);
    return spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: this.bed.path('work'),
      env: { PATH: PATH_OF_JOBS },
    });
  }

  /** For small questions to the place itself. */
  ask(words: readonly string[]): SpawnSyncReturns<string> {
    const [program = '', ...args] = this.command(words);
    return spawnSync(program, args, { encoding: 'utf8', cwd: this.bed.path('work'), env: { PATH: PATH_OF_JOBS } });
  }

  async dispose(): Promise<void> {
    const closed = new Promise((resolve) => this.holder.once('close', resolve));
    this.holder.stdin?.end();
    if (this.holder.exitCode === null && this.holder.signalCode === null) await closed;
  }
}

export const PATH_OF_JOBS = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Resolves to the exit code, 128 + n for a death by signal; a command that hangs is killed and reported. */
export async function ended(
  child: ChildProcess,
  what: string,
  detail: () => string,
  timeoutMs = 90_000,
): Promise<number> {
  const { constants } = await import('node:os');
  return await new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`did not end within ${timeoutMs} ms: ${what}\n${detail()}`));
    }, timeoutMs);
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal]));
    });
  });
}
