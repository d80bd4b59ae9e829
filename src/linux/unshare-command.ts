// SPDX-License-Identifier: Apache-2.0
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { nodeCommand } from './node-command.js';

/**
 * The words that start `unshare`. The self-contained package brings one beside its Node.js and starts it by the same loader: a
 * container may have none, or one without time namespaces (util-linux before 2.36).
 */
export function unshareCommand(node: readonly string[] = nodeCommand()): readonly [string, ...string[]] {
  const [loader, option, folders, file] = node;
  if (loader === undefined || option === undefined || folders === undefined || file === undefined) return ['unshare'];
  const brought = join(dirname(file), 'unshare');
  return existsSync(brought) ? [loader, option, folders, brought] : ['unshare'];
}
