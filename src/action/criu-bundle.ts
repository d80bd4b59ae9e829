// SPDX-License-Identifier: Apache-2.0
import { packageVersion } from '../engine/manifest-writer.js';

/** What `fastfreeze install --bundle` makes of runtime/tested-packages.json; the release has it, and release.yml compares the sum. */
export const CRIU_BUNDLE = {
  file: 'fastfreeze-criu-linux-x64.tar.xz',
  sha256: '62d3879b39b07ad2699fcf514741045e352f900c19c4db80f626e799e51fbb75',
} as const;

/** Of the release of this very version: a moving tag such as `v1` has none. */
export function releaseUrl(env: NodeJS.ProcessEnv): string {
  const server = env['GITHUB_SERVER_URL'] ?? 'https://github.com';
  const repository = env['GITHUB_ACTION_REPOSITORY'] || 'fastfreeze/action';
  return `${server}/${repository}/releases/download/v${packageVersion()}/${CRIU_BUNDLE.file}`;
}
