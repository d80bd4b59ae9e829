// SPDX-License-Identifier: Apache-2.0
import { type ErrorRecord, FastFreezeError, toErrorRecord } from '../base/errors.js';
import { findJobs } from '../image/catalog.js';
import { type PruneResult, pruneGenerations } from '../image/prune.js';
import { openStore } from '../store/store.js';
import { countOption, durationOption, flagOption, parseOptions, textOption } from './arguments.js';
import type { Command } from './command.js';
import { EXIT } from '../engine/exit-codes.js';
import { printJson, urlArgument } from './image-arguments.js';
import { plain, sizeText } from './text.js';
import { sayWaiting } from './waiting.js';

const OPTIONS = {
  keep: { type: 'string' },
  'older-than': { type: 'string' },
  'dry-run': { type: 'boolean' },
  json: { type: 'boolean' },
} as const;

interface PrunedJob {
  readonly url: string;
  readonly generations: readonly number[];
  readonly objects: readonly string[];
  readonly removedBytes: number;
  readonly error?: ErrorRecord;
}

export const pruneCommand: Command = {
  name: 'prune',
  summary: 'Remove old generations of the jobs below a URL',
  help: `Usage: fastfreeze prune [OPTIONS] URL-PREFIX

Removes generations of every job at URL-PREFIX or up to four levels below it, and
what failed checkpoints left there more than 24 hours ago. The newest generation
of a job always stays, and so does everything that a generation which stays needs.
Safe while jobs run and make checkpoints. At least one of --keep and --older-than
is needed; with both, a generation goes only when both allow it.

Options:
      --keep N               keep the newest N generations of each job [1]
      --older-than D         only generations older than 90s, 5m, 12h, 30d...
      --dry-run              remove nothing; say what would go
      --json                 print the result as JSON

Exit status:
    0  done (also when nothing had to go)
  170  there is no such place, or a job could not be pruned; the others were
    2  the command line is wrong
`,
  async run(args) {
    const parsed = parseOptions(args, OPTIONS, false);
    const url = urlArgument(parsed, 'prune');
    const olderThanMs = durationOption(parsed, 'older-than');
    if (olderThanMs === undefined && textOption(parsed, 'keep') === undefined) throw noRule();
    const keep = countOption(parsed, 'keep', 1, 1);
    const dryRun = flagOption(parsed, 'dry-run');
    const found = await findJobs(url, sayWaiting);
    for (const one of found.unread) process.stderr.write(`Not pruned: ${plain(one.url)}: ${one.reason}\n`);
    const jobs: PrunedJob[] = [];
    for (const job of found.urls) {
      const options = { dryRun, ...(olderThanMs === undefined ? {} : { olderThanMs }) };
      jobs.push(await pruneJob(job, () => pruneGenerations(openStore(job, sayWaiting), keep, options)));
    }
    if (flagOption(parsed, 'json')) printJson({ dryRun, jobs, unread: found.unread });
    else process.stdout.write(describe(jobs, dryRun));
    const failed = jobs.filter((job) => job.error !== undefined);
    for (const { url: place, error } of failed) {
      process.stderr.write(`Error: ${plain(place)}: ${plain(error?.message ?? '')}\n`);
    }
    return failed.length === 0 ? EXIT.ok : EXIT.failed;
  },
};

/** One job that cannot be pruned must not keep the others from it. */
async function pruneJob(url: string, prune: () => Promise<PruneResult>): Promise<PrunedJob> {
  try {
    return { url, ...(await prune()) };
  } catch (error) {
    return { url, generations: [], objects: [], removedBytes: 0, error: toErrorRecord(error) };
  }
}

function describe(jobs: readonly PrunedJob[], dryRun: boolean): string {
  const verb = dryRun ? 'would remove' : 'removed';
  const touched = jobs.filter((job) => job.generations.length + job.objects.length > 0);
  if (touched.length === 0) return 'Nothing had to go.\n';
  const lines = touched.map((job) => {
    const what = job.generations.length === 0 ? 'leftovers' : `generations ${job.generations.join(', ')}`;
    return `${plain(job.url)}: ${verb} ${what}: ${job.objects.length} objects, ${sizeText(job.removedBytes)}\n`;
  });
  const total = touched.reduce((sum, job) => sum + job.removedBytes, 0);
  return `${lines.join('')}${dryRun ? 'Would free' : 'Freed'} ${sizeText(total)}\n`;
}

function noRule(): FastFreezeError {
  return new FastFreezeError({
    code: 'usage',
    op: 'prune',
    reason: 'neither --keep nor --older-than says what may go',
    hint: 'fastfreeze prune URL-PREFIX --keep 2 --dry-run',
  });
}
