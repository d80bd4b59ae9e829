// SPDX-License-Identifier: Apache-2.0
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Bed } from './bed.js';
import { fixture, nodePath, PYTHON } from './stage.js';

/** One fixture program, and what is known about freezing it. */
export interface FixtureCase {
  readonly name: string;
  /** The command; the stop file is where the test tells it to end. */
  command(bed: Bed, stopFile: string): readonly string[];
  /** A normal user cannot freeze this state (criu-facts.md); the refusal names it like this. */
  readonly refusedForUser?: RegExp;
  /** CRIU restores it once and then cannot see it any more; the second freeze is refused like this, and it runs on. */
  readonly refusedOnceRestored?: RegExp;
  /** Clocks go on while CRIU restores: beside large fixtures that takes longer than this one lets pass. */
  readonly measuresTime?: true;
  /** The set-up does not install what it needs. */
  readonly mayBeMissing?: true;
  /** Why this cannot run on this machine. */
  readonly unavailable?: string | undefined;
}

const python =
  (file: string, ...args: string[]): FixtureCase['command'] =>
  (_bed, stopFile) => [PYTHON, fixture(file), stopFile, ...args];

const shell =
  (file: string): FixtureCase['command'] =>
  (_bed, stopFile) => ['sh', fixture(file), stopFile];

const hasJava = ['/usr/bin/java', '/usr/bin/javac'].every((path) => existsSync(path));

export const CASES: readonly FixtureCase[] = [
  { name: 'a shell loop', command: shell('shell-loop.sh') },
  { name: 'a shell pipeline', command: shell('shell-pipeline.sh') },
  { name: 'Python threads', command: python('threads.py') },
  { name: '500 threads', command: python('threads.py', '500') },
  { name: 'Python multiprocessing', command: python('multiproc.py'), refusedForUser: /semaphore|mapped/i },
  { name: 'asyncio timers', command: python('asyncio_timers.py') },
  { name: '200 MB verified by hash', command: python('memory.py', '200') },
  { name: 'anonymous shared memory', command: python('shared_memory.py', 'anon') },
  { name: 'a memfd, mapped and open', command: python('shared_memory.py', 'memfd'), refusedForUser: /memfd/i },
  { name: 'a file in /dev/shm', command: python('shared_memory.py', 'shm') },
  { name: 'a mapped file', command: python('mmap_file.py') },
  { name: 'signals and timers', command: python('timers.py'), measuresTime: true },
  { name: 'epoll, eventfd and timerfd', command: python('events.py') },
  { name: 'inotify', command: python('inotify.py'), refusedForUser: /inotify/i },
  { name: 'fifo and sockets with data in flight', command: python('in_flight.py') },
  { name: 'a TCP listener and its client', command: python('tcp.py') },
  { name: 'an unlinked open file', command: python('unlinked.py') },
  { name: 'a deep tree of 30 processes', command: python('tree.py', 'deep', '30') },
  { name: 'a wide tree of 60 processes', command: python('tree.py', 'wide', '60') },
  { name: 'a Node.js program', command: (_bed, stopFile) => [nodePath(), fixture('node-loop.cjs'), stopFile] },
  {
    name: 'a Java program',
    // Without perf data: its file in /tmp would outlive a job that is frozen for good.
    command: (bed, stopFile) => ['/usr/bin/java', '-XX:-UsePerfData', '-cp', compileJava(bed), 'Loop', stopFile],
    mayBeMissing: true,
    unavailable: hasJava ? undefined : 'Java is not installed',
  },
  { name: 'monotonic and boot clocks', command: python('clocks.py'), measuresTime: true },
  { name: 'a daemon that forked twice', command: python('daemon.py'), refusedOnceRestored: /process \d+ .*daemon/ },
  { name: 'zombies', command: python('zombie.py'), refusedForUser: /zombie/i },
  { name: 'children born after a restore', command: python('children.py') },
  { name: 'PIDs that wrap around', command: python('children.py', '12', '1') },
];

/** The case of that name. */
export function fixtureCase(name: string): FixtureCase {
  const found = CASES.find((one) => one.name === name);
  if (found === undefined) throw new Error(`no fixture case ${name}`);
  return found;
}

function compileJava(bed: Bed): string {
  const classes = bed.path('classes');
  if (existsSync(classes)) return classes;
  const result = spawnSync('javac', ['-d', bed.directory('classes'), fixture('Loop.java')], { encoding: 'utf8' });
  if (result.status !== 0) throw new Error(`javac: ${result.stderr}`);
  return classes;
}
