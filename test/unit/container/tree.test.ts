// SPDX-License-Identifier: Apache-2.0
import { afterEach, describe, expect, jest, test } from '@jest/globals';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { readAffinity, restoreAffinity } from '../../../src/container/affinity.js';
import { cpuTimeMs, readProcess, readTree, residentBytes } from '../../../src/container/tree.js';
import { until } from '../../support/until.js';
import { within } from '../linux/support.js';

const started: ChildProcess[] = [];
afterEach(async () => {
  for (const child of started.splice(0)) {
    const ended = once(child, 'exit');
    process.kill(-(child.pid ?? 0), 'SIGKILL');
    await within('the end', ended);
  }
});

async function program(text: string): Promise<number> {
  const child = spawn('python3', ['-c', text], { stdio: ['ignore', 'pipe', 'inherit'], detached: true });
  started.push(child);
  await within('the program', once(child.stdout, 'data'));
  return child.pid ?? 0;
}

describe('a process tree', () => {
  test('has every process and thread, children of threads included, root first', async () => {
    const root = await program(`
import os, threading, time
r, w = os.pipe()
def child():
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0: os.write(w, b"x")
        time.sleep(60)
def thread():
    child(); time.sleep(60)
child()
for _ in range(3): threading.Thread(target=thread, daemon=True).start()
zombie = os.fork()
if zombie == 0: os._exit(200)
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
for _ in range(4): os.read(r, 1)
print("ready", flush=True)
time.sleep(60)`);
    const tree = readTree(root);
    expect(tree[0]).toMatchObject({ pid: root, pgid: root, sid: root, ppid: process.pid });
    expect(tree.length).toBe(1 + 4 * 2 + 1);
    expect(tree[0]?.tids.length).toBe(4);
    expect(new Set(tree.map((one) => one.pid)).size).toBe(tree.length);
    for (const one of tree.slice(1)) {
      expect(one.sid).toBe(root);
      expect(tree.some((parent) => parent.pid === one.ppid)).toBe(true);
    }
    // As wait(2) encodes it.
    expect(tree.find((one) => one.state === 'Z')?.exitCode).toBe(200 << 8);
    expect(residentBytes(root)).toBeGreaterThan(1 << 20);
  });

  test('reads names that try to look like the rest of the line', async () => {
    const pid = await program(`
import ctypes, time
ctypes.CDLL(None).prctl(15, b"a) Z 1 (b\\n c", 0, 0, 0)
print("ready", flush=True)
time.sleep(60)`);
    expect(readProcess(pid)).toMatchObject({ name: 'a) Z 1 (b\n c', ppid: process.pid, pgid: pid });
  });

  test('knows the CPU time of a process, and of children that it has waited for', async () => {
    const used = `
import os, time
child = os.fork()
if child == 0:
    while time.process_time() < 0.3: pass
    os._exit(0)
os.waitpid(child, 0)
print("ready", flush=True)
time.sleep(60)`;
    expect(cpuTimeMs(await program(used))).toBeGreaterThanOrEqual(290);
    const idle = await program('import time\nprint("ready", flush=True)\ntime.sleep(60)');
    const before = cpuTimeMs(idle);
    expect(before).toBeLessThan(290);
    expect(cpuTimeMs(idle) - before).toBeLessThanOrEqual(10);
  });

  test('that has gone is empty', () => {
    expect(readTree(2 ** 22 - 1)).toEqual([]);
    expect(readProcess(2 ** 22 - 1)).toBeUndefined();
    expect(residentBytes(2 ** 22 - 1)).toBe(0);
    expect(cpuTimeMs(2 ** 22 - 1)).toBe(0);
  });

  test('keeps the CPUs of threads that have their own', async () => {
    const pid = await program(`
import os, threading, time
ready = threading.Barrier(2)
def thread():
    os.sched_setaffinity(0, {0})
    ready.wait(); time.sleep(60)
threading.Thread(target=thread, daemon=True).start()
ready.wait()
print("ready", flush=True)
time.sleep(60)`);

    jest.setTimeout(30_000);
    const tree = readTree(pid);
    const found = readAffinity(tree);
    const thread = tree[0]?.tids.find((tid) => tid !== pid) ?? 0;
    // On a machine with one CPU there is nothing of its own about it.
    expect(found).toEqual(availableParallelism() === 1 ? [] : [{ tid: thread, cpus: '0' }]);
    expect(restoreAffinity([{ tid: thread, cpus: '0' }])).toEqual([]);
    // CPUs that are not here are told, not forced.
    expect(restoreAffinity([{ tid: thread, cpus: '8000-8100' }])).toEqual([{ tid: thread, cpus: '8000-8100' }]);
    await until('the thread to be where it was', () => readAffinity(tree).length === found.length);
  });
});
