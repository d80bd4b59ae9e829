// SPDX-License-Identifier: Apache-2.0
import { posix } from 'node:path';
import { FastFreezeError } from '../base/errors.js';
import { GCP_MOST_RETRIES, GCP_MOST_TASKS, type GcpJobRequest, gcpJob } from '../batch/gcp-job.js';
import { jobUrl } from '../store/job-url.js';
import { type ParsedArguments, ownWords, parseOptions, textOption, wrongValue } from './arguments.js';
import type { Command } from './command.js';
import {
  DEFINITION_OPTIONS,
  type Limits,
  definitionRequest,
  formOption,
  printJson,
  rangeOption,
  theSystem,
  warnOfTag,
} from './definition-options.js';
import { EXIT } from '../engine/exit-codes.js';

const OPTIONS = {
  ...DEFINITION_OPTIONS,
  directory: { type: 'string' },
  'machine-type': { type: 'string' },
  'min-cpu-platform': { type: 'string' },
  provisioning: { type: 'string' },
  'service-account': { type: 'string' },
  'job-id': { type: 'string' },
  retries: { type: 'string' },
  tasks: { type: 'string' },
  label: { type: 'string', multiple: true },
} as const;

const LIMITS: Limits = {
  // What an attempt is told of it is less, and must not be nothing.
  leastLimitMs: 2_000,
  noJobId: 'give --job-id before the first --: the index of a task is added to it',
  reserved: /^BATCH_/u,
  labels: {
    option: 'label',
    wrong: (pair) =>
      /^[a-z][a-z0-9_-]{0,62}$/u.test(pair[0]) && /^[a-z0-9_-]{0,63}$/u.test(pair[1])
        ? undefined
        : 'expected small letters, digits, - and _',
  },
};

export const jobCommand: Command = {
  name: 'job',
  summary: 'Print a job of Google Batch',
  help: `Usage: fastfreeze batch job gcp [OPTIONS] [--] COMMAND [ARGS...]

Prints a job of Google Batch, for gcloud batch jobs submit --config: tasks that are
run again when they were frozen or their machine was lost. COMMAND is what fastfreeze
batch run gets; options of batch run and -- may stand before it:
... -- --checkpoint-every auto -- ./solve in.dat

Options (--image-base, --memory and one of the first two are needed):
      --image IMAGE          a container, whose ENTRYPOINT is fastfreeze batch run; by
                             digest, since its files must stay as they are from attempt
                             to attempt
      --directory DIR        no container: COMMAND runs in DIR of the machine itself,
                             whose image has fastfreeze in /opt/fastfreeze
      --image-base URL       gs:// or s3://, where the images of all jobs go
      --memory M             of a task, in MiB, or as 16G
      --vcpus N              of a task [1]
      --machine-type T       such as n2-standard-4 [Batch chooses]
      --min-cpu-platform P   such as 'Intel Ice Lake': a restored application needs the
                             CPU features that it has seen
      --provisioning P       SPOT or STANDARD [SPOT]
      --service-account A    e-mail address: it may read and write at --image-base
      --job-id ID            continue the job of that ID; the index of a task is added
                             [a new job: Batch names it]
      --time-limit D         for each attempt. The job leaves ten minutes before, or at
                             three quarters of a short one [none]
      --retries N            0 to ${GCP_MOST_RETRIES}, for all reasons together [${GCP_MOST_RETRIES}]
      --tasks N              1 to ${GCP_MOST_TASKS} [1]
      --env NAME=VALUE       for the application; repeatable
      --label NAME=VALUE     of the job; repeatable

Exit status:
    0  printed
    2  the command line is wrong
`,
  ownWords: (args) => Promise.resolve(ownWords(args, OPTIONS, 1)),
  run(args) {
    const parsed = parseOptions(theSystem(args, 'job', 'gcp'), OPTIONS, true);
    const run = whereToRun(parsed);
    const machineType = formOption(parsed, 'machine-type', /^[a-z][a-z0-9-]*$/u, 'a type such as n2-standard-4');
    const minCpuPlatform = formOption(
      parsed,
      'min-cpu-platform',
      /^[A-Z][A-Za-z0-9 -]*$/u,
      "a name such as 'Intel Ice Lake'",
    );
    const account = formOption(parsed, 'service-account', /^[^@\s]+@[^@\s]+$/u, 'an e-mail address');
    const jobId = textOption(parsed, 'job-id');
    if (jobId !== undefined) jobUrl('gs://any', jobId);
    const most = GCP_MOST_RETRIES;
    const retries = rangeOption(parsed, 'retries', { fallback: most, least: 0, most });
    const request = definitionRequest(parsed, retries + 1, LIMITS);
    const job = gcpJob({
      ...request,
      run,
      ...(machineType === undefined ? {} : { machineType }),
      ...(minCpuPlatform === undefined ? {} : { minCpuPlatform }),
      provisioningModel: provisioning(parsed),
      ...(jobId === undefined ? {} : { jobId }),
      ...(account === undefined ? {} : { serviceAccount: account }),
      tasks: rangeOption(parsed, 'tasks', { fallback: 1, least: 1, most: GCP_MOST_TASKS }),
    });
    if (run.kind === 'container') warnOfTag(run.image);
    printJson(job);
    return Promise.resolve(EXIT.ok);
  },
};

function whereToRun(parsed: ParsedArguments): GcpJobRequest['run'] {
  const image = textOption(parsed, 'image');
  const directory = formOption(parsed, 'directory', /^\/[^\0\n]*$/u, 'an absolute path');
  if (image !== undefined && image !== '' && directory === undefined) return { kind: 'container', image };
  if (image === undefined && directory !== undefined) return { kind: 'script', directory: posix.normalize(directory) };
  throw new FastFreezeError({
    code: 'usage',
    op: 'write the job',
    reason: 'one of --image and --directory is needed, and not both',
    hint: '--image IMAGE runs a container, --directory DIR a script on the machine itself',
  });
}

function provisioning(parsed: ParsedArguments): 'SPOT' | 'STANDARD' {
  const text = (textOption(parsed, 'provisioning') ?? 'SPOT').toUpperCase();
  if (text === 'SPOT' || text === 'STANDARD') return text;
  throw wrongValue('provisioning', text, 'expected SPOT or STANDARD');
}
