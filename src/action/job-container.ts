// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { warning } from '@actions/core';
import { FastFreezeError } from '../base/errors.js';
import { containerFailure } from '../container/launch.js';
import { containerCommand } from '../criu/runtime/doctor/namespaces.js';
import { runTool, whyFailed } from '../criu/runtime/tool.js';

const TRY_TIMEOUT_MS = 20_000;
const REMEDY = 'give the job container the right to: container: { image: ..., options: --privileged }';

/**
 * Tries what each job begins with, a container of its own: better known before a CRIU is fetched. Throws where that fails; where a
 * seccomp filter will make each checkpoint fail it says so.
 */
export async function tryContainer(env: NodeJS.ProcessEnv, privileged: boolean): Promise<void> {
  const tried = await runTool([...containerCommand(privileged), 'true'], { timeoutMs: TRY_TIMEOUT_MS, env });
  if (!tried.ok && !tried.missing) {
    if (!isJobContainer(env)) throw containerFailure(privileged);
    throw new FastFreezeError({
      code: 'host',
      op: 'make a container for the command',
      reason: `this job container may not (${whyFailed(tried)})`,
      hint: REMEDY,
    });
  }
  if (!isFiltered()) return;
  const remedy = isJobContainer(env)
    ? REMEDY
    : 'run the runner without one (Docker: --security-opt seccomp=unconfined)';
  warning(
    `A seccomp filter is in force here, which CRIU may not suspend: the command runs, and cannot be frozen. Try: ${remedy}`,
    {
      title: 'fastfreeze: no checkpoint can be saved',
    },
  );
}

/** What the runner makes for a job with `container:`. */
function isJobContainer(env: NodeJS.ProcessEnv): boolean {
  return env['HOME'] === '/github/home';
}

function isFiltered(): boolean {
  return /^Seccomp:\s*2$/m.test(readFileSync('/proc/self/status', 'utf8'));
}
