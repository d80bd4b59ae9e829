// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';

/** Variables of FastFreeze that name a program to reach a bucket with, and what stands for them here. */
const COMMANDS: readonly { readonly scheme: string; readonly variable: string; readonly instead: string }[] = [
  {
    scheme: 's3',
    variable: 'S3_CMD',
    instead: 'AWS_PROFILE and AWS_ENDPOINT_URL_S3 choose account and service (README, "Images in S3")',
  },
  {
    scheme: 'gs',
    variable: 'GS_CMD',
    instead: 'GOOGLE_APPLICATION_CREDENTIALS and STORAGE_EMULATOR_HOST choose account and service',
  },
];

/** The names of those that are set. */
export function foreignCommands(env: NodeJS.ProcessEnv): string[] {
  return COMMANDS.map(({ variable }) => variable).filter((name) => (env[name] ?? '') !== '');
}

/**
 * A program of the user's for the bucket of this URL would not be asked: its account, endpoint or proxy would be passed over
 * in silence. Throws `usage`.
 */
export function refuseForeignCommand(url: string, env: NodeJS.ProcessEnv): void {
  const set = foreignCommands(env);
  const found = COMMANDS.find(
    ({ scheme, variable }) => url.toLowerCase().startsWith(`${scheme}:`) && set.includes(variable),
  );
  if (found === undefined) return;
  throw new FastFreezeError({
    code: 'usage',
    op: 'use',
    subject: `${found.variable}=${env[found.variable] ?? ''}`,
    reason: `no command is run to reach ${found.scheme}: URLs; the service is talked to directly`,
    hint: `unset ${found.variable}; ${found.instead}`,
  });
}
