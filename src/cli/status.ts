// SPDX-License-Identifier: Apache-2.0
import type { JobStatus } from '../engine/config.js';
import { readStatus } from '../engine/control-client.js';
import { runningJobs } from '../engine/state.js';
import { flagOption, parseOptions } from './arguments.js';
import type { Command } from './command.js';
import { EXIT } from '../engine/exit-codes.js';
import { jobNameFrom } from './job-name.js';

const OPTIONS = {
  json: { type: 'boolean' },
  container: { type: 'string', short: 'n' },
} as const;

export const statusCommand: Command = {
  name: 'status',
  summary: 'Show what runs, since when, its memory and last checkpoint',
  help: `Usage: fastfreeze status [OPTIONS] [NAME]

Shows the running jobs of this user, or the one named.

Options:
      --json                 print { "jobs": [...] } as docs/json.md describes
  -n, --container NAME       the job

Exit status:
    0  shown (also when no job runs and none was named)
  170  the named job does not run
    2  the command line is wrong
`,
  async run(args) {
    const parsed = parseOptions(args, OPTIONS, false);
    const name = jobNameFrom(parsed);
    const jobs: JobStatus[] = [];
    for (const one of name === undefined ? runningJobs() : [name]) jobs.push(await readStatus(one));
    if (flagOption(parsed, 'json')) process.stdout.write(`${JSON.stringify({ jobs }, null, 2)}\n`);
    else if (jobs.length === 0) process.stdout.write('No job is running.\n');
    else process.stdout.write(jobs.map(describe).join('\n'));
    return EXIT.ok;
  },
};

/** Said where they are not the machine's. */
function clocks({ clockOffsets: { monotonicSeconds, boottimeSeconds } }: JobStatus): string[] {
  if (monotonicSeconds === 0 && boottimeSeconds === 0) return [];
  const signed = (seconds: number): string => `${seconds < 0 ? '-' : '+'}${Math.abs(seconds).toFixed(3)} s`;
  return [`  clocks      monotonic ${signed(monotonicSeconds)}, boot ${signed(boottimeSeconds)} from the machine's`];
}

function describe(job: JobStatus): string {
  const mib = (bytes: number): string => `${(bytes / 1048576).toFixed(1)} MiB`;
  const origin = job.restoredGeneration === null ? 'started from scratch' : `restored from ${job.restoredGeneration}`;
  const last = job.lastCheckpoint;
  return [
    `${job.name}: ${job.state} since ${job.startedAt} (${job.uptimeSeconds} s), ${origin}`,
    `  command     ${job.command.join(' ')}`,
    `  image       ${job.imageUrl}`,
    `  processes   ${job.processes.length}, ${mib(job.residentBytes)} resident`,
    ...job.processes.map(
      (one) => `    ${String(one.pid).padStart(7)}  ${mib(one.residentBytes).padStart(12)}  ${one.name}`,
    ),
    ...clocks(job),
    ...(job.replacedFiles.length === 0 ? [] : ["  files of the image in place of this machine's"]),
    ...job.replacedFiles.map((path) => `    ${path}`),
    last === null
      ? '  checkpoint  none yet'
      : `  checkpoint  generation ${last.generation} at ${last.at}, ${mib(last.rawBytes)} (${mib(last.storedBytes)} stored), frozen ${last.frozenMs} ms`,
    ...(job.lease === null || job.lease === 'held' ? [] : [`  lease        ${job.lease}: nothing is committed`]),
    ...(job.lastFailure === null ? [] : [`  last failure ${job.lastFailure}`]),
    '',
  ].join('\n');
}
