// SPDX-License-Identifier: Apache-2.0
/* Entry of the process that makes the plan of `run`: one line of JSON comes in, one object goes out. */
import { createInterface } from 'node:readline';
import { toErrorRecord } from '../base/errors.js';
import { createLogger } from '../base/log.js';
import { JobHeldError, makePlan } from './plan.js';
import type { PlanAnswer, PlanTask } from './plan-process.js';

const input = createInterface({ input: process.stdin });
// Whoever asked has gone: nobody would use what is found out, nor the lease that is taken.
input.once('close', () => process.exit(1));
input.once('line', (line) => void answer(JSON.parse(line) as PlanTask));

async function answer({ request, ...task }: PlanTask): Promise<void> {
  const log = createLogger({ command: 'run', ...task.log });
  let result: PlanAnswer;
  try {
    const { clocks, ...plan } = await makePlan(request, log);
    const texts =
      clocks === undefined
        ? {}
        : { clocks: { monotonicNs: String(clocks.monotonicNs), boottimeNs: String(clocks.boottimeNs) } };
    result = { type: 'plan', plan, ...texts };
  } catch (error) {
    result = { type: 'failed', error: toErrorRecord(error), held: error instanceof JobHeldError };
  }
  process.stdout.write(JSON.stringify(result), () => process.exit(0));
}
