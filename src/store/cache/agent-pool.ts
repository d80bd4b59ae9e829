// SPDX-License-Identifier: Apache-2.0
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { FastFreezeError } from '../../base/errors.js';
import { storeError } from '../store-error.js';
import { type Adopt, CacheAgent } from './agent.js';
import { leftForLater } from './left-for-later.js';
import type { StagingDirectory } from './staging-directory.js';

/** Each has an SDK in memory, and while it restores an object all of that as well. */
const MAX_AGENTS = 4;
/** Idle ones go: they must not stay beside an application for hours. */
const IDLE_MS = 2_000;

/** The agents of this process, and the directory in which objects are on their way; both go when they are not needed. */
export class AgentPool {
  private readonly idle: CacheAgent[] = [];
  private readonly agents = new Map<CacheAgent, string>();
  private readonly waiting: ((agent: CacheAgent | undefined) => void)[] = [];
  private starting = 0;
  private users = 0;
  private nextName = 1;
  private root: Promise<StagingDirectory> | undefined;
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly base: string) {}

  /** Have an agent for a while. `signal` ends it, with whatever it does. */
  async use<T>(adopt: Adopt, work: (agent: CacheAgent) => Promise<T>, signal?: AbortSignal): Promise<T> {
    return await this.stage(async () => {
      const agent = await this.take(adopt, signal);
      const end = (): void => agent.end();
      signal?.addEventListener('abort', end, { once: true });
      try {
        if (signal?.aborted === true) throw calledOff(this.base);
        return await work(agent);
      } finally {
        signal?.removeEventListener('abort', end);
        await this.give(agent);
      }
    });
  }

  /** A path for an object that is being put together. Whoever asks removes it, and calls `leave` then. */
  async enter(): Promise<string> {
    this.users++;
    clearTimeout(this.timer);
    try {
      return join(await this.directory(), `object-${this.nextName++}`);
    } catch (error) {
      this.leave();
      throw error;
    }
  }

  leave(): void {
    if (--this.users > 0) return;
    this.timer = setTimeout(() => void this.clear(), IDLE_MS);
    this.timer.unref();
  }

  private async stage<T>(work: () => Promise<T>): Promise<T> {
    this.users++;
    clearTimeout(this.timer);
    try {
      return await work();
    } finally {
      this.leave();
    }
  }

  private async take(adopt: Adopt, signal?: AbortSignal): Promise<CacheAgent> {
    for (;;) {
      if (signal?.aborted === true) throw calledOff(this.base);
      const free = this.idle.pop();
      if (free !== undefined && !free.isOver) return free;
      if (free !== undefined) await this.forget(free);
      else if (this.agents.size + this.starting < MAX_AGENTS) return await this.start(adopt);
      else {
        const given = await this.nextGiven(signal);
        if (given !== undefined) return given;
      }
    }
  }

  /** Undefined: look again whether one is free, or can be started. */
  private async nextGiven(signal: AbortSignal | undefined): Promise<CacheAgent | undefined> {
    return await new Promise<CacheAgent | undefined>((resolve) => {
      const stop = (): void => {
        const at = this.waiting.indexOf(waiter);
        if (at >= 0) this.waiting.splice(at, 1);
        resolve(undefined);
      };
      const waiter = (agent: CacheAgent | undefined): void => {
        signal?.removeEventListener('abort', stop);
        resolve(agent);
      };
      signal?.addEventListener('abort', stop, { once: true });
      this.waiting.push(waiter);
    });
  }

  private async start(adopt: Adopt): Promise<CacheAgent> {
    this.starting++;
    try {
      const directory = await mkdtemp(join(await this.directory(), 'agent-'));
      const agent = new CacheAgent(directory, adopt);
      this.agents.set(agent, directory);
      return agent;
    } catch (error) {
      // Whoever waits for this one would wait for ever.
      this.waiting.shift()?.(undefined);
      throw storeError(error, 'make room for objects in', this.base);
    } finally {
      this.starting--;
    }
  }

  private async give(agent: CacheAgent): Promise<void> {
    if (agent.isOver) await this.forget(agent);
    else await rm(agent.objectPath, { force: true }).catch(leftForLater);
    const next = this.waiting.shift();
    if (next !== undefined) next(agent.isOver ? undefined : agent);
    else if (!agent.isOver) this.idle.push(agent);
  }

  private async forget(agent: CacheAgent): Promise<void> {
    const directory = this.agents.get(agent);
    this.agents.delete(agent);
    if (directory !== undefined) await rm(directory, { recursive: true, force: true }).catch(leftForLater);
  }

  /** Made anew after it was cleared. */
  private async directory(): Promise<string> {
    this.root ??= makeRoom(this.base).catch((error: unknown) => {
      this.root = undefined;
      throw storeError(error, 'make room for objects in', this.base);
    });
    return (await this.root).path;
  }

  private async clear(): Promise<void> {
    if (this.users > 0) return;
    const { root } = this;
    this.root = undefined;
    this.idle.length = 0;
    for (const agent of this.agents.keys()) agent.end();
    this.agents.clear();
    const directory = await root?.catch(() => undefined);
    await directory?.remove();
  }
}

function calledOff(subject: string): FastFreezeError {
  return new FastFreezeError({ code: 'aborted', op: 'use the cache through', subject, reason: 'asked to stop' });
}

const pools = new Map<string, AgentPool>();

/** One for all stores of the process. */
export function sharedAgentPool(base: string): AgentPool {
  const known = pools.get(base);
  if (known !== undefined) return known;
  const pool = new AgentPool(base);
  pools.set(base, pool);
  return pool;
}

async function makeRoom(base: string): Promise<StagingDirectory> {
  // Who only looks at a store that is no cache needs no native library.
  const { StagingDirectory: Directory } = await import('./staging-directory.js');
  return await Directory.make(base);
}
