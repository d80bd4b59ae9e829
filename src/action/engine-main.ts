// SPDX-License-Identifier: Apache-2.0
/* Entry of the engine: a process of its own, which outlives the step that started it. */
import { Socket } from 'node:net';
import { toErrorRecord } from '../base/errors.js';
import { keepSignals } from './early-signals.js';
import { type EngineTask, tellEvent } from './engine-task.js';

const handOnSignals = keepSignals();
const task = await readTask();
tellEvent(task.directory, { type: 'begun' });
try {
  // It takes its time to load, and main may tell us to leave by now.
  const { runEngine } = await import('./engine.js');
  tellEvent(task.directory, { type: 'ended', ...(await runEngine(task, handOnSignals)) });
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
