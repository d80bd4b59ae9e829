// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { FastFreezeError, asFastFreezeError } from '../base/errors.js';
import { valueOf } from '../batch/system.js';
import { type CriuRuntime, findCriu } from '../criu/runtime/find.js';
import { installRuntime } from '../criu/runtime/install-runtime.js';
import { isPrivileged } from '../criu/runtime/privilege.js';
import { runTool, whyFailed } from '../criu/runtime/tool.js';
import { CRIU_BUNDLE, releaseUrl } from './criu-bundle.js';
import type { Inputs } from './inputs.js';
import { tryContainer } from './job-container.js';

const SUDO_TIMEOUT_MS = 20_000;
const USERNS_SWITCH = 'kernel.apparmor_restrict_unprivileged_userns';

/** Make sure of a CRIU that works here. Resolves to what the engine's environment needs to find it. */
export async function prepareRuntime(
  { criu }: Pick<Inputs, 'criu'>,
  env: NodeJS.ProcessEnv,
  say: (message: string) => void,
  signal: AbortSignal,
): Promise<Readonly<Record<string, string>>> {
  await allowUserNamespaces(env, say);
  const privileged = isPrivileged();
  await tryContainer(env, privileged);
  const told = (runtime: CriuRuntime): void =>
    say(`CRIU ${runtime.version}: ${runtime.root ?? runtime.command.join(' ')}`);
  const firstTry = await attempt(() => findCriu({ env, privileged }));
  if (firstTry.value !== undefined) {
    told(firstTry.value);
    return {};
  }
  // Somebody who names a CRIU wants that one.
  if (valueOf(env, 'FF_CRIU') !== undefined) throw firstTry.error;
  const bundle = criu ?? { url: releaseUrl(env), sha256: CRIU_BUNDLE.sha256 };
  const home = join(toolCache(env), 'fastfreeze', `criu-${bundle.sha256.slice(0, 12)}`);
  const kept = await attempt(() => findCriu({ env: { ...env, FF_HOME: home }, privileged }));
  if (kept.value !== undefined) {
    told(kept.value);
    return { FF_HOME: home };
  }
  const common = { home, env, privileged, force: false, skipCheck: false, onStep: say, signal };
  const fetched = await attempt(() =>
    installRuntime({ ...common, bundle: { from: bundle.url, sha256: bundle.sha256 } }),
  );
  if (fetched.value !== undefined) {
    told(fetched.value.runtime);
    return { FF_HOME: home };
  }
  if (criu !== undefined || signal.aborted || !isDebian()) throw fetched.error;
  say(`${fetched.error.message}; making one of Debian packages`);
  told((await installRuntime(common)).runtime);
  return { FF_HOME: home };
}

/**
 * Ubuntu's AppArmor forbids normal users their own user namespaces, which the command's container is made of. GitHub's runners are thrown
 * away after the job, and let everybody change that; a machine of somebody's own is not ours to change.
 */
export async function allowUserNamespaces(
  env: NodeJS.ProcessEnv,
  say: (message: string) => void,
  machine = { uid: process.getuid?.(), userNamespaceSwitch: readSwitch() },
): Promise<void> {
  if (machine.uid === 0 || machine.userNamespaceSwitch !== '1') return;
  const command = ['sysctl', '-w', `${USERNS_SWITCH}=0`];
  if (env['RUNNER_ENVIRONMENT'] === 'github-hosted') {
    const result = await runTool(['sudo', '-n', ...command], { timeoutMs: SUDO_TIMEOUT_MS, env });
    if (result.ok) {
      say(`${USERNS_SWITCH} is 0 from now on, so that the command can have a container of its own`);
      return;
    }
    throw forbidden(`and sudo cannot change it (${whyFailed(result)})`, command);
  }
  throw forbidden('and this machine is not ours to change', command);
}

function forbidden(reason: string, command: readonly string[]): FastFreezeError {
  return new FastFreezeError({
    code: 'host',
    op: 'make a container for the command',
    reason: `${USERNS_SWITCH} is 1, ${reason}`,
    hint: `sudo ${command.join(' ')}, before this step`,
  });
}

function readSwitch(): string | undefined {
  try {
    return readFileSync(`/proc/sys/${USERNS_SWITCH.replaceAll('.', '/')}`, 'utf8').trim();
  } catch {
    return undefined; // This kernel has no such switch.
  }
}

function toolCache(env: NodeJS.ProcessEnv): string {
  const folder = valueOf(env, 'RUNNER_TOOL_CACHE') ?? valueOf(env, 'RUNNER_TEMP');
  if (folder !== undefined) return folder;
  throw new FastFreezeError({
    code: 'host',
    op: 'keep a CRIU for the runner',
    reason: 'neither RUNNER_TOOL_CACHE nor RUNNER_TEMP is set',
    hint: 'name one that is installed with FF_CRIU',
  });
}

function isDebian(): boolean {
  try {
    return /^ID=debian$/m.test(readFileSync('/etc/os-release', 'utf8'));
  } catch {
    return false;
  }
}

type Attempt<T> = { readonly value: T } | { readonly value?: undefined; readonly error: FastFreezeError };

async function attempt<T>(step: () => Promise<T>): Promise<Attempt<T>> {
  try {
    return { value: await step() };
  } catch (error) {
    return { error: asFastFreezeError(error, 'find CRIU') };
  }
}
