// SPDX-License-Identifier: Apache-2.0
import { type Catalog, type CatalogJob, readCatalog } from '../image/catalog.js';
import { flagOption, parseOptions } from './arguments.js';
import type { Command } from './command.js';
import { EXIT } from '../engine/exit-codes.js';
import { printJson, urlArgument } from './image-arguments.js';
import { ageText, holderText, plain, sizeText, table } from './text.js';
import { sayWaiting } from './waiting.js';

const OPTIONS = {
  json: { type: 'boolean' },
} as const;

export const listCommand: Command = {
  name: 'list',
  summary: 'Show the jobs below a URL: generations, sizes, ages',
  help: `Usage: fastfreeze list [OPTIONS] URL-PREFIX

Shows the jobs that have an image at URL-PREFIX or up to four levels below it:
their generations, what they need in storage, how old they are, and whether the
job is to be continued (checkpoint) or has ended by itself (finished), and who holds
its lease. Only manifests and leases are read; 'fastfreeze verify' reads the images.
A bucket is listed whole below URL-PREFIX, which can be its root (s3://BUCKET).

Options:
      --json                 print { "jobs": [...] } as docs/json.md describes

Exit status:
    0  shown (also when there is no job, or a manifest is damaged)
  170  there is no such place, or it cannot be read
    2  the command line is wrong
`,
  async run(args) {
    const parsed = parseOptions(args, OPTIONS, false);
    const catalog = await readCatalog(urlArgument(parsed, 'list'), sayWaiting);
    for (const { url, reason } of catalog.unread) process.stderr.write(`Not shown: ${plain(url)}: ${reason}\n`);
    if (flagOption(parsed, 'json')) printJson({ jobs: catalog.jobs, unread: catalog.unread });
    else process.stdout.write(describe(catalog));
    return EXIT.ok;
  },
};

function describe(catalog: Catalog): string {
  if (catalog.jobs.length === 0) return 'There is no job.\n';
  const total = catalog.jobs.reduce((sum, job) => sum + job.sizeBytes, 0);
  const count = catalog.jobs.length === 1 ? '1 job' : `${catalog.jobs.length} jobs`;
  return `${catalog.jobs.map(describeJob).join('')}${count}, ${sizeText(total)}\n`;
}

function describeJob(job: CatalogJob): string {
  const rows = job.generations.map((one) => [
    String(one.generation),
    one.state,
    one.createdAt === null ? '' : `${one.createdAt.slice(0, 19)}Z`,
    one.createdAt === null ? '' : `${ageText(one.createdAt)} ago`,
    one.storedBytes === null ? '' : sizeText(one.storedBytes),
    one.rawBytes === null ? '' : `of ${sizeText(one.rawBytes)}`,
    plain(one.host ?? one.reason ?? ''),
  ]);
  const sides = ['right', 'left', 'left', 'right', 'right', 'left', 'left'] as const;
  const holder = job.holder === null ? '' : `, held by ${plain(holderText(job.holder))}`;
  return `${plain(job.url)}  ${job.state}, ${sizeText(job.sizeBytes)}${holder}\n${table(rows, sides, '  ')}`;
}
