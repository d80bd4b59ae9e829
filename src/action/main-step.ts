// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { endGroup, info, startGroup, warning } from '@actions/core';
import { valueOf } from '../batch/system.js';
import { handSummary, handToRunner, nameCommandFiles } from './command-files.js';
import { type EngineHandle, startEngine } from './engine-process.js';
import type { EngineTask } from './engine-task.js';
import { engineEnvironment } from './environment.js';
import { tellFailure } from './failure.js';
import { type Handover, saveHandover, saveSettled, saveShown } from './handover.js';
import { readInputs, workspaceOf } from './inputs.js';
import { type Interruption, catchInterruption } from './interruption.js';
import { type Plan, makePlan } from './plan.js';
import { tellPreserved } from './preserved.js';
import { announce, conclude, failureTeller, writeStory } from './report.js';
import { prepareRuntime } from './runtime.js';
import { outputWriter } from './shown.js';
import { type Watched, watchEngine } from './watch.js';

/** The step itself: looks at everything, starts the engine, shows what it writes, and ends as it ended. Resolves to the exit code. */
export async function runMain(): Promise<number> {
  const startedAtMs = Date.now();
  const interruption = catchInterruption();
  try {
    const plan = makePlan(readInputs(), process.env, startedAtMs);
    const { engine, handover } = await start(plan, interruption);
    const output = outputWriter();
    const tellFailures = failureTeller(output.endLine);
    const watched = await watchEngine(engine, {
      signal: interruption.patience,
      show: output.write,
      onEvents: async (events) => {
        await tellFailures(events);
        await writeStory(plan, events, undefined);
      },
    });
    await output.endLine();
    return await finish(plan, handover, watched, interruption.came());
  } catch (error) {
    return tellFailure(error);
  }
}

async function start(plan: Plan, interruption: Interruption): Promise<{ engine: EngineHandle; handover: Handover }> {
  const { inputs, imageUrl, jobId } = plan;
  const env = process.env;
  startGroup('fastfreeze: set-up');
  try {
    announce(plan);
    tellPreserved(inputs, env);
    const runtime = await prepareRuntime(inputs, env, info, interruption.begun).catch((error: unknown) => {
      interruption.refuse();
      throw error;
    });
    interruption.refuse();
    const { script, command, variables } = nameCommandFiles(inputs, imageUrl);
    const task: EngineTask = {
      ...plan.task,
      directory: stepDirectory(env),
      command,
      script,
      options: [...plan.options, '--preserve-path', script.directory],
    };
    const engine = await startEngine(task, {
      cwd: resolve(workspaceOf(env), inputs.workingDirectory),
      env: engineEnvironment(env, { ...variables, ...runtime }),
    });
    const handover = { engine, imageUrl, jobId, jobEndsAtMs: plan.endsAtMs };
    saveHandover(handover);
    interruption.leaveBy(engine);
    return { engine, handover };
  } finally {
    endGroup();
  }
}

async function finish(
  plan: Plan,
  handover: Handover,
  { events, result, shownBytes, hiddenBytes }: Watched,
  interrupted: boolean,
): Promise<number> {
  // What of the output is left is shown by the post step as well.
  if (result === undefined || hiddenBytes > 0) {
    saveShown(shownBytes);
    warning(
      'The job was cancelled, or the step timed out. The command is being frozen; the post step waits for its image.',
      {
        title: 'fastfreeze: interrupted',
      },
    );
    return 1;
  }
  const { words = {} } = result;
  handToRunner(words, process.env, (message) => warning(message, { title: 'fastfreeze' }));
  rmSync(handover.engine.directory, { recursive: true, force: true });
  saveSettled();
  const exitCode = await conclude(plan, events, result, interrupted);
  handSummary(words, process.env);
  return exitCode;
}

function stepDirectory(env: NodeJS.ProcessEnv): string {
  const parent = valueOf(env, 'RUNNER_TEMP') ?? '/tmp';
  mkdirSync(parent, { recursive: true });
  return mkdtempSync(join(parent, 'fastfreeze-step-'));
}
