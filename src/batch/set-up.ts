// SPDX-License-Identifier: Apache-2.0
import type { NoticeSource } from '../notice/notice.js';
import { timeLimitSource } from '../notice/sources/local.js';
import { jobUrl } from '../store/job-url.js';
import { isFileUrl } from '../store/store.js';
import { jobKey } from './recognise.js';
import { resubmitFindings } from './resubmission.js';
import { type BatchSystem, type Finding, type Inspection, valueOf } from './system.js';

export interface SetUpRequest {
  readonly system: BatchSystem;
  readonly env: NodeJS.ProcessEnv;
  readonly nowMs: number;
  readonly imageUrl?: string;
  readonly imageBase?: string;
  readonly jobId?: string;
  /** From now. */
  readonly timeLimitMs?: number;
  readonly signals: readonly NodeJS.Signals[];
  readonly signalWindowMs?: number;
  /** Instead of the system's own. */
  readonly sources?: readonly NoticeSource[];
  /** Beside them. */
  readonly moreSources: readonly NoticeSource[];
  readonly requeueExitCode: number;
  /** How often a job may be submitted again after its last attempt; not at all by default. */
  readonly resubmit?: number;
}

/** All that `batch run` goes by, and `batch explain` shows. */
export interface SetUp {
  readonly system: BatchSystem;
  readonly key: string | undefined;
  /** Undefined where a finding says why. */
  readonly imageUrl: string | undefined;
  /** Milliseconds since the epoch. */
  readonly endsAtMs: number | undefined;
  /** What was given as the job's limit; likewise. */
  readonly limitAtMs: number | undefined;
  /** The system's own sources are listened to: what it says later counts. */
  readonly asksSystem: boolean;
  readonly sources: readonly NoticeSource[];
  readonly signals: readonly NodeJS.Signals[];
  readonly signalWindowMs: number;
  readonly requeueExitCode: number;
  readonly resubmit: number;
  readonly findings: readonly Finding[];
}

export function setUp(request: SetUpRequest): SetUp {
  const { system, env, nowMs, timeLimitMs, resubmit = 0 } = request;
  const key = jobKey(request.jobId, system, env);
  const base = request.imageBase ?? valueOf(env, 'FASTFREEZE_IMAGE_BASE');
  const imageUrl = request.imageUrl ?? (base === undefined || key === undefined ? undefined : jobUrl(base, key));
  const limitAtMs = timeLimitMs === undefined ? undefined : nowMs + timeLimitMs;
  const endsAtMs = soonest(system.endsAtMs, limitAtMs);
  const asksSystem = request.sources === undefined;
  // The system's own limit may be moved while the job runs, and its sources follow it: only without them is it a fixed one.
  const fixedMs = asksSystem ? limitAtMs : endsAtMs;
  const limit = fixedMs === undefined ? [] : [timeLimitSource(fixedMs, 'the time limit')];
  return {
    system,
    key,
    imageUrl,
    endsAtMs,
    limitAtMs,
    asksSystem,
    sources: [...limit, ...(request.sources ?? system.sources), ...request.moreSources],
    signals: request.signals,
    signalWindowMs: request.signalWindowMs ?? system.signalWindowMs,
    requeueExitCode: request.requeueExitCode,
    resubmit,
    findings: [
      ...placeFindings(request, key, base),
      ...system.findings,
      ...resubmitFindings(system, resubmit),
      ...limitFindings(system, endsAtMs),
      ...(imageUrl === undefined ? [] : storeFindings(system, imageUrl)),
    ],
  };
}

/** As it is with what the system has answered. */
export function withInspection(found: SetUp, { findings, endsAtMs }: Inspection): SetUp {
  const counts = found.asksSystem && endsAtMs !== undefined;
  return {
    ...found,
    findings: [...found.findings, ...findings],
    ...(counts ? { endsAtMs: soonest(endsAtMs ?? undefined, found.limitAtMs) } : {}),
  };
}

function soonest(...moments: readonly (number | undefined)[]): number | undefined {
  const known = moments.filter((moment) => moment !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}

function placeFindings(request: SetUpRequest, key: string | undefined, base: string | undefined): Finding[] {
  if (request.imageUrl !== undefined) return [];
  const found: Finding[] = [];
  if (base === undefined) {
    found.push({
      level: 'fail',
      what: 'nothing says where images go',
      remedy:
        'set FASTFREEZE_IMAGE_BASE to a URL that all machines reach, such as s3://bucket/jobs, or give --image-base',
    });
  }
  if (key === undefined) {
    found.push({
      level: 'fail',
      what: `nothing of ${request.system.title} names this job so that its next run would be known`,
      remedy:
        request.system.keyRemedy ??
        'give --job-id ID, or set FASTFREEZE_JOB_ID: the same for all runs of the job, and another for each job',
    });
  }
  return found;
}

/** Timeouts that are known to end a job for good. */
function limitFindings(system: BatchSystem, endsAtMs: number | undefined): Finding[] {
  if (endsAtMs !== undefined || system.name !== 'aws-batch') return [];
  return [
    {
      level: 'warn',
      what: 'the time limit is not known, and AWS Batch does not retry a job that has reached it',
      remedy:
        'if the job definition has attemptDurationSeconds, set FASTFREEZE_TIME_LIMIT to the same, or give --time-limit',
    },
  ];
}

function storeFindings(system: BatchSystem, imageUrl: string): Finding[] {
  if (system.name === 'none' || !isFileUrl(imageUrl)) return [];
  return [
    {
      level: 'warn',
      what: `${imageUrl} is a directory, and the next run may be on another machine`,
      remedy: 'make sure that it is on a file system that all machines share, or use s3: or gs:',
    },
  ];
}
