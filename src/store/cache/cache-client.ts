// SPDX-License-Identifier: Apache-2.0
import { setImmediate as nextTurn } from 'node:timers/promises';
import { rename } from 'node:fs/promises';
import { FastFreezeError } from '../../base/errors.js';
import { storeError } from '../store-error.js';
import type { Adopt } from './agent.js';
import type { AgentAnswer, AgentRequest, AgentResult } from './agent-protocol.js';
import type { AgentPool } from './agent-pool.js';
import type { Failure } from './said.js';

export interface CacheClientOptions {
  readonly url: string;
  readonly pool: AgentPool;
  readonly adopt: Adopt;
  readonly retryMs: number;
  /** Told in one line what is waited for. */
  readonly onWait?: (message: string) => void;
}

/** Entries by key, through GitHub's client in a process of its own. What passes is tried again. */
export class CacheClient {
  private asked: { key: string; resolve: (key: string | undefined) => void; reject: (error: unknown) => void }[] = [];

  constructor(private readonly options: CacheClientOptions) {}

  /** The newest key that begins so; undefined when there is none. */
  lookup(prefix: string): Promise<string | undefined> {
    return new Promise((resolve, reject) => {
      this.asked.push({ key: prefix, resolve, reject });
      // Those of one moment go together: an agent for each would cost more than they do.
      if (this.asked.length === 1) void nextTurn().then(() => this.flush());
    });
  }

  /** `taken`: somebody has the key, or has begun to write it. Moves the file away. */
  async save(key: string, path: string, timeoutMs: number, signal?: AbortSignal): Promise<'saved' | 'taken'> {
    const { pool, adopt } = this.options;
    return await pool.use(
      adopt,
      async (agent) => {
        await rename(path, agent.objectPath);
        const [result] = (await agent.ask({ op: 'save', key }, timeoutMs)).results;
        if (result !== undefined && 'failure' in result && result.failure.kind === 'taken') return 'taken';
        found('write', key, result);
        return 'saved';
      },
      signal,
    );
  }

  /** Bring an entry's object to a path. An entry that is not there: false. */
  async fetch(key: string, path: string): Promise<boolean> {
    const { pool, adopt } = this.options;
    return await this.patiently(key, () =>
      pool.use(adopt, async (agent) => {
        const [result] = (await agent.ask({ op: 'restore', key }, TRANSFER_TIMEOUT_MS)).results;
        // What the service takes the key for the beginning of is another object.
        if (found('read', key, result) !== key) return false;
        await rename(agent.objectPath, path).catch((error: unknown) => {
          throw storeError(error, 'unpack', key);
        });
        return true;
      }),
    );
  }

  /** Again and again while it fails in a way that passes, as long as the user lets us. */
  async patiently<T>(subject: string, attempt: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const startMs = performance.now();
    for (let tries = 1; ; tries++) {
      try {
        return await attempt();
      } catch (error) {
        if (!(error instanceof FastFreezeError) || !error.passing) throw error;
        const { waitMs = 0 } = error instanceof CacheError ? error : {};
        const delayMs = Math.max(waitMs, Math.random() * Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** tries));
        const leftMs = startMs + this.options.retryMs - performance.now();
        if (isOver(signal) || delayMs > leftMs) throw givenUp(error, tries);
        if (waitMs > 0 || tries === 3) {
          this.options.onWait?.(`${subject}: ${error.reason}; trying again for up to ${Math.ceil(leftMs / 1000)} s`);
        }
        await sleepUnless(delayMs, signal);
        if (isOver(signal)) throw givenUp(error, tries);
      }
    }
  }

  private flush(): void {
    const asked = this.asked;
    this.asked = [];
    for (let at = 0; at < asked.length; at += BATCH) void this.lookupTogether(asked.slice(at, at + BATCH));
  }

  private async lookupTogether(asked: typeof this.asked): Promise<void> {
    const { pool, adopt, url } = this.options;
    const request: AgentRequest = { op: 'lookup', prefixes: asked.map(({ key }) => key) };
    try {
      const keys = await this.patiently(url, async () => {
        const answer: AgentAnswer = await pool.use(adopt, (agent) => agent.ask(request, LOOKUP_TIMEOUT_MS));
        return asked.map(({ key }, i) => {
          const matched = found('look up', key, answer.results[i]);
          if (matched !== undefined && !matched.startsWith(key)) throw otherSpelling(key, matched);
          return matched;
        });
      });
      asked.forEach(({ resolve }, i) => resolve(keys[i]));
    } catch (error) {
      for (const { reject } of asked) reject(error);
    }
  }
}

/** Lookups that one agent does one after the other. */
const BATCH = 25;
/** The client tries a request five times within half a minute. */
const LOOKUP_TIMEOUT_MS = 180_000;
/** Of one object. */
export const TRANSFER_TIMEOUT_MS = 900_000;
const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 10_000;

/** A failure of the service's, which may say how long it wants to be left alone. */
class CacheError extends FastFreezeError {
  readonly waitMs: number | undefined;

  constructor(op: string, key: string, failure: Failure) {
    super({
      code: failure.kind === 'taken' ? 'conflict' : 'store',
      op,
      subject: `${key} in GitHub's cache`,
      reason: REASONS[failure.kind](failure.reason),
      hint: HINTS[failure.kind],
      passing: failure.kind === 'passing',
    });
    this.waitMs = failure.waitMs;
  }
}

const REASONS: Readonly<Record<Failure['kind'], (said: string) => string>> = {
  taken: (said) => `the key is taken: ${said}`,
  full: (said) => `the repository's cache is full: ${said}`,
  denied: (said) => `this run may not do so: ${said}`,
  passing: (said) => said,
  other: (said) => said,
};

const HINTS: Readonly<Record<Failure['kind'], string>> = {
  taken: 'stop the other run of this job, or give this one another name',
  full: "free room with 'gh cache delete', raise the limit in the repository's settings, or use --image-url s3://...",
  denied: 'use --image-url s3://... or gs://..., or run the workflow on an event whose token may write the cache',
  passing: 'see https://www.githubstatus.com; the same command tries again',
  other: 'see the reason; --image-url s3://... or gs://... does without the cache',
};

/** Undefined for what is not there. */
function found(op: string, key: string, result: AgentResult | undefined): string | undefined {
  if (result === undefined) throw new CacheError(op, key, { kind: 'other', reason: 'the client did not answer' });
  if ('failure' in result) throw new CacheError(op, key, result.failure);
  return result.key ?? undefined;
}

function otherSpelling(key: string, matched: string): FastFreezeError {
  return new FastFreezeError({
    code: 'conflict',
    op: 'look up',
    subject: key,
    reason: `the cache takes ${matched} for it, which differs in upper and lower case only`,
    hint: 'give this job another name',
  });
}

function givenUp(error: FastFreezeError, tries: number): FastFreezeError {
  const { code, op, subject, reason, hint } = error;
  return new FastFreezeError({
    code,
    op,
    ...(subject === undefined ? {} : { subject }),
    reason: tries === 1 ? reason : `${reason} (${tries} tries)`,
    ...(hint === undefined ? {} : { hint }),
    cause: error,
  });
}

/** A call, since the compiler takes a flag that was false for false for ever. */
function isOver(signal?: AbortSignal): boolean {
  return signal?.aborted === true;
}

function sleepUnless(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(over, ms);
    signal?.addEventListener('abort', over, { once: true });
    function over(): void {
      clearTimeout(timer);
      signal?.removeEventListener('abort', over);
      resolve();
    }
  });
}
