// SPDX-License-Identifier: Apache-2.0
// Who is measured: fastfreeze, plain CRIU, and CRIU followed by `tar | lz4`.
import { mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type CriuSetup, dumpArguments, restoreArguments } from '../src/criu/options.js';
import {
  APP_PID,
  type App,
  type Bench,
  type Child,
  fastfreeze,
  fastfreezeEnvironment,
  mustEnd,
  start,
} from './jobs.js';

export interface Contestant {
  readonly name: string;
  /** Dump the application, which runs on. `watch` is told the root of the processes that do it. */
  dump(bench: Bench, app: App, watch: (root: number) => void): Promise<void>;
  /** What has to be done before the clock of a restore starts. */
  prepareRestore(bench: Bench): void;
  /** Begin a restore; the caller sees by the workload's log when it is done. */
  restore(bench: Bench): Child;
  /** End the container of a restored workload. */
  endRestored(child: Child): Promise<void>;
  readonly storedBytes: (bench: Bench) => number | Promise<number>;
}

export const LOG = 'contestant.log';

export const PLAIN = 'plain criu';
export const OLD_WAY = 'dump to disk, tar | lz4';

export const CONTESTANTS: readonly Contestant[] = [
  ours('low'),
  ours('medium'),
  ours('high'),
  plain(),
  withTar(OLD_WAY, (bench) => join(bench.diskDirectory, 'criu')),
  withTar('dump to tmpfs, tar | lz4', (bench) => join(bench.memoryDirectory, 'criu')),
];

function ours(budget: 'low' | 'medium' | 'high'): Contestant {
  const image = (bench: Bench): string => join(bench.memoryDirectory, 'image');
  const storedBytes = (bench: Bench): number => directoryBytes(image(bench));
  return fastfreezeTo(budget, { name: budget, urlOf: (bench) => `file:${image(bench)}`, storedBytes });
}

/** fastfreeze with an image at any URL. */
export function fastfreezeTo(
  budget: 'low' | 'medium' | 'high',
  { name, urlOf, storedBytes }: Pick<Contestant, 'name' | 'storedBytes'> & { readonly urlOf: (bench: Bench) => string },
): Contestant {
  return {
    name,
    async dump(bench, app, watch) {
      watch(app.launcher.pid);
      const logPath = join(bench.memoryDirectory, LOG);
      const words = [
        'checkpoint',
        '--leave-running',
        '--image-url',
        urlOf(bench),
        '--cpu-budget',
        budget,
        '--json',
        'bench',
      ];
      // The client runs on another Node than the job, whose memory is then not shared with it.
      const env = { ...fastfreezeEnvironment(bench), FF_NODE: process.execPath };
      await mustEnd(start(fastfreeze(bench, ...words), { env, logPath }), 'fastfreeze checkpoint', logPath);
    },
    prepareRestore: () => undefined,
    restore: (bench) =>
      start(fastfreeze(bench, 'run', '--image-url', urlOf(bench), '--container', 'bench'), {
        env: fastfreezeEnvironment(bench),
        logPath: join(bench.memoryDirectory, LOG),
      }),
    async endRestored(child) {
      child.kill('SIGTERM');
      await child.exited;
    },
    storedBytes,
  };
}

function plain(): Contestant {
  const directory = (bench: Bench): string => join(bench.memoryDirectory, 'criu');
  return {
    name: PLAIN,
    async dump(bench, app, watch) {
      const logPath = join(bench.memoryDirectory, LOG);
      mkdirSync(directory(bench));
      const child = start(plainDump(bench, app, directory(bench)), { logPath });
      watch(child.pid);
      await mustEnd(child, 'criu dump', logPath);
    },
    prepareRestore: () => undefined,
    restore: (bench) =>
      start(['unshare', ...containerArguments(bench), ...plainRestore(bench, directory(bench))], {
        logPath: join(bench.memoryDirectory, LOG),
      }),
    endRestored,
    storedBytes: (bench) => directoryBytes(directory(bench)),
  };
}

function withTar(name: string, directoryOf: (bench: Bench) => string): Contestant {
  const archive = (bench: Bench): string => join(bench.memoryDirectory, 'archive.tar.lz4');
  return {
    name,
    async dump(bench, app, watch) {
      const logPath = join(bench.memoryDirectory, LOG);
      const directory = directoryOf(bench);
      mkdirSync(directory);
      const script = 'archive=$1 directory=$2; shift 2; "$@" && tar cf - -C "$directory" . | lz4 -1 -q - "$archive"';
      const words = ['sh', '-c', script, 'sh', archive(bench), directory, ...plainDump(bench, app, directory)];
      const child = start(words, { logPath });
      watch(child.pid);
      await mustEnd(child, name, logPath);
    },
    prepareRestore(bench) {
      // Elsewhere, where the restore happens, there is the archive and nothing else.
      rmSync(directoryOf(bench), { recursive: true });
      mkdirSync(join(bench.memoryDirectory, 'criu'));
    },
    restore(bench) {
      const directory = join(bench.memoryDirectory, 'criu');
      const script =
        'archive=$1 directory=$2; shift 2; lz4 -dcq "$archive" | tar xf - -C "$directory" && exec unshare "$@"';
      const words = ['sh', '-c', script, 'sh', archive(bench), directory];
      return start([...words, ...containerArguments(bench), ...plainRestore(bench, directory)], {
        logPath: join(bench.memoryDirectory, LOG),
      });
    },
    endRestored,
    storedBytes: (bench) => statSync(archive(bench)).size,
  };
}

export async function endRestored(child: Child): Promise<void> {
  // With --kill-child the container goes with unshare.
  child.kill('SIGKILL');
  await child.exited;
}

function setup(bench: Bench): CriuSetup {
  return { command: bench.criu.command, privileged: bench.privileged, verbosity: 0, extraOptions: [] };
}

/** The same options as fastfreeze's own dump, less the streaming. */
export function plainDump(bench: Bench, app: App, directory: string): string[] {
  const options = { pid: APP_PID, externals: [], gateScript: '', leaveRunning: true };
  const words = inDirectory(dumpArguments(setup(bench), options), directory);
  const enter = bench.privileged ? [] : ['--user', '--preserve-credentials'];
  return [
    ...['nsenter', '--target', String(app.supervisorPid), ...enter, '--pid', '--mount', '--'],
    ...without(without(words, '--stream', 1), '--action-script', 2),
  ];
}

/** What the launcher makes a container of. */
export function containerArguments(bench: Bench): string[] {
  const own = bench.privileged ? [] : ['--user', '--map-root-user', '--time'];
  return [...own, '--pid', '--fork', '--mount', '--mount-proc', '--kill-child', '--'];
}

/** PID 1 of the container: restores, then waits for as long as the workload lives. */
export function plainRestore(bench: Bench, directory: string): string[] {
  const words = inDirectory(restoreArguments(setup(bench), { inherited: [], leaveStopped: false }), directory);
  const script = 'echo 5000 >/proc/sys/kernel/ns_last_pid; "$@" || exit; while kill -0 1000; do sleep 1; done';
  return ['sh', '-c', script, 'sh', ...without(words, '--stream', 1)];
}

/** The engine starts CRIU in its directory; here the directory is named. */
function inDirectory(words: readonly string[], directory: string): string[] {
  return words.map((word, i) => (/^--(images|work)-dir$/.test(words[i - 1] ?? '') ? directory : word));
}

function without(words: readonly string[], option: string, count: number): string[] {
  const at = words.indexOf(option);
  return at < 0 ? [...words] : [...words.slice(0, at), ...words.slice(at + count)];
}

function directoryBytes(directory: string): number {
  return readdirSync(directory).reduce((sum, name) => sum + statSync(join(directory, name)).size, 0);
}
