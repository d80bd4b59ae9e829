// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, rmSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { type Contestant, LOG } from './contestants.js';
import { type App, AppLog, type Bench, type Child, Ledger, type Workload, findApp, startApp, verify } from './jobs.js';
import { quiet, sleep } from './machine.js';
import { cpuSeconds, inspect, isStopped, ownCpuSeconds, readText, roleOf, treeOf } from './processes.js';
import { keepWarm } from './warmth.js';

/** What one dump and the restore of its image took. */
export interface Measurement {
  /** By the application's own clock. */
  readonly frozenSeconds: number;
  /** From the start of the command until it said that the image is complete. */
  readonly durableSeconds: number;
  /** From the moment at which the application stopped until the command said that the image is complete. */
  readonly freezeToDurableSeconds: number;
  readonly storedBytes: number;
  /** CRIU's and that of the code that it runs in the application included, the command's own client not. */
  readonly dumpCpuSeconds: number;
  /** From the start of the command until the application ran, by its own clock. */
  readonly restoreSeconds: number;
  /** From the start of CRIU until the application ran. */
  readonly criuRestoreSeconds: number | null;
  readonly restoreCpuSeconds: number;
  /** Only of a run whose memory was watched: its times are not those of one that is left alone. */
  readonly dumpPeak?: Peak;
  readonly restorePeak?: Peak;
  /** What other programs took of the machine meanwhile, as shares of all its CPUs. */
  readonly foreignShares: readonly [number, number];
  /** What fastfreeze itself says; nothing for the others. */
  readonly said?: { readonly frozenMs: number; readonly durableMs: number };
}

export interface Peak {
  readonly bytes: number;
  readonly parts: readonly { readonly name: string; readonly bytes: number }[];
}

const QUIET_TIMEOUT_MS = 60_000;
/** What a restore leaves to do after the application has begun to run: CRIU ends, its parent notices. */
const SETTLE_MS = 150;

export async function measure(
  bench: Bench,
  contestant: Contestant,
  workload: Workload,
  watched: 'time' | 'memory',
): Promise<Measurement> {
  await clean(bench);
  const needBytes = workload.bytes + workload.processes * (12 << 20) + (256 << 20);
  const app = await startApp(bench, workload);
  let dumped;
  try {
    await quiet(QUIET_TIMEOUT_MS);
    const warmth = keepWarm(needBytes * (contestant.name.includes('tmpfs, tar') ? 2 : 1));
    try {
      warmth.releaseWhen(() => isStopped(app.appPid));
      dumped = await measureDump(bench, contestant, app, watched);
    } finally {
      warmth.release();
    }
  } finally {
    app.launcher.kill('SIGTERM');
    await app.launcher.exited;
  }
  contestant.prepareRestore(bench);
  rmSync(app.log.path);
  await quiet(QUIET_TIMEOUT_MS);
  const restored = await measureRestore(bench, contestant, needBytes, watched);
  await clean(bench);
  return { ...dumped.facts, ...restored.facts, foreignShares: [dumped.foreignShare, restored.foreignShare] };
}

async function measureDump(bench: Bench, contestant: Contestant, app: App, watched: 'time' | 'memory') {
  const frozen = new Set(treeOf(app.appPid));
  const cpu = (): number =>
    [...frozen].reduce((sum, pid) => sum + ownCpuSeconds(pid), 0) +
    treeOf(app.launcher.pid, (pid) => frozen.has(pid)).reduce((sum, pid) => sum + cpuSeconds(pid), 0);
  const cpuBefore = cpu();
  const ledger = new Ledger(bench.server);
  const startedAt = Date.now() / 1000;
  await contestant.dump(bench, app, (root) => bench.sampler.watch(root, watched === 'memory'));
  const endedAt = Date.now() / 1000;
  const sampled = await bench.sampler.stop();
  const inContainer = cpu() - cpuBefore;
  const foreignShare = ledger.foreignShare(inContainer + sampled.cpuSeconds, cpus().length);
  const gap = await app.log.waitFor('gone on', () => app.log.longestGap(startedAt), app.launcher, 10_000);
  const said = /^\{.*\}$/m.exec(readText(join(bench.memoryDirectory, LOG)) ?? '')?.[0];
  return {
    foreignShare,
    facts: {
      frozenSeconds: gap.end - gap.start,
      durableSeconds: endedAt - startedAt,
      freezeToDurableSeconds: endedAt - gap.start,
      storedBytes: await contestant.storedBytes(bench),
      // Our own client is a child of ours that has ended, and so are the programs of the other contestants.
      dumpCpuSeconds: inContainer + (said === undefined ? ledger.endedChildren() : 0),
      ...(watched === 'memory' ? { dumpPeak: { bytes: sampled.peakBytes, parts: sampled.parts } } : {}),
      ...(said === undefined ? {} : { said: JSON.parse(said) as { frozenMs: number; durableMs: number } }),
    },
  };
}

async function measureRestore(bench: Bench, contestant: Contestant, needBytes: number, watched: 'time' | 'memory') {
  const unpacksFirst = contestant.name.includes('tar');
  const warmth = keepWarm(needBytes * (unpacksFirst ? 2 : 1));
  const log = new AppLog(join(bench.memoryDirectory, 'workload.log'));
  const ledger = new Ledger(bench.server);
  const startedAt = Date.now() / 1000;
  const child: Child = contestant.restore(bench);
  bench.sampler.watch(child.pid, watched === 'memory');
  try {
    warmth.releaseWhen(() => unpacksFirst || hasCriu(child.pid));
    const gap = await log.waitFor('gone on', () => log.longestGap(startedAt), child, 120_000);
    await sleep(SETTLE_MS);
    const sampled = await bench.sampler.stop();
    const used = treeOf(child.pid).reduce((sum, pid) => sum + cpuSeconds(pid), 0);
    const foreignShare = ledger.foreignShare(used + sampled.cpuSeconds, cpus().length);
    await verify(log, child, findApp(child.pid).appPid);
    return {
      foreignShare,
      facts: {
        restoreSeconds: gap.end - startedAt,
        criuRestoreSeconds: sampled.criuStartedAt === undefined ? null : gap.end - sampled.criuStartedAt,
        restoreCpuSeconds: used,
        ...(watched === 'memory' ? { restorePeak: { bytes: sampled.peakBytes, parts: sampled.parts } } : {}),
      },
    };
  } catch (error) {
    throw new Error((readText(join(bench.memoryDirectory, LOG)) ?? '').slice(-3000), { cause: error });
  } finally {
    warmth.release();
    await contestant.endRestored(child);
  }
}

function hasCriu(root: number): boolean {
  return treeOf(root).some((pid) => {
    const facts = inspect(pid);
    return facts !== undefined && roleOf(facts) === 'criu';
  });
}

/** Nothing of an earlier run may be there: chunks of it would not have to be stored again. */
async function clean(bench: Bench): Promise<void> {
  await bench.server?.reset();
  for (const name of ['image', 'criu', 'archive.tar.lz4', 'own', 'workload.log', 'run.log', LOG]) {
    rmSync(join(bench.memoryDirectory, name), { recursive: true, force: true });
  }
  rmSync(bench.diskDirectory, { recursive: true, force: true });
  mkdirSync(bench.diskDirectory, { recursive: true });
}
