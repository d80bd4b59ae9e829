// SPDX-License-Identifier: Apache-2.0
import { describe, expect, jest, test } from '@jest/globals';
import { reap, shellCode, signalName, signalNumber } from '../../../src/linux/process.js';
import { askScript, makeDirectory, moduleUrl } from './support.js';

jest.setTimeout(30_000);

describe('exit statuses', () => {
  test('read as a shell reports them', () => {
    expect(shellCode({ code: 0, signal: null })).toBe(0);
    expect(shellCode({ code: 255, signal: null })).toBe(255);
    expect(shellCode({ code: null, signal: 9 })).toBe(137);
  });

  test('name signals and find them by name, with and without SIG', () => {
    expect(signalName(15)).toBe('SIGTERM');
    expect(signalName(40)).toBe('signal 40');
    expect(signalNumber('SIGUSR1')).toBe(10);
    expect(signalNumber('USR1')).toBe(10);
    expect(signalNumber('NONSENSE')).toBeUndefined();
  });
});

describe('reaping', () => {
  test('tells a stranger from a child', () => {
    expect(reap(1)).toBe('gone');
  });

  test('adopts orphans, finds them by peeking, and tells code from signal, core dumps included', async () => {
    const ends = [
      'exit 0',
      'exit 7',
      'exit 255',
      'kill -TERM $$',
      'kill -KILL $$',
      'ulimit -c unlimited; kill -SEGV $$',
    ];
    const answer = await askScript(
      `
      import { execFileSync } from 'node:child_process';
      import { setTimeout as sleep } from 'node:timers/promises';
      import { becomeSubreaper, peekEndedChild, reap, setDumpable } from '${moduleUrl('linux/process.js')}';
      becomeSubreaper();
      setDumpable();
      // One of them dumps core, into the directory that is removed afterwards.
      process.chdir('${makeDirectory()}');
      const results = [];
      for (const end of ${JSON.stringify(ends)}) {
        // The middle shell leaves its child to us; it must be gone before the child ends, or it would reap it itself.
        const pid = Number(execFileSync('/bin/sh', ['-c', 'sh -c "sleep 0.5; $1" >/dev/null 2>&1 & echo $!', 'sh', 'exec sh -c "' + end.replace('$$', '\\\\$\\\\$') + '"'], { encoding: 'utf8' }));
        const early = reap(pid);
        let peeked;
        for (let i = 0; i < 400 && peeked === undefined; i++) { await sleep(5); peeked = peekEndedChild(); }
        results.push([early, peeked === pid, peekEndedChild() === pid, reap(pid), reap(pid)]);
      }
      console.log(JSON.stringify(results));`,
      [],
      { env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' } },
    );
    const ended = (code: number | null, signal: number | null) => ['running', true, true, { code, signal }, 'gone'];
    expect(answer).toEqual([
      ended(0, null),
      ended(7, null),
      ended(255, null),
      ended(null, 15),
      ended(null, 9),
      ended(null, 11),
    ]);
  });
});
