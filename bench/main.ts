// SPDX-License-Identifier: Apache-2.0
// `npm run bench`: how long fastfreeze freezes, stores and restores an application, beside plain CRIU and the old way.
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { execFileSync } from 'node:child_process';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { findCriu } from '../src/criu/runtime/find.js';
import { isPrivileged } from '../src/criu/runtime/privilege.js';
import { CONTESTANTS, type Contestant } from './contestants.js';
import { type Bench, Sampler, type Workload, endAll } from './jobs.js';
import { MAX_FOREIGN_SHARE, availableBytes, describeMachine, warm } from './machine.js';
import { type Measurement, measure } from './measure.js';
import { noServer, startServer } from './s3-server.js';
import { uploaders } from './upload.js';
import { type Report, type Row, megabytes, replaceTables, toMarkdown } from './report.js';

const HELP = `Usage: npm run bench -- [OPTIONS]

  --sizes LIST      GiB of the applications to freeze, or none [1,4]
  --runs N          undisturbed runs of everything, whose medians are shown [3]; one more for the memory
  --only LIST       contestants whose names contain one of these words
  --processes N     processes of the last table's application, 0 for none [300]
  --links LIST      Mbit/s of the link to an object store, max: not limited, none: no uploads [max,1000,200]
  --repeats N       how often a run that others disturbed is repeated [3]
  --quick           1 GiB, one run, no processes, no uploads
  --disk DIR        where the old way dumps to [/var/tmp]
  --json FILE       every measurement
  --markdown FILE   the tables, between the marks of FILE if it has them
`;

const GIB = 2 ** 30;
const { values } = parseArgs({
  options: {
    sizes: { type: 'string' },
    runs: { type: 'string' },
    only: { type: 'string' },
    processes: { type: 'string' },
    links: { type: 'string' },
    repeats: { type: 'string', default: '3' },
    quick: { type: 'boolean', default: false },
    disk: { type: 'string', default: '/var/tmp' },
    json: { type: 'string' },
    markdown: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

if (values.help) process.stdout.write(HELP);
else await main();

async function main(): Promise<void> {
  const sizes = listOf(values.sizes ?? (values.quick ? '1' : '1,4')).map(Number);
  const runs = Number(values.runs ?? (values.quick ? 1 : 3));
  const processes = Number(values.processes ?? (values.quick ? 0 : 300));
  const links = linksOf(values.links ?? (values.quick ? 'none' : 'max,1000,200'));
  if (![...sizes, ...links.map((link) => link ?? 1), runs, processes].every((one) => Number.isFinite(one) && one >= 0))
    throw new Error(HELP);
  const words = values.only?.split(',');
  const isWanted = ({ name }: Contestant): boolean => words?.some((word) => name.includes(word)) ?? true;

  const privileged = isPrivileged();
  const criu = await findCriu({ env: process.env, privileged });
  const needBytes = Math.max(...sizes, 1) * 3 * GIB;
  const memory = memoryDirectory(needBytes);
  const diskDirectory = mkdtempSync(join(resolve(values.disk), 'ff-bench-'));
  const nodePath = join(diskDirectory, 'node');
  copyFileSync(process.execPath, nodePath);
  const bench: Bench = {
    repository: fileURLToPath(new URL('../../', import.meta.url)),
    memoryDirectory: memory.path,
    diskDirectory: join(diskDirectory, 'store'),
    criu,
    privileged,
    nodePath,
    sampler: Sampler.start(),
  };
  // The benchmark may be ended at any time, and then as well nothing stays.
  const leave = (): void => {
    memory.remove();
    rmSync(diskDirectory, { recursive: true, force: true });
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      void endAll().then(() => {
        leave();
        process.exit(1);
      });
    });
  }
  const rows: Row[] = [];
  try {
    for (const size of sizes) {
      const title = `${size} GiB, half of the pages incompressible`;
      const workload = { bytes: size * GIB, processes: 1 };
      rows.push(...(await compare(bench, title, workload, CONTESTANTS.filter(isWanted), runs)));
    }
    if (processes > 0) {
      const some = CONTESTANTS.filter(({ name }) => name === 'medium' || name === 'plain criu').filter(isWanted);
      const workload = { bytes: 0, processes };
      rows.push(...(await compare(bench, `${processes} processes of 1 MiB`, workload, some, runs)));
    }
    if (links.length > 0) rows.push(...(await compareUploads(bench, links, uploaders().filter(isWanted), runs)));
  } finally {
    await endAll();
    bench.sampler.close();
    leave();
  }
  const machine = describeMachine(criu.version, privileged);
  const report: Report = { machine, takenAt: new Date().toISOString(), rows };
  const tables = toMarkdown(report);
  process.stdout.write(`\n${tables}`);
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(report, undefined, 2)}\n`);
  if (values.markdown !== undefined) {
    const document = existsSync(values.markdown) ? readFileSync(values.markdown, 'utf8') : undefined;
    writeFileSync(values.markdown, replaceTables(document, tables));
  }
}

/** All contestants in turn, each run in another order: what warms up, fills up or wears out hits all of them alike. */
async function compare(
  bench: Bench,
  title: string,
  workload: Workload,
  contestants: readonly Contestant[],
  runs: number,
): Promise<Row[]> {
  const measured = new Map(contestants.map(({ name }) => [name, [] as Measurement[]]));
  process.stderr.write(`bench: ${title}\n`);
  for (let run = 0; run < runs; run++) {
    const order = contestants.map((_, i) => contestants[(i + run * 2) % contestants.length] as Contestant);
    if (run % 2 === 1) order.reverse();
    for (const contestant of order) {
      measured.get(contestant.name)?.push(await measureUndisturbed(bench, contestant, workload));
    }
  }
  const rows: Row[] = [];
  for (const contestant of contestants) {
    const memoryRun = await measure(bench, contestant, workload, 'memory');
    process.stderr.write(
      `bench:   ${contestant.name.padEnd(24)} peak ${megabytes(memoryRun.dumpPeak)} MB; restore ${megabytes(memoryRun.restorePeak)} MB\n`,
    );
    rows.push({ workload: title, contestant: contestant.name, runs: measured.get(contestant.name) ?? [], memoryRun });
  }
  return rows;
}

/** Uploads of 1 GiB over links of each rate, beside what line and server can do. */
async function compareUploads(
  bench: Bench,
  links: readonly (number | undefined)[],
  contestants: readonly Contestant[],
  runs: number,
): Promise<Row[]> {
  const obstacle = noServer();
  if (obstacle !== undefined) {
    process.stderr.write(`bench: no uploads: ${obstacle}\n`);
    return [];
  }
  const rows: Row[] = [];
  const server = await startServer(bench.memoryDirectory);
  try {
    // As before each run: what is measured is the server, not how fast the host gives memory.
    warm(bench.memoryDirectory, 3 * GIB);
    const alone = await server.rate(GIB / 2);
    const rates = `the server alone takes ${mega(alone.up)} and gives ${mega(alone.down)} MB/s`;
    for (const link of links) {
      server.link.shape(link);
      const line = link === undefined ? Infinity : (link * 1e6) / 8;
      const limits = { up: Math.min(line, alone.up), down: Math.min(line, alone.down) };
      const over = link === undefined ? 'a link without limit' : `${link} Mbit/s, ${mega(line)} MB/s`;
      const title = `1 GiB to an S3 server (moto) over ${over}; ${rates}`;
      const compared = await compare({ ...bench, server }, title, { bytes: GIB, processes: 1 }, contestants, runs);
      rows.push(...compared.map((row) => ({ ...row, limits })));
    }
  } finally {
    await server.stop();
  }
  return rows;
}

function linksOf(list: string): (number | undefined)[] {
  return listOf(list).map((word) => (word === 'max' ? undefined : Number(word)));
}

function listOf(list: string): string[] {
  return list === 'none' ? [] : list.split(',');
}

function mega(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}

async function measureUndisturbed(bench: Bench, contestant: Contestant, workload: Workload): Promise<Measurement> {
  let best: Measurement | undefined;
  // What the kernel does for hundreds of processes that come and go is charged to none that is left to ask.
  // Nor what it does for a network.
  const isUncharged = workload.processes > 1 || bench.server !== undefined;
  const disturbance = ({ foreignShares }: Measurement): number => Math.max(...foreignShares);
  for (let attempt = 0; attempt <= Number(values.repeats); attempt++) {
    const one = await measure(bench, contestant, workload, 'time');
    const share = disturbance(one);
    process.stderr.write(
      `bench:   ${contestant.name.padEnd(24)} frozen ${one.frozenSeconds.toFixed(2)} s, durable ${one.durableSeconds.toFixed(2)} s; ` +
        `restore ${one.restoreSeconds.toFixed(2)} s` +
        `${share > MAX_FOREIGN_SHARE && !isUncharged ? `; disturbed: others took ${(share * 100).toFixed(0)}%` : ''}\n`,
    );
    if (best === undefined || share < disturbance(best)) best = one;
    if (share <= MAX_FOREIGN_SHARE || isUncharged) break;
  }
  if (best === undefined) throw new Error('nothing was measured');
  return best;
}

interface Directory {
  readonly path: string;
  remove(): void;
}

/** A directory on tmpfs with room for an application's image twice over. */
function memoryDirectory(needBytes: number): Directory {
  const available = availableBytes();
  if (available < needBytes) {
    throw new Error(
      `${(needBytes / GIB).toFixed(0)} GiB of free memory are needed, there are ${(available / GIB).toFixed(1)}: try --sizes 1`,
    );
  }
  if (existsSync('/dev/shm')) {
    const { bavail, bsize } = statfsSync('/dev/shm');
    if (bavail * bsize >= needBytes) {
      const path = mkdtempSync('/dev/shm/ff-bench-');
      return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
    }
  }
  const path = mkdtempSync('/tmp/ff-bench-');
  const sized = `size=${needBytes},mode=700`;
  mkdirSync(path, { recursive: true });
  execFileSync('mount', ['-t', 'tmpfs', '-o', sized, 'ff-bench', path], { timeout: 10_000 });
  return {
    path,
    remove() {
      execFileSync('umount', ['--lazy', path], { timeout: 10_000 });
      rmSync(path, { recursive: true, force: true });
    },
  };
}
