// SPDX-License-Identifier: Apache-2.0
/*
 * Entry of the process that has GitHub's cache client in it. The client logs to standard output, tells failures only there, and takes its
 * working directory and its settings from the process: so it has a process of its own, in whose output nobody is but us.
 */
import type { AgentAnswer, AgentRequest, AgentResult } from './agent-protocol.js';
import { OBJECT_PATH } from './agent-protocol.js';
import { readDoubt, readFailure } from './said.js';
import { restoreCache, saveCache } from './sdk.js';

const MAX_SAID = 1 << 20;
let said = '';

process.stdout.write = keep;
process.stderr.write = keep;
// Whoever asked has gone.
process.once('disconnect', () => process.exit(0));
process.on('message', (request) => void answer(request as AgentRequest));

async function answer(request: AgentRequest): Promise<void> {
  const results: AgentResult[] = [];
  const keys = request.op === 'lookup' ? request.prefixes : [request.key];
  for (const key of keys) results.push(await one(request, key));
  process.send?.({ results } satisfies AgentAnswer);
}

async function one(request: AgentRequest, key: string): Promise<AgentResult> {
  said = '';
  try {
    const done = await perform(request, key);
    const lines = said.split('\n');
    const failure = done === undefined ? readFailure(lines) : undefined;
    const doubt = failure ?? readDoubt(lines, done === undefined && request.op !== 'save');
    if (doubt !== undefined) return { failure: doubt };
    if (done !== undefined) return { key: done };
    if (request.op !== 'save') return { key: null };
    return { failure: { kind: 'other', reason: 'the client says that it is not saved, and not why' } };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { failure: readFailure([`::error::${reason}`]) ?? { kind: 'other', reason } };
  }
}

/** The key that was found or saved; undefined for none, and for what failed. */
async function perform(request: AgentRequest, key: string): Promise<string | undefined> {
  const paths = [OBJECT_PATH];
  switch (request.op) {
    case 'lookup':
      // Only the keys beside the first are promised to be taken for beginnings; no key of ours ends in this.
      return await restoreCache(paths, `${key}~`, [key], { lookupOnly: true });
    case 'restore':
      return await restoreCache(paths, key);
    case 'save':
      return (await saveCache(paths, key)) === -1 ? undefined : key;
  }
}

/** Stands in for the `write` of both streams, ours and that of the programs that the client starts. */
function keep(piece: string | Uint8Array, ...rest: unknown[]): boolean {
  // Failures come last.
  said = (said + (typeof piece === 'string' ? piece : Buffer.from(piece).toString('utf8'))).slice(-MAX_SAID);
  const done = rest.at(-1);
  if (typeof done === 'function') process.nextTick(done);
  return true;
}
