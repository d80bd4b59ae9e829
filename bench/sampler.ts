// SPDX-License-Identifier: Apache-2.0
// A process of its own that watches the memory of others: `start` with the root of a tree, `stop` to be told the peak.
import { inspect, pssBytes, roleOf, startedAt, treeOf } from './processes.js';

export interface SamplerStart {
  readonly type: 'start';
  readonly root: number;
  /** PIDs, as their innermost namespace counts, of what is frozen: they and their children are not counted. */
  readonly appPid: number;
  /** Otherwise only CRIU is looked for: to add up the memory of Node takes milliseconds, each time. */
  readonly memory: boolean;
}

export interface SamplerResult {
  /** 0 where memory was not to be looked at. */
  readonly peakBytes: number;
  readonly samples: number;
  /** The processes at the peak. */
  readonly parts: readonly { readonly name: string; readonly bytes: number }[];
  /** When the first process named criu was started, in seconds since the epoch. */
  readonly criuStartedAt?: number;
  /** CPU seconds that the sampling itself took. */
  readonly cpuSeconds: number;
}

const INTERVAL_MS = 25;

let timer: NodeJS.Timeout | undefined;
let result: SamplerResult | undefined;
let startCpu = process.cpuUsage();

process.on('message', (message: SamplerStart | { readonly type: 'stop' }) => {
  if (message.type === 'start') begin(message);
  else end();
});
process.on('disconnect', () => process.exit(0));

function begin(options: SamplerStart): void {
  const names = new Map<number, string>();
  const foreign = new Set<number>();
  startCpu = process.cpuUsage();
  result = { peakBytes: 0, samples: 0, parts: [], cpuSeconds: 0 };
  const isForeign = (pid: number): boolean => {
    if (foreign.has(pid)) return true;
    // A process may be looked at between fork and exec: its name is asked for until it is one of those we know.
    const name = names.get(pid);
    if (name !== undefined && name !== 'sh') return false;
    const facts = inspect(pid);
    if (facts === undefined) return true;
    if (facts.innerPid === options.appPid) {
      foreign.add(pid);
      return true;
    }
    names.set(pid, roleOf(facts));
    return false;
  };
  const sample = (): void => {
    const pids = treeOf(options.root, isForeign);
    const parts = pids.map((pid) => ({ pid, bytes: options.memory ? pssBytes(pid) : 0 }));
    const sum = parts.reduce((total, part) => total + part.bytes, 0);
    if (result === undefined) return;
    const criu = parts.find(({ pid }) => names.get(pid) === 'criu');
    const criuStartedAt = result.criuStartedAt ?? (criu === undefined ? undefined : startedAt(criu.pid));
    result = {
      ...result,
      samples: result.samples + 1,
      ...(criuStartedAt === undefined ? {} : { criuStartedAt }),
      ...(sum <= result.peakBytes
        ? {}
        : { peakBytes: sum, parts: parts.map(({ pid, bytes }) => ({ name: names.get(pid) ?? '?', bytes })) }),
    };
    if (!options.memory && criuStartedAt !== undefined) clearInterval(timer);
  };
  sample();
  timer = setInterval(sample, INTERVAL_MS);
}

function end(): void {
  clearInterval(timer);
  const used = process.cpuUsage(startCpu);
  process.send?.({ ...result, cpuSeconds: (used.user + used.system) / 1e6 });
}
