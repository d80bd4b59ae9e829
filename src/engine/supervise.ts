// SPDX-License-Identifier: Apache-2.0
import { fileURLToPath } from 'node:url';
import { FastFreezeError, asFastFreezeError, fromErrorRecord } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { type Launched, containerFailure, launch } from '../container/launch.js';
import { removeUncommitted } from '../image/prune.js';
import { nodeCommand } from '../linux/node-command.js';
import { openStore } from '../store/store.js';
import type { SupervisorConfig } from './config.js';
import { readStatus, requestCheckpoint } from './control-client.js';
import { EXIT } from './exit-codes.js';
import { converse } from './run/conversation.js';
import type { RunOutcome } from './run/options.js';
import type { Plan } from './run/plan-run.js';
import { type CaughtSignals, ENDING, type ForwardedSignal, forwardSignal } from './run/signals.js';
import type { Voice } from './run/voice.js';
import type { JobDirectory } from './state.js';

export async function supervise(
  config: SupervisorConfig,
  plan: Plan,
  job: JobDirectory,
  signals: CaughtSignals,
  { log, metrics, hooks }: Voice,
): Promise<RunOutcome> {
  let isReady = false;
  const early: ForwardedSignal[] = [];
  const launched = launch({
    command: [...nodeCommand(), ...SUPERVISOR_FLAGS, fileURLToPath(new URL('./supervisor-main.js', import.meta.url))],
    container: config.container,
    privileged: config.criu.privileged,
    ...(plan.ownIds === undefined ? {} : { idMapping: plan.ownIds.mapping }),
    clocks: plan.clocks,
    lockFd: job.lockFd,
  });
  const conversation = converse(
    launched,
    () => withLeaseAge(config, plan),
    metrics,
    hooks.onEvent,
    () => {
      isReady = true;
      hooks.onReady?.(plan.generation ?? null);
      hooks.pilot?.ready({
        checkpoint: (request) => requestCheckpoint(config.jobName, request, () => undefined),
        status: () => readStatus(config.jobName),
      });
      for (const name of early.splice(0)) deliver(name);
    },
  );
  const deliver = (name: ForwardedSignal): void => {
    if (hooks.pilot?.signal(name) === true) conversation.send({ type: 'told-to-leave' });
    else forwardSignal(name, conversation.send, config);
  };
  signals.forward((name) => {
    if (isReady || hooks.pilot === undefined || !ENDING.includes(name)) {
      deliver(name);
      return;
    }
    // Before the application is ready, a signal that ends the run has nothing to wait for. But it may just have become so.
    forwardSignal(name, conversation.send, config, true);
    early.push(name);
  });
  try {
    const exitCode = await launched.exited;
    const { last, heard, prefix } = conversation.state();
    if (last?.type === 'ended') {
      const killed = last.killedBy === undefined ? {} : { killedBy: last.killedBy };
      return { exitCode: last.exitCode, reason: last.reason, ...killed };
    }
    if (last?.type === 'failed') return { exitCode: last.exitCode, error: fromErrorRecord(last.error) };
    if (!heard) return { exitCode: EXIT.failed, error: containerFailure(config.criu.privileged) };
    if (prefix !== undefined) {
      await hungUp(launched.channel);
      await removeLeftovers(prefix, log);
    }
    return { exitCode: EXIT.failed, error: supervisorLost(exitCode) };
  } finally {
    signals.forward(undefined);
    launched.channel.destroy();
  }
}

/** Flags that keep the supervisor's memory small; its heap holds tables, never image bytes. */
const SUPERVISOR_FLAGS = ['--max-semi-space-size=1', '--v8-pool-size=1', '--expose-gc', '--no-warnings'];

/** The supervisor's clock is its container's: it is told how old the lease is, not since when. */
function withLeaseAge(config: SupervisorConfig, plan: Plan): SupervisorConfig {
  if (config.lease === undefined) return config;
  return { ...config, lease: { ...config.lease, ageMs: performance.now() - plan.leaseWrittenAtMs } };
}

/** Only `unshare` may have died yet: until the supervisor is gone as well, it can still write. */
async function hungUp(channel: Launched['channel']): Promise<void> {
  if (channel.closed) return;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, HANG_UP_TIMEOUT_MS);
    channel.once('close', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

const HANG_UP_TIMEOUT_MS = 5_000;

async function removeLeftovers(prefix: { prefix: string; url: string }, log: Logger): Promise<void> {
  try {
    await removeUncommitted(openStore(prefix.url, { onWait: (message) => log.warn(message) }), prefix.prefix);
  } catch (error) {
    log.warn(`objects of the interrupted checkpoint stay: ${asFastFreezeError(error, 'remove them').message}`);
  }
}

function supervisorLost(exitCode: number): FastFreezeError {
  return new FastFreezeError({
    code: 'app',
    op: 'go on with the application',
    reason: `its supervisor was killed from outside (exit code ${exitCode}), and the application ended with it`,
    hint: 'the same command continues from the last checkpoint',
  });
}
