// SPDX-License-Identifier: Apache-2.0
import { info, notice, warning } from '@actions/core';
import { valueOf } from '../batch/system.js';

/** By scheme of the image's URL: variables by which its store is logged in to. */
const CREDENTIALS: Readonly<Record<string, readonly string[]>> = {
  's3:': ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN'],
  'gs:': ['GOOGLE_APPLICATION_CREDENTIALS', 'GOOGLE_GHA_CREDS_PATH', 'CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE'],
};

/** What is there for the images' sake, and not for the command: in an image it would be in the place that it opens, and old. */
export function credentialNames(imageUrl: string): readonly string[] {
  return CREDENTIALS[/^[a-z0-9]+:/.exec(imageUrl)?.[0] ?? ''] ?? [];
}

/** Says which of them the command does not get, and that those which end before the job does will be missed at its checkpoints. */
export function tellCredentials(
  { imageUrl, envScrub }: { readonly imageUrl: string; readonly envScrub: readonly string[] },
  env: NodeJS.ProcessEnv,
  jobEndsAtMs: number,
): void {
  const present = credentialNames(imageUrl).filter((name) => valueOf(env, name) !== undefined);
  if (present.length === 0) return;
  // Who lets variables in by name knows of it.
  if (!envScrub.some((pattern) => pattern.startsWith('!'))) {
    notice(
      `The command does not get ${present.join(', ')}: they are for the images' store. ` +
        "If it needs them, set env-scrub to '!AWS_*', or for Google '!GOOGLE_*' and '!CLOUDSDK_*'",
      { title: 'fastfreeze: credentials that the command does not get' },
    );
  }
  if (!present.includes('AWS_SESSION_TOKEN')) return;
  const jobEnd = new Date(jobEndsAtMs).toISOString();
  const expiresAtMs = Date.parse(valueOf(env, 'AWS_CREDENTIAL_EXPIRATION') ?? '');
  if (Number.isNaN(expiresAtMs)) info(`These expire, and nothing renews them: they must be valid until ${jobEnd}`);
  else if (expiresAtMs < jobEndsAtMs) {
    warning(
      `They are valid until ${new Date(expiresAtMs).toISOString()}, and the job may run until ${jobEnd}: later checkpoints will fail. ` +
        'Try: role-duration-seconds of aws-actions/configure-aws-credentials, or credentials that renew themselves (docs/action.md)',
      { title: 'fastfreeze: the credentials for the images expire before the job ends' },
    );
  }
}
