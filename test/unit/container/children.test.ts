// SPDX-License-Identifier: Apache-2.0
/* The reaper works on all children of its process, so each case has a process of its own, a subreaper as PID 1 is one. */
import { describe, expect, jest, test } from '@jest/globals';
import { askScript, moduleUrl, ownPids } from '../linux/support.js';

jest.setTimeout(20_000);

const PRELUDE = `
  import { execFile, spawn } from 'node:child_process';
  import { readFileSync } from 'node:fs';
  import { promisify } from 'node:util';
  import { setTimeout as sleep } from 'node:timers/promises';
  import { createChildren } from '${moduleUrl('container/children.js')}';
  import { becomeSubreaper } from '${moduleUrl('linux/process.js')}';
  import { readTree } from '${moduleUrl('container/tree.js')}';
  becomeSubreaper();
  const children = createChildren();
  const zombies = () => readTree(process.pid).filter((one) => one.state === 'Z').length;
  /** A process that its own parent leaves to us. */
  const orphan = async (command) => {
    // It ends when its parent has gone: a shell may reap what ends before.
    const child = spawn('/bin/sh', ['-c', 'sh -c "sleep 0.1; $1" >/dev/null 2>&1 & echo $!', 'sh', command], { stdio: ['ignore', 'pipe', 'ignore'] });
    children.adopt(child);
    let text = '';
    child.stdout.on('data', (piece) => (text += piece));
    await new Promise((resolve) => child.once('close', resolve));
    return Number(text);
  };
  const done = (answer) => { children.close(); console.log(JSON.stringify(answer)); };
`;

describe('the reaper', () => {
  test('leaves Node its own children and takes the others, hundreds of both at once', async () => {
    const answer = await askScript(`${PRELUDE}
      const own = Array.from({ length: 100 }, (_, i) => new Promise((resolve) => {
        const child = spawn('/bin/sh', ['-c', 'exit ' + (i % 100)], { stdio: 'ignore' });
        children.adopt(child);
        child.once('exit', (code) => resolve(code === i % 100));
      }));
      const orphans = Array.from({ length: 40 }, async (_, i) => {
        const status = await children.waitFor(await orphan('sleep 0.0' + (i % 7) + '; exit ' + (i % 50)));
        return status.code === i % 50 && status.signal === null;
      });
      const right = (await Promise.all([...own, ...orphans])).filter(Boolean).length;
      await sleep(50);
      done({ right, zombies: zombies() });`);
    expect(answer).toEqual({ right: 140, zombies: 0 });
  });

  test('remembers how a process ended that is only asked for later, and tells death by signal', async () => {
    const answer = await askScript(`${PRELUDE}
      const early = await orphan('exit 42');
      const killed = await orphan('kill -USR1 $$');
      await sleep(400);
      const gone = zombies();
      done([gone, await children.waitFor(early), await children.waitFor(killed)]);`);
    expect(answer).toEqual([0, { code: 42, signal: null }, { code: null, signal: 10 }]);
  });

  test('reaps orphans that nobody asked for', async () => {
    const answer = await askScript(`${PRELUDE}
      for (let i = 0; i < 30; i++) await orphan('sleep 0.0' + (i % 5));
      for (let i = 0; i < 100 && readTree(process.pid).length > 1; i++) await sleep(20);
      done(readTree(process.pid).length);`);
    expect(answer).toBe(1);
  });

  test('does its work as PID 1 too', async () => {
    const answer = await askScript(
      `${PRELUDE}
      const status = await children.waitFor(await orphan('exit 9'));
      done([process.pid, status.code, zombies()]);`,
      ownPids(),
    );
    expect(answer).toEqual([1, 9, 0]);
  });
});
