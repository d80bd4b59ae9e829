// SPDX-License-Identifier: Apache-2.0
// A network of two ends on this machine: ours, and one in a network namespace of its own, with a link between them whose
// rate can be limited in both directions.
import { execFileSync } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import { sleep } from './machine.js';

export interface Link {
  /** IPv4 addresses. */
  readonly ourAddress: string;
  readonly theirAddress: string;
  /** Limit both directions; undefined for as fast as it goes. */
  shape(megabitsPerSecond: number | undefined): void;
  remove(): void;
}

/** Of the link-local addresses, which no machine routes: what is there already is in nobody's way. */
const OUR_ADDRESS = '169.254.213.1';
const THEIR_ADDRESS = '169.254.213.2';
const NAMESPACE_TIMEOUT_MS = 10_000;

/** Why this machine cannot have such a link; undefined when it can. */
export function noLink(): string | undefined {
  if (process.getuid?.() !== 0) return 'only root can make network namespaces and links';
  try {
    for (const command of [
      ['ip', '-V'],
      ['tc', '-V'],
      ['nsenter', '--version'],
    ])
      run(command[0] ?? '', command[1] ?? '');
  } catch (error) {
    return `a command is missing: ${String(error)}`;
  }
  return undefined;
}

/** Join us to the network namespace of `pid`, as soon as it has one of its own. The link goes with that namespace. */
export async function createLink(pid: number): Promise<Link> {
  const ours = readlinkSync('/proc/self/ns/net');
  for (const endMs = Date.now() + NAMESPACE_TIMEOUT_MS; readlinkSync(`/proc/${pid}/ns/net`) === ours;) {
    if (Date.now() > endMs) throw new Error('the server has no network namespace of its own');
    await sleep(20);
  }
  const [near, far] = [`ffb${process.pid}`, 'ffbench'];
  const there = (...words: string[]): void => run('nsenter', '--target', String(pid), '--net', '--', ...words);
  run('ip', 'link', 'add', near, 'type', 'veth', 'peer', 'name', far, 'netns', String(pid));
  run('ip', 'address', 'add', `${OUR_ADDRESS}/30`, 'dev', near);
  run('ip', 'link', 'set', near, 'up');
  there('ip', 'link', 'set', 'lo', 'up');
  there('ip', 'address', 'add', `${THEIR_ADDRESS}/30`, 'dev', far);
  there('ip', 'link', 'set', far, 'up');
  return {
    ourAddress: OUR_ADDRESS,
    theirAddress: THEIR_ADDRESS,
    shape(rate) {
      const words = (device: string): string[] =>
        rate === undefined
          ? ['qdisc', 'replace', 'dev', device, 'root', 'noqueue']
          : // A queue of 50 ms, as routers have, and bursts of 10 ms, which is what a timer of 100 Hz needs.
            [
              ...['qdisc', 'replace', 'dev', device, 'root', 'tbf', 'rate', `${rate}mbit`],
              ...['burst', String(Math.max(65_536, Math.round(rate * 1250))), 'latency', '50ms'],
            ];
      run('tc', ...words(near));
      there('tc', ...words(far));
    },
    remove: () => run('ip', 'link', 'delete', near),
  };
}

function run(command: string, ...words: string[]): void {
  execFileSync(command, words, { stdio: ['ignore', 'ignore', 'pipe'], timeout: 10_000 });
}
