// SPDX-License-Identifier: Apache-2.0
import { writeFileSync } from 'node:fs';
import { expect } from '@jest/globals';
import { listGenerations } from '../../src/image/generations.js';
import { verifyGeneration } from '../../src/image/verify.js';
import { openStore } from '../../src/store/store.js';
import type { Bed } from './bed.js';
import type { Cloud } from './clouds.js';
import type { Job } from './job.js';
import { checkLines } from './lines.js';
import type { Place } from './place.js';
import { signalPid } from './processes.js';
import { FULL } from './random.js';
import { fixture, PYTHON } from './stage.js';

/** What a run or a checkpoint under a fault has come to. */
export type Outcome = 'well' | 'badly';

export interface RunOptions {
  /** For how many seconds a request is tried again. */
  readonly retryS: number;
}

/** Two connections that stood still, one after the other, and the rest. */
const PATIENCE_MS = 150_000;

/** Enough for shards of two parts each. */
const MEGABYTES = FULL ? 24 : 14;

/**
 * One job that is frozen into a cloud and continued, again and again, each time under another fault. Its lines are numbered
 * and its memory is checked by itself, so at the end it is known that nothing was lost, repeated or changed on the way.
 */
export class NetChain {
  /** What the job has printed up to its last freeze: there it was cut exactly. */
  #printed = '';
  readonly #command: readonly string[];
  #copies = 0;

  constructor(
    private readonly bed: Bed,
    private readonly cloud: Cloud,
    private readonly url: string,
  ) {
    this.#command = [PYTHON, fixture('memory.py'), bed.path('stop'), String(MEGABYTES), '0.1'];
  }

  async begin(): Promise<void> {
    const job = this.#start(await this.bed.place(), this.url, 60);
    await job.ready('scratch');
    await job.progresses(2);
    await this.freeze(job);
  }

  /** A run under whatever fault there is: it continues exactly, or nothing runs and the error helps. */
  async continues({ retryS }: RunOptions): Promise<Job | undefined> {
    const before = await this.#generations();
    const job = this.#start(await this.bed.place({ clockOffsetS: 5_000 }), this.url, retryS);
    const isReady = await job.ready('restored', PATIENCE_MS).then(
      () => true,
      (error: unknown) => {
        if (job.running) throw error;
        return false;
      },
    );
    if (isReady) {
      await job.progresses(2);
      this.#expectClean(job.stderr);
      return job;
    }
    const { code } = await job.ends();
    expect(code).toBe(171);
    expect(job.stdout).toBe('');
    expectReason(job.stderr);
    this.#expectClean(job.stderr);
    expect(await this.#generations()).toEqual(before);
    return undefined;
  }

  /** A checkpoint under whatever fault there is: a new sound image, or the application runs on and the old one restores. */
  async checkpoints(job: Job, options: { readonly restoresOld: boolean }): Promise<Outcome> {
    const before = await this.#generations();
    const newest = before.at(-1) ?? 0;
    const answer = await job.checkpoint([], { timeoutMs: PATIENCE_MS });
    this.#expectClean(answer.stderr);
    this.#expectClean(job.stderr);
    const after = await this.#generations();
    // What this one has committed proves itself: the next run continues out of it.
    if (answer.code !== 0 || FULL) for (const generation of after) await this.#expectSound(generation);
    if (answer.code === 0) {
      expect(await job.ends()).toMatchObject({ code: 137 });
      expect(after.at(-1)).toBe(newest + 1);
      this.#printed += job.stdout;
      checkLines(this.#printed, { complete: false });
      return 'well';
    }
    expect(answer.code).toBe(170);
    expectReason(answer.stderr);
    expect(job.running).toBe(true);
    await job.progresses(3);
    const stopped = this.bed.survivors().filter((one) => /\bcriu\b/.test(one.command) || /^[Tt]$/.test(one.state));
    expect(stopped).toEqual([]);
    expect(after).toContain(newest);
    if (options.restoresOld) await this.#restoresElsewhere(newest);
    return 'badly';
  }

  /** A checkpoint that must succeed, without any fault. */
  async freeze(job: Job): Promise<void> {
    await this.cloud.heal();
    await job.freeze();
    this.#printed += job.stdout;
  }

  /** The job runs to its end, and all that it ever printed is there. */
  async finish(): Promise<void> {
    await this.cloud.heal();
    const job = await this.continues({ retryS: 60 });
    if (job === undefined) throw new Error('it does not continue without a fault');
    writeFileSync(this.bed.path('stop'), '');
    expect(await job.ends()).toMatchObject({ code: 0 });
    this.#printed += job.stdout;
    checkLines(this.#printed);
  }

  #start(place: Place, url: string, retryS: number): Job {
    // A run that fails because the service is away cannot give up its lease: the next one then waits for so long.
    const options = ['--image-url', url, '--cpu-budget', 'low', '--num-shards', '2', '--lease-ttl', '5s'];
    const env = this.cloud.jobEnv(retryS);
    return this.bed.run(place, options, this.#command, { env });
  }

  /** While the job runs on, a copy of its image continues where the job was when that was made. */
  async #restoresElsewhere(generation: number): Promise<void> {
    await this.cloud.heal();
    const copy = `${this.url}-copy-${++this.#copies}`;
    const place = await this.bed.place();
    const env = this.cloud.jobEnv(60);
    const copied = await place.fastfreeze(['cp', '--generation', String(generation), this.url, copy], { env });
    expect(copied).toMatchObject({ code: 0 });
    const old = this.#start(place, copy, 60);
    await old.ready('restored');
    await old.progresses(3);
    signalPid(old.pid, 'SIGTERM');
    await old.ends();
    this.#expectClean(old.stderr);
    checkLines(this.#printed + old.stdout, { complete: false });
  }

  async #expectSound(generation: number): Promise<void> {
    expect((await verifyGeneration(openStore(this.url), generation)).damage).toEqual([]);
  }

  async #generations(): Promise<number[]> {
    return await listGenerations(openStore(this.url));
  }

  /** No word of the SDK's, no stack trace, no complaint of the application's. */
  #expectClean(said: string): void {
    expect(said).not.toMatch(/^\s+at .*[:(]|node:internal|Unhandled|smithy|VersionSupportWarning|VIOLATION|Traceback/m);
  }
}

function expectReason(said: string): void {
  expect(said).toMatch(/^Error: cannot .+: .+/m);
}
