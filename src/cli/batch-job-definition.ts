// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { NO_FARGATE } from '../batch/aws-batch.js';
import { AWS_LEAST_LIMIT_MS, AWS_MOST_ATTEMPTS, awsDefinition } from '../batch/aws-definition.js';
import { type ParsedArguments, countOption, ownWords, parseOptions, textOption, wrongValue } from './arguments.js';
import type { Command } from './command.js';
import {
  DEFINITION_OPTIONS,
  type Limits,
  definitionRequest,
  formOption,
  missing,
  needed,
  printJson,
  rangeOption,
  theSystem,
  warnOfTag,
} from './definition-options.js';
import { EXIT } from '../engine/exit-codes.js';

const OPTIONS = {
  ...DEFINITION_OPTIONS,
  name: { type: 'string' },
  platform: { type: 'string' },
  region: { type: 'string' },
  role: { type: 'string' },
  attempts: { type: 'string' },
  resubmit: { type: 'string' },
  tag: { type: 'string', multiple: true },
} as const;

const LIMITS: Limits = {
  leastLimitMs: AWS_LEAST_LIMIT_MS,
  noJobId: 'all jobs of the definition would be one: set FASTFREEZE_JOB_ID for a job when it is submitted, if at all',
  reserved: /^AWS_BATCH_/u,
  labels: {
    option: 'tag',
    wrong: ([name, value]) =>
      name.length > 128 || value.length > 256 || /^aws:/iu.test(name) ? 'AWS takes no such tag' : undefined,
  },
};

export const jobDefinitionCommand: Command = {
  name: 'job-definition',
  summary: 'Print a job definition of AWS Batch',
  help: `Usage: fastfreeze batch job-definition aws [OPTIONS] [--] COMMAND [ARGS...]

Prints a job definition of AWS Batch, for aws batch register-job-definition
--cli-input-json: attempts on EC2 that continue each other. COMMAND is what the
container's ENTRYPOINT, fastfreeze batch run, gets; options of batch run and -- may
stand before it: ... -- --checkpoint-every auto -- ./solve in.dat

Options (the first four are needed):
      --name NAME            of the definition
      --image IMAGE          of the container; by digest, since its files must stay as
                             they are from attempt to attempt
      --image-base URL       s3:// or gs://, where the images of all jobs go
      --memory M             in MiB, or as 16G
      --vcpus N              [1]
      --region R             for S3 [that of an IMAGE in Amazon's registry]
      --role ARN             of the job: it may read and write at --image-base
      --time-limit D         for each attempt, 60s or more. The job leaves ten minutes
                             before, or at three quarters of a short one: AWS Batch
                             does not retry a job that has reached it [none]
      --attempts N           1 to ${AWS_MOST_ATTEMPTS} [${AWS_MOST_ATTEMPTS}]
      --resubmit N           after the last of them, the job is submitted again, N times
                             at most; the role needs batch:DescribeJobs,
                             batch:SubmitJob and batch:TagResource [0]
      --env NAME=VALUE       for the application; repeatable
      --tag NAME=VALUE       of definition, job and task; repeatable
      --platform P           EC2; nothing else can freeze [EC2]

Exit status:
    0  printed
    2  the command line is wrong
`,
  ownWords: (args) => Promise.resolve(ownWords(args, OPTIONS, 1)),
  run(args) {
    const parsed = parseOptions(theSystem(args, 'job-definition', 'aws'), OPTIONS, true);
    refuseFargate(parsed);
    const name = formOption(parsed, 'name', /^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/u, 'letters, digits, - and _');
    if (name === undefined) throw missing('name', 'NAME, of the definition');
    const image = needed(parsed, 'image', 'IMAGE, of the container');
    const role = formOption(
      parsed,
      'role',
      /^arn:aws[a-z-]*:iam::\d{12}:role\/\S+$/u,
      'arn:aws:iam::ACCOUNT:role/NAME',
    );
    const region = regionOf(parsed, image);
    const most = AWS_MOST_ATTEMPTS;
    const attempts = rangeOption(parsed, 'attempts', { fallback: most, least: 1, most });
    const request = definitionRequest(parsed, attempts, LIMITS);
    if (region === undefined && request.imageBase.startsWith('s3:')) {
      throw missing('region', 'R: AWS Batch tells a container none, and S3 cannot be used without');
    }
    const resubmit =
      textOption(parsed, 'resubmit') === undefined ? {} : { resubmit: countOption(parsed, 'resubmit', 0, 0) };
    warnOfTag(image);
    printJson(
      awsDefinition({
        ...request,
        name,
        image,
        ...(region === undefined ? {} : { region }),
        ...(role === undefined ? {} : { role }),
        ...resubmit,
      }),
    );
    return Promise.resolve(EXIT.ok);
  },
};

function refuseFargate(parsed: ParsedArguments): void {
  const platform = textOption(parsed, 'platform') ?? 'EC2';
  if (platform.toUpperCase() === 'EC2') return;
  if (platform.toUpperCase() !== 'FARGATE') throw wrongValue('platform', platform, 'expected EC2');
  throw new FastFreezeError({
    code: 'usage',
    op: 'write a definition for',
    subject: platform,
    reason: NO_FARGATE,
    hint: 'leave out --platform, and give the queue a compute environment of EC2 instances',
  });
}

/** ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME tells one. */
function regionOf(parsed: ParsedArguments, image: string): string | undefined {
  const given = formOption(parsed, 'region', /^[a-z]{2}(?:-[a-z]+)+-\d+$/u, 'a region, such as eu-central-1');
  return given ?? /^\d{12}\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com[./]/u.exec(image)?.[1];
}
