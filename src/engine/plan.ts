// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, asFastFreezeError, toErrorRecord } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { type CpuRecord, continuedCpu, refuseLesserCpu } from '../container/cpu-baseline.js';
import type { Identity } from '../container/own-ids.js';
import { listGenerations, readManifest } from '../image/generations.js';
import type { KeyMaterial } from '../image/keys.js';
import { checkSeal } from '../image/manifest.js';
import { manifestName } from '../image/names.js';
import type { Clocks } from '../linux/clocks.js';
import { readCpuFlags } from '../linux/cpu-features.js';
import { type Lease, acquireLease, describeHolder } from '../store/lease/acquire.js';
import type { LeaseHolder } from '../store/lease/record.js';
import { isKnownDead } from '../store/lease/self.js';
import { type Store, openStore } from '../store/store.js';
import { parseAppRecord } from './app-record.js';
import { commandSha256 } from './command-mark.js';
import { freshMaterial, materialOf, revive, wasEncrypted } from './passphrase.js';
import { emptySpool } from './spool.js';

/** What `run` has to know of the store before anything starts. Plain data: it may be found out in another process. */
export interface PlanRequest {
  readonly imageUrl: string;
  readonly command: readonly string[];
  readonly noRestore: boolean;
  readonly generation?: number;
  readonly allowBadImageVersion: boolean;
  readonly allowInexact: boolean;
  readonly returnFinished: boolean;
  readonly spoolDirectory?: string;
  readonly keep: number;
  /** To decrypt the image with, and to encrypt those that follow. */
  readonly passphrase?: string;
  /** Undefined where nobody else can run this job. */
  readonly lease?: LeaseRequest;
}

export interface LeaseRequest {
  readonly holder: LeaseHolder;
  readonly ttlMs: number;
  readonly waitMs: number;
  readonly force: boolean;
}

export interface Plan {
  /** To restore; undefined to start from scratch. */
  readonly generation?: number;
  readonly clocks?: Clocks;
  /** The newest generation says that the job has ended by itself, with this exit code (null where it does not say). */
  readonly finished?: { readonly exitCode: number | null };
  /** The ids that the image has in it. */
  readonly identity?: Identity;
  /** What the restored application may use of the CPU; undefined where its image does not say. */
  readonly cpu?: CpuRecord;
  readonly lease?: Lease;
  /** For the job's images, where they are encrypted. */
  readonly keys?: KeyMaterial;
  /** Since the lease was written. */
  readonly leaseAgeMs: number;
  /** The newest generation, where there can be no lease. */
  readonly knownGeneration?: number;
}

/** The job runs elsewhere: not a failed restore. */
export class JobHeldError extends FastFreezeError {}

/**
 * Restore or start anew? First the lease is taken, so that nobody commits a newer generation behind our back; then the
 * manifest decides; only what is known to be sound is restored. Throws `JobHeldError` when another run has the lease.
 */
export async function makePlan(request: PlanRequest, log: Logger, signal?: AbortSignal): Promise<Plan> {
  const store = openStore(request.imageUrl, { onWait: (message) => log.warn(message) });
  // Before anything is written there: without a command, what holds no image is a mistake in the URL.
  const restoreOnly = request.command.length === 0 && request.spoolDirectory === undefined;
  if (restoreOnly && (await listGenerations(store)).length === 0) return { leaseAgeMs: 0 };
  await tellFencing(store, request, log);
  const lease = await takeLease(store, request.lease, log, signal);
  const writtenAtMs = performance.now();
  // Looked at before the plan is made: what comes since is somebody else's.
  const newest = store.writeOnce === undefined ? undefined : ((await listGenerations(store)).at(-1) ?? 0);
  const start = await planStart(store, request, log);
  const known = newest === undefined ? {} : { knownGeneration: Math.max(newest, start.generation ?? 0) };
  return { ...start, ...known, ...(lease === undefined ? {} : { lease }), leaseAgeMs: performance.now() - writtenAtMs };
}

/** Say at the start what a service does not promise, or that nothing can be written there: later is too late. */
async function tellFencing(store: Store, request: PlanRequest, log: Logger): Promise<void> {
  // A directory keeps the promise, and is made by the first checkpoint: a job without one leaves nothing.
  if (store.url.startsWith('file:')) return;
  // A service that does not answer at all is told of by what needs it.
  if (!request.noRestore) await listGenerations(store);
  const url = request.imageUrl;
  try {
    const { fencing } = await store.prepare();
    if (fencing === 'atomic') return;
    log.warn(`${url} has no conditional writes: fencing is best effort, so never run this job on two machines at once`);
  } catch (error) {
    log.warn(`${asFastFreezeError(error, 'prepare', url).message}; checkpoints will fail`);
  }
}

async function takeLease(
  store: Store,
  request: LeaseRequest | undefined,
  log: Logger,
  signal: AbortSignal | undefined,
): Promise<Lease | undefined> {
  if (request === undefined) return undefined;
  const { holder } = request;
  try {
    return await acquireLease(store, {
      ...request,
      ...(signal === undefined ? {} : { signal }),
      isDead: (other) => isKnownDead(other, holder),
      waiting: (other, waitMs) =>
        log.info(
          `This job runs on ${describeHolder(other)}; waiting up to ${Math.round(waitMs / 1000)} s for its lease`,
        ),
    });
  } catch (error) {
    const known = asFastFreezeError(error, 'take the lease of', store.url);
    if (known.code === 'conflict') throw new JobHeldError(toErrorRecord(known));
    if (known.code === 'aborted') throw known;
    log.warn(`${known.message}; checkpoints fail until the lease can be taken`);
    return undefined;
  }
}

async function planStart(store: Store, request: PlanRequest, log: Logger): Promise<Omit<Plan, 'leaseAgeMs'>> {
  const start = await planRestore(store, request, log);
  const isNew = start.generation === undefined;
  if (isNew && request.passphrase === undefined && (await wasEncrypted(store))) {
    log.warn('earlier images of this job are encrypted; those that follow will not be, since no passphrase is given');
  }
  const keys = isNew ? await freshMaterial(request.passphrase) : start.keys;
  return { ...start, ...(keys === undefined ? {} : { keys }) };
}

async function planRestore(store: Store, request: PlanRequest, log: Logger): Promise<Omit<Plan, 'leaseAgeMs'>> {
  if (request.noRestore) {
    log.info('Starting from scratch, as --no-restore asks');
    return {};
  }
  if (request.spoolDirectory !== undefined) {
    // What an earlier run left in the spool is newer than what the URL holds.
    const { spoolDirectory: directory, imageUrl: url, keep } = request;
    await emptySpool({ directory, url, keep, log: (message) => log.info(message) });
  }
  log.info(`Fetching image manifest for ${request.imageUrl}`);
  const generation = request.generation ?? (await listGenerations(store)).at(-1);
  if (generation === undefined) {
    log.info('Image manifest not found, running application from scratch');
    return {};
  }
  const manifest = await readManifest(store, generation, { allowBadVersion: request.allowBadImageVersion });
  if (manifest.state === 'finished') {
    const code = manifest.finished?.exitCode ?? null;
    const known = manifest.finished?.commandSha256;
    const isAsked = request.returnFinished && request.command.length > 0;
    if (isAsked && known !== undefined && known !== commandSha256(request.command)) {
      throw otherCommand(request, `has finished${code === null ? '' : `, with exit_code=${code}`}`);
    }
    log.info(
      `This job finished${code === null ? '' : ` with exit_code=${code}`} at ${manifest.createdAt}` +
        (request.returnFinished ? '' : '; starting anew'),
    );
    return { finished: { exitCode: code } };
  }
  const keys = await materialOf(manifest, request.passphrase);
  checkSeal(manifest, revive(keys), manifestName(generation));
  const record = parseAppRecord(manifest.app);
  const given = request.command.join('\0');
  if (given !== '' && given !== record.command.join('\0')) {
    if (request.returnFinished) throw otherCommand(request, `is frozen there: ${record.command.join(' ')}`);
    log.warn(
      `the image is of another command, which is what continues: ${record.command.join(' ')} (given: ${request.command.join(' ')})`,
    );
  }
  // Here, where /proc/cpuinfo is the machine's own, and nothing has been started. CRIU would not look (`commonArguments`).
  const machine = readCpuFlags();
  if (record.cpu !== undefined) lookAtCpu(record.cpu, machine, request, log);
  log.info(`Restoring application from generation ${generation} of ${manifest.createdAt}`);
  return {
    generation,
    clocks: record.clocks,
    ...(record.cpu === undefined ? {} : { cpu: continuedCpu(record.cpu, machine) }),
    ...(record.identity === undefined ? {} : { identity: record.identity }),
    ...(keys === undefined ? {} : { keys }),
  };
}

/** Under a batch system two commands of one job script have one key: neither may stand for the other. */
function otherCommand({ command, imageUrl }: PlanRequest, what: string): FastFreezeError {
  return new FastFreezeError({
    code: 'conflict',
    op: 'run',
    subject: command.join(' '),
    reason: `another command of the same job ${what} (${imageUrl})`,
    hint: 'give each command of a job a --job-id of its own, or --no-restore to start this one from scratch',
  });
}

function lookAtCpu(cpu: CpuRecord, machine: ReadonlySet<string>, request: PlanRequest, log: Logger): void {
  try {
    refuseLesserCpu(cpu, machine);
  } catch (error) {
    if (!request.allowInexact) throw error;
    log.warn(`${asFastFreezeError(error, 'restore').reason}: an instruction that is missing will end it (SIGILL)`);
  }
}
