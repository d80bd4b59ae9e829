// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type ErrorRecord, FastFreezeError, fromErrorRecord } from '../base/errors.js';
import type { LoggerOptions } from '../base/log.js';
import { nodeCommand } from '../linux/node-command.js';
import { JobHeldError, type Plan, type PlanRequest } from './plan.js';

export interface PlanTask {
  readonly request: PlanRequest;
  readonly log: Pick<LoggerOptions, 'verbosity' | 'format' | 'startedAtMs'>;
}

/** What the process writes to its standard output; clocks as text, since JSON has no integers of their size. */
export type PlanAnswer =
  | { readonly type: 'plan'; readonly plan: Omit<Plan, 'clocks'>; readonly clocks?: ClockTexts }
  | { readonly type: 'failed'; readonly error: ErrorRecord; readonly held: boolean };

export interface ClockTexts {
  readonly monotonicNs: string;
  readonly boottimeNs: string;
}

/**
 * `makePlan` in a process that ends with it. The launcher stays as long as the job: a cloud's SDK, once loaded, would
 * keep tens of megabytes in it for nothing. Called off, the process is ended.
 */
export async function makePlanElsewhere(task: PlanTask, signal: AbortSignal): Promise<Plan> {
  const entry = fileURLToPath(new URL('./plan-main.js', import.meta.url));
  const [node, ...flags] = nodeCommand();
  const child = spawn(node, [...flags, '--no-warnings', entry], {
    stdio: ['pipe', 'pipe', 'inherit'],
    // Away from the terminal's process group: what a signal means is decided here.
    detached: true,
  });
  const end = (): void => void child.kill('SIGKILL');
  signal.addEventListener('abort', end);
  try {
    // Our end of its input stays open: its end tells it that we have gone.
    child.stdin.on('error', () => undefined);
    child.stdin.write(`${JSON.stringify(task)}\n`);
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (piece: string) => (text += piece));
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    if (code !== 0) throw endedEarly(code);
    return readAnswer(JSON.parse(text) as PlanAnswer);
  } finally {
    signal.removeEventListener('abort', end);
    child.stdin.destroy();
  }
}

function readAnswer(answer: PlanAnswer): Plan {
  if (answer.type === 'failed') throw answer.held ? new JobHeldError(answer.error) : fromErrorRecord(answer.error);
  const { plan, clocks } = answer;
  if (clocks === undefined) return plan;
  return { ...plan, clocks: { monotonicNs: BigInt(clocks.monotonicNs), boottimeNs: BigInt(clocks.boottimeNs) } };
}

function endedEarly(code: number | null): FastFreezeError {
  return new FastFreezeError({
    code: 'internal',
    op: 'fetch the image manifest',
    reason: `the process that does it ended early (${code === null ? 'killed' : `exit code ${code}`})`,
    hint: 'run the same command again',
  });
}
