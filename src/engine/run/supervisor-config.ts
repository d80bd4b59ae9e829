// SPDX-License-Identifier: Apache-2.0
import { fstatSync, readlinkSync } from 'node:fs';
import type { Logger } from '../../base/log.js';
import { appEnvironment } from '../../container/app-env.js';
import { criuOptions } from '../../criu/options.js';
import type { CriuRuntime } from '../../criu/runtime/find.js';
import { isPrivileged } from '../../criu/runtime/privilege.js';
import type { LeaseHolder } from '../../store/lease/record.js';
import type { SupervisorConfig } from '../config.js';
import { readLinger } from '../linger.js';
import { type JobDirectory, logDirectory } from '../state.js';
import type { RunOptions } from './options.js';
import type { Plan } from './plan-run.js';
import { ignoredSignals } from './signals.js';
import type { OuterTerminal } from './terminal.js';

/** A place for the application's temporary files, or why there is none; neither without a container. */
export type TemporaryPlace = Pick<SupervisorConfig, 'temporaryDirectory' | 'temporaryProblem'>;

/** What of a run is known when its supervisor is started. */
export interface AboutRun {
  readonly job: JobDirectory;
  readonly holder: LeaseHolder | undefined;
  readonly plan: Plan;
  readonly criu: CriuRuntime;
  readonly temporary: TemporaryPlace;
  readonly terminal: OuterTerminal['outer'];
  readonly startedAtMs: number;
  readonly mayBeToldToLeave: boolean;
}

/** All that the supervisor is told of the run, before it starts or restores the application. */
export function supervisorConfig(options: RunOptions, about: AboutRun, log: Logger): SupervisorConfig {
  const { job, holder, plan, criu, temporary, terminal } = about;
  const { ownIds } = plan;
  const privileged = isPrivileged();
  const { passphrase, ...plain } = options;
  log.trace(passphrase === undefined ? 'images are not encrypted' : 'images are encrypted');
  const environment = appEnvironment({
    env: process.env,
    scrub: options.scrubEnvironment,
    fakeRoot: !privileged && ownIds === undefined,
    ...(plan.generation === undefined && plan.cpu !== undefined ? { cpu: plan.cpu } : {}),
  });
  if (environment.kept.length > 0) {
    log.warn(
      `${environment.kept.join(', ')} stays as you set it: programs that read it may use more of the CPU than the image will say`,
    );
  }
  return {
    ...plain,
    jobDirectory: job.path,
    ...temporary,
    ownOutputs: [1, 2].map(regularFile).filter((path) => path !== undefined),
    logDirectory: logDirectory(),
    ...(plan.generation === undefined ? {} : { restoreGeneration: plan.generation }),
    ...(holder === undefined ? {} : { lease: leaseConfig(options, holder, plan) }),
    ...(plan.knownGeneration === undefined ? {} : { knownGeneration: plan.knownGeneration }),
    criu: {
      command: [...(ownIds?.asRoot ?? []), ...criu.command],
      privileged,
      verbosity: options.verbosity,
      extraOptions: criuOptions(process.env['CRIU_OPTS']),
    },
    ...(plan.keys === undefined ? {} : { keys: plan.keys }),
    criuVersion: criu.version,
    ...(ownIds === undefined ? {} : { identity: { uid: ownIds.uid, gid: ownIds.gid } }),
    outer: {
      ...terminal,
      ...(options.outputPath === undefined ? {} : { outputPath: options.outputPath }),
      ...(options.errorPath === undefined ? {} : { errorPath: options.errorPath }),
    },
    environment,
    ...(plan.cpu === undefined ? {} : { cpu: plan.cpu }),
    ...openFilesLimit(),
    ...readLinger(process.env),
    ignoredSignals: ignoredSignals(),
    startedAtMs: about.startedAtMs,
    recordsMetrics: (process.env['FF_METRICS_RECORDER'] ?? '') !== '',
    mayBeToldToLeave: about.mayBeToldToLeave,
    launcherPid: process.pid,
    ...(process.env['UV_THREADPOOL_SIZE'] === undefined ? {} : { threadPoolSize: process.env['UV_THREADPOOL_SIZE'] }),
  };
}

/** The name of the file behind a descriptor of ours; undefined for a pipe, a terminal, a device. */
function regularFile(fd: number): string | undefined {
  try {
    return fstatSync(fd).isFile() ? readlinkSync(`/proc/self/fd/${fd}`) : undefined;
  } catch {
    return undefined; // It is closed.
  }
}

function leaseConfig(
  options: RunOptions,
  holder: LeaseHolder,
  { lease }: Plan,
): NonNullable<SupervisorConfig['lease']> {
  const common = { holder, ttlMs: options.leaseTtlMs, strict: options.strictLease, ageMs: 0 };
  return lease === undefined ? common : { ...common, lease };
}

/** The soft limit that our caller had; bin/fastfreeze reads it before Node raises its own. */
function openFilesLimit(): { openFilesLimit?: number } {
  const limit = Number(process.env['FF_NOFILE']);
  return Number.isSafeInteger(limit) && limit > 0 ? { openFilesLimit: limit } : {};
}
