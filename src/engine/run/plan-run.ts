// SPDX-License-Identifier: Apache-2.0
import type { Logger } from '../../base/log.js';
import { type CpuRecord, baselineName, chooseCpu } from '../../container/cpu-baseline.js';
import type { OwnIds } from '../../container/own-ids.js';
import { isPrivileged } from '../../criu/runtime/privilege.js';
import { readCpuFlags } from '../../linux/cpu-features.js';
import type { LeaseHolder } from '../../store/lease/record.js';
import { isFileUrl } from '../../store/store.js';
import { ownIdsForRestore, ownIdsForStart } from '../identity.js';
import type { JobEvent, Outcome } from '../metrics/event.js';
import { type PlanRequest, type Plan as StorePlan, makePlan } from '../plan.js';
import { makePlanElsewhere } from '../plan-process.js';
import type { RunOptions } from './options.js';
import type { CaughtSignals } from './signals.js';
import type { Voice } from './voice.js';

export interface Plan extends StorePlan {
  /** What gives the application its user's ids; undefined where it is uid 0 inside, or root. */
  readonly ownIds?: OwnIds | undefined;
  /** By `performance.now()`. */
  readonly leaseWrittenAtMs: number;
}

export async function planAndTell(
  options: RunOptions,
  holder: LeaseHolder | undefined,
  signals: CaughtSignals,
  voice: Voice,
): Promise<Plan> {
  if (options.noRestore) return await planRun(options, holder, signals, voice);
  return await voice.metrics.timed(
    () => planRun(options, holder, signals, voice),
    (outcome, plan) => ({ action: 'fetch_manifest', ...fetched(outcome, plan) }),
  );
}

function fetched(outcome: Outcome, plan: Plan | undefined): Omit<JobEvent & { action: 'fetch_manifest' }, 'action'> {
  if (plan === undefined) {
    const bad = outcome.error?.includes('format version') === true;
    return bad ? { ...outcome, manifest: 'version_mismatch' } : outcome;
  }
  // Not the time that the lease was waited for.
  const durationMs = Math.min(outcome.durationMs, performance.now() - plan.leaseWrittenAtMs);
  if (plan.generation !== undefined) return { durationMs, manifest: 'good', runMode: 'restore' };
  return { durationMs, manifest: plan.finished !== undefined ? 'finished' : 'not_found', runMode: 'run_from_scratch' };
}

async function planRun(
  options: RunOptions,
  holder: LeaseHolder | undefined,
  signals: CaughtSignals,
  { log, startedAtMs }: Voice,
): Promise<Plan> {
  const { leaseTtlMs: ttlMs, leaseWaitMs: waitMs = 2 * ttlMs, forceLease: force } = options;
  const request: PlanRequest = {
    ...options,
    ...(holder === undefined ? {} : { lease: { holder, ttlMs, waitMs, force } }),
  };
  const calledOff = new AbortController();
  try {
    const start = await signals.unlessEnded(
      isFileUrl(options.imageUrl)
        ? makePlan(request, log, calledOff.signal)
        : makePlanElsewhere(
            { request, log: { verbosity: options.verbosity, format: options.logFormat, startedAtMs } },
            calledOff.signal,
          ),
    );
    const leaseWrittenAtMs = performance.now() - start.leaseAgeMs;
    return { ...start, leaseWrittenAtMs, ownIds: await signals.unlessEnded(findIds(options, start, log)) };
  } finally {
    calledOff.abort();
  }
}

/** Who the application is: what it was for a restore, and for a start what can be had. Root is root. */
async function findIds(options: RunOptions, plan: StorePlan, log: Logger): Promise<OwnIds | undefined> {
  if (isPrivileged()) return undefined;
  if (plan.generation !== undefined) return await ownIdsForRestore(plan.identity, options.container);
  return options.container && process.getuid?.() !== 0 ? await ownIdsForStart(log) : undefined;
}

/** Chosen once, at the start: what a program has seen of the CPU it has seen, and its image says so ever after. */
export function cpuOf({ cpuWish }: RunOptions, plan: Plan, log: Logger): CpuRecord | undefined {
  if (plan.generation === undefined) {
    return chooseCpu(cpuWish ?? { baseline: { kind: 'host' }, masked: [] }, readCpuFlags());
  }
  if (cpuWish === undefined) return plan.cpu;
  const had = plan.cpu === undefined ? 'all of its CPU' : describeChoice(plan.cpu);
  const wanted = describeChoice({ ...cpuWish, baseline: baselineName(cpuWish.baseline) });
  if (had !== wanted)
    log.warn(`the application was started with ${had}, and continues so; ${wanted} is for a new start`);
  return plan.cpu;
}

function describeChoice({ baseline, masked }: Pick<CpuRecord, 'baseline' | 'masked'>): string {
  const mask = masked.length === 0 ? '' : ` and FF_APP_VIRT_CPUID_MASK=${masked.join(',')}`;
  return `--cpu-baseline ${baseline}${mask}`;
}
