// SPDX-License-Identifier: Apache-2.0
/* Entry of the engine: a process of its own, which outlives the step that started it. */
import { Socket } from 'node:net';
import { toErrorRecord } from '../base/errors.js';
import { runEngine } from './engine.js';
import { type EngineTask, LAST_TRY, tellEvent } from './engine-task.js';

// Whatever comes before or after the job: the engine is ended by its work alone.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', LAST_TRY]) process.on(signal, () => undefined);

const task = await readTask();
try {
  tellEvent(task.directory, { type: 'ended', ...(await runEngine(task)) });
} catch (error) {
  tellEvent(task.directory, { type: 'ended', exitCode: 170, how: 'failed', error: toErrorRecord(error) });
}
// A request that was given up and hangs must not keep us.
setTimeout(() => process.exit(), 3_000).unref();

async function readTask(): Promise<EngineTask> {
  // Closed when it is read: the command must not inherit it.
  const channel = new Socket({ fd: 3, readable: true, writable: false });
  let text = '';
  for await (const piece of channel.setEncoding('utf8')) text += String(piece);
  return JSON.parse(text) as EngineTask;
}
