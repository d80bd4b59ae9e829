// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, asFastFreezeError, toErrorRecord } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { CheckpointResult, JobStatus } from '../engine/config.js';
import { readStatus } from '../engine/control-client.js';
import { EXIT } from '../engine/exit-codes.js';
import {
  type CheckpointChild,
  type CheckpointEnd,
  type Environment,
  NOTIFY_FD,
  type Ready,
  type RunChild,
  type RunEnd,
  startCheckpoint,
  startRun,
} from './child.js';
import { checkpointWords, runWords } from './command-line.js';
import type { CheckpointRequest, RunRequest } from './request.js';

/** `GET /status`; docs/ff-daemon.md has the fields. */
export interface DaemonStatus {
  readonly state: 'standby' | 'starting' | 'running' | 'checkpointed';
  /** A signal has come: no run is started any more. */
  readonly ending: boolean;
  readonly pid: number;
  readonly startedAt: string;
  readonly job: JobStatus | null;
  readonly lastRun: (RunEnd & { readonly at: string }) | null;
}

export type RunResult = { readonly running: true; readonly name: string; readonly pid: number } & Ready;
export type RunFailure = { readonly running: false } & RunEnd;
export interface CheckpointFailure {
  readonly exitCode: number;
  readonly error: { readonly message: string; readonly hint?: string };
}

export interface ControllerOptions {
  readonly log: Logger;
  readonly env: Environment;
  /** Only for `run`: a checkpoint has the passphrase of its job, or one that it is given. */
  readonly runEnv: Environment;
  readonly onState: (state: 'standby' | 'running' | 'checkpointed') => void;
  readonly onRunEnd: (end: RunEnd) => void;
}

interface Job {
  readonly name: string;
  readonly child: RunChild;
  /** Resolves when all that follows its end is done. */
  readonly over: Promise<void>;
  ready: boolean;
}

/** One job at a time: starts it, has it frozen, knows what became of it. */
export class Controller {
  #job: Job | undefined;
  #checkpoint: CheckpointChild | undefined;
  #lastRun: DaemonStatus['lastRun'] = null;
  #ending = false;
  readonly #startedAt = new Date().toISOString();

  constructor(private readonly options: ControllerOptions) {}

  /** Resolves once the application runs, or has not come to that. Throws `conflict` when there is a job already. */
  async run(request: RunRequest): Promise<RunResult | RunFailure> {
    const op = 'start a run';
    if (this.#ending) throw conflict(op, 'the daemon is ending');
    if (this.#job !== undefined) {
      const { ready, name } = this.#job;
      throw conflict(op, `job ${name} ${ready ? 'runs' : 'is being started'}`, 'POST /checkpoint freezes it');
    }
    const { log, runEnv } = this.options;
    log.info(`Starting job ${request.name} of ${request.imageUrl}`);
    const child = startRun(runWords(request, NOTIFY_FD), { ...runEnv, ...request.envs });
    const end = child.ended.catch(neverStarted);
    const job: Job = { name: request.name, child, ready: false, over: end.then((how) => this.#ended(how)) };
    this.#job = job;
    const ready = await Promise.race([child.ready, end.then(() => undefined)]);
    if (ready === undefined) return { running: false, ...(await end) };
    // It may have run and ended between two of our steps.
    if (this.#job === job) {
      job.ready = true;
      this.options.onState('running');
    }
    log.info(`Job ${job.name} runs, ${origin(ready)}`);
    return { running: true, name: job.name, pid: child.pid ?? 0, ...ready };
  }

  /** Throws `conflict` when there is nothing to freeze. Nobody who hangs up calls it off. */
  async checkpoint(request: CheckpointRequest): Promise<CheckpointResult | CheckpointFailure> {
    const op = 'checkpoint';
    const job = this.#job;
    if (job === undefined) throw conflict(op, 'no job runs', 'POST /run starts one');
    if (!job.ready) throw conflict(op, `job ${job.name} is still being started`, 'wait for the answer to POST /run');
    if (this.#checkpoint !== undefined) throw conflict(op, 'another checkpoint is under way', 'wait for its answer');
    const { log, env } = this.options;
    log.info(`Checkpointing job ${job.name}`);
    const words = checkpointWords(request, job.name);
    const child = startCheckpoint(words, { ...env, ...request.envs }, (line) => log.info(line));
    this.#checkpoint = child;
    try {
      const end: CheckpointEnd = await child.ended.catch((error: unknown) => ({
        exitCode: EXIT.failed,
        failure: { message: cannotStart(error).message },
      }));
      const { result } = end;
      if (result === undefined) return failed(end);
      // The next request may be a run of the same job: it must not find this one.
      if (!result.leftRunning) await within(job.over, LEAVING_MS);
      return result;
    } finally {
      this.#checkpoint = undefined;
    }
  }

  async status(): Promise<DaemonStatus> {
    const job = this.#job;
    const last = this.#lastRun;
    const rest = last?.reason === 'checkpointed' ? 'checkpointed' : 'standby';
    return {
      state: job === undefined ? rest : job.ready ? 'running' : 'starting',
      ending: this.#ending,
      pid: process.pid,
      startedAt: this.#startedAt,
      job: job?.ready === true ? await statusOf(job.name) : null,
      lastRun: last,
    };
  }

  /** To the job, as to `fastfreeze run`. False when there is none. */
  signal(name: NodeJS.Signals): boolean {
    this.#job?.child.signal(name);
    return this.#job !== undefined;
  }

  refuseRuns(): void {
    this.#ending = true;
  }

  /** No child of ours is left after this: a checkpoint whose job has ended has nothing to wait for. */
  async close(): Promise<void> {
    const child = this.#checkpoint;
    if (child === undefined) return;
    const ended = child.ended.catch(() => undefined);
    await within(ended, LEAVING_MS);
    child.kill();
    await within(ended, LEAVING_MS);
  }

  #ended(end: RunEnd): void {
    this.#job = undefined;
    this.#lastRun = { ...end, at: new Date().toISOString() };
    const reason = end.error?.message ?? end.reason;
    this.options.log.info(`The run has ended with exit code ${end.exitCode}${reason === null ? '' : `: ${reason}`}`);
    this.options.onState(end.reason === 'checkpointed' ? 'checkpointed' : 'standby');
    this.options.onRunEnd(end);
  }
}

const LEAVING_MS = 20_000;

async function statusOf(name: string): Promise<JobStatus | null> {
  try {
    return await readStatus(name);
  } catch {
    // It is ending at this moment.
    return null;
  }
}

function neverStarted(error: unknown): RunEnd {
  return { exitCode: EXIT.failed, reason: null, error: toErrorRecord(cannotStart(error)) };
}

function cannotStart(error: unknown): FastFreezeError {
  const reason = asFastFreezeError(error, 'start').reason;
  return new FastFreezeError({ code: 'host', op: 'start fastfreeze', reason, cause: error });
}

function failed({ exitCode, failure }: CheckpointEnd): CheckpointFailure {
  return { exitCode, error: failure ?? { message: `fastfreeze checkpoint ended with exit code ${exitCode}` } };
}

function conflict(op: string, reason: string, hint = 'GET /status shows what runs'): FastFreezeError {
  return new FastFreezeError({ code: 'conflict', op, reason, hint });
}

function origin({ restoredGeneration }: Ready): string {
  return restoredGeneration === null ? 'started from scratch' : `restored from generation ${restoredGeneration}`;
}

async function within(step: Promise<unknown>, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  await Promise.race([step, new Promise((resolve) => (timer = setTimeout(resolve, timeoutMs)))]);
  clearTimeout(timer);
}
