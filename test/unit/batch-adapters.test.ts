// SPDX-License-Identifier: Apache-2.0
/* What batch-adapters/ gives users to fill in: against the fields and limits that the vendors publish, and against our own code. */
import { describe, expect, test } from '@jest/globals';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseDuration } from '../../src/cli/arguments.js';

/** A shape: a check of a leaf, a list of one shape, or an object; `?` marks fields that may be missing. */
type Shape = ((value: unknown) => boolean) | readonly [Shape] | { readonly [field: string]: Shape };

const text =
  (pattern = /^.+$/su) =>
  (value: unknown): boolean =>
    typeof value === 'string' && pattern.test(value);
const count =
  (least: number, most = Number.MAX_SAFE_INTEGER) =>
  (value: unknown): boolean =>
    Number.isSafeInteger(value) && Number(value) >= least && Number(value) <= most;
const isTrue = (value: unknown): boolean => value === true;
const variables = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && Object.values(value).every((one) => typeof one === 'string');

/** Paths of what does not fit. */
function misfits(shape: Shape, value: unknown, path = ''): string[] {
  if (typeof shape === 'function') return shape(value) ? [] : [path];
  if (Array.isArray(shape)) {
    const [each] = shape as readonly [Shape];
    return Array.isArray(value) ? value.flatMap((one, i) => misfits(each, one, `${path}[${i}]`)) : [path];
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [path];
  const fields = shape as Readonly<Record<string, Shape>>;
  const given = value as Readonly<Record<string, unknown>>;
  const unknown = Object.keys(given).filter((name) => !(name in fields) && !(`${name}?` in fields));
  return [
    ...unknown.map((name) => `${path}.${name} (unknown)`),
    ...Object.entries(fields).flatMap(([field, each]) => {
      const name = field.replace(/\?$/u, '');
      if (given[name] === undefined) return field.endsWith('?') ? [] : [`${path}.${name} (missing)`];
      return misfits(each, given[name], `${path}.${name}`);
    }),
  ];
}

/** RegisterJobDefinition of AWS Batch, as far as the definition goes. */
const JOB_DEFINITION: Shape = {
  jobDefinitionName: text(/^[A-Za-z0-9_-]{1,128}$/u),
  type: text(/^container$/u),
  platformCapabilities: [text(/^EC2$/u)],
  retryStrategy: {
    attempts: count(1, 10),
    evaluateOnExit: [
      {
        // A pattern may end with an asterisk, and has no other.
        'onExitCode?': text(/^[0-9]{1,511}\*?$/u),
        'onStatusReason?': text(/^[A-Za-z0-9.: ]{1,511}\*?$/u),
        'onReason?': text(/^[A-Za-z0-9.: ]{0,511}\*?$/u),
        action: text(/^(?:RETRY|EXIT)$/u),
      },
    ],
  },
  timeout: { attemptDurationSeconds: count(60) },
  containerProperties: {
    image: text(/@sha256:[0-9a-f]{64}$/u),
    command: [text()],
    privileged: isTrue,
    linuxParameters: { initProcessEnabled: isTrue },
    jobRoleArn: text(/^arn:aws:iam::\d{12}:role\//u),
    resourceRequirements: [{ type: text(/^(?:VCPU|MEMORY|GPU)$/u), value: text(/^\d+$/u) }],
    environment: [{ name: text(), value: text() }],
  },
};

const RUNNABLE: Shape = {
  'container?': { imageUri: text(/@sha256:[0-9a-f]{64}$/u), commands: [text()], options: text() },
  'script?': { text: text() },
  environment: { variables },
};

/** `batch.v1.Job` of Google, as far as the jobs go. */
const JOB: Shape = {
  taskGroups: [
    {
      taskCount: count(1, 10_000),
      taskSpec: {
        runnables: [RUNNABLE],
        computeResource: { cpuMilli: count(1), memoryMib: count(1) },
        maxRunDuration: text(/^\d+s$/u),
        maxRetryCount: count(0, 10),
        lifecyclePolicies: [{ action: text(/^RETRY_TASK$/u), actionCondition: { exitCodes: [count(1)] } }],
      },
    },
  ],
  allocationPolicy: {
    instances: [
      { policy: { machineType: text(), minCpuPlatform: text(), provisioningModel: text(/^(?:SPOT|STANDARD)$/u) } },
    ],
  },
  logsPolicy: { destination: text(/^CLOUD_LOGGING$/u) },
};

function read(path: string): string {
  return readFileSync(join(process.cwd(), 'batch-adapters', path), 'utf8');
}

describe('AWS Batch', () => {
  const definition = JSON.parse(read('aws-batch/job-definition.json')) as {
    retryStrategy: { evaluateOnExit: Record<string, string>[] };
    timeout: { attemptDurationSeconds: number };
    containerProperties: { environment: { name: string; value: string }[] };
  };

  test('the definition has the fields and values of RegisterJobDefinition, and a wrong one would be seen', () => {
    expect(misfits(JOB_DEFINITION, definition)).toEqual([]);
    const wrong = { ...definition, timeout: { attemptDurationSeconds: 59 }, retrystrategy: {} };
    expect(misfits(JOB_DEFINITION, wrong)).toEqual(['.retrystrategy (unknown)', '.timeout.attemptDurationSeconds']);
  });

  test('85 and the loss of a host are retried, and nothing else is', () => {
    const rules = definition.retryStrategy.evaluateOnExit;
    expect(rules.length).toBeLessThanOrEqual(5);
    const fits = (pattern: string | undefined, value: string): boolean =>
      pattern === undefined || (pattern.endsWith('*') ? value.startsWith(pattern.slice(0, -1)) : value === pattern);
    /** As the service goes through the rules; what none fits is retried. */
    const action = (exitCode: string, statusReason: string, reason: string): string =>
      rules.find(
        (rule) =>
          fits(rule['onExitCode'], exitCode) &&
          fits(rule['onStatusReason'], statusReason) &&
          fits(rule['onReason'], reason),
      )?.['action'] ?? 'RETRY';
    const exited = 'Essential container in task exited';
    expect(action('85', exited, '')).toBe('RETRY');
    expect(action('', 'Host EC2 (instance i-0abc) terminated.', '')).toBe('RETRY');
    expect(['0', '1', '137', '170', '171'].map((code) => action(code, exited, ''))).toEqual(Array(5).fill('EXIT'));
  });

  test('the time limit that the container is told leaves ten minutes of the one that it has', () => {
    const told = definition.containerProperties.environment.find(({ name }) => name === 'FASTFREEZE_TIME_LIMIT');
    expect(parseDuration(told?.value ?? '')).toBe((definition.timeout.attemptDurationSeconds - 600) * 1000);
  });
});

describe.each(['job-container', 'job-script'])('Google Batch, %s', (name) => {
  const job = JSON.parse(read(`gcp-batch/${name}.json`)) as {
    taskGroups: [
      {
        taskSpec: {
          runnables: [
            { container?: object; script?: { text: string }; environment: { variables: Record<string, string> } },
          ];
          maxRunDuration: string;
          lifecyclePolicies: [{ actionCondition: { exitCodes: number[] } }];
        };
      },
    ];
  };
  const [{ taskSpec }] = job.taskGroups;

  test('has the fields and values of batch.v1.Job, and a wrong one would be seen', () => {
    expect(misfits(JOB, job)).toEqual([]);
    expect(misfits(JOB, { ...job, taskgroup: [] })).toEqual(['.taskgroup (unknown)']);
    const [runnable] = taskSpec.runnables;
    expect([runnable.container, runnable.script].filter((one) => one !== undefined)).toHaveLength(1);
  });

  test('one policy retries 85, lost machines and the time limit; the limit that is told leaves ten minutes of it', () => {
    expect(taskSpec.lifecyclePolicies).toHaveLength(1);
    expect(taskSpec.lifecyclePolicies[0].actionCondition.exitCodes).toEqual([
      85, 50001, 50002, 50003, 50004, 50005, 50006,
    ]);
    const { FASTFREEZE_TIME_LIMIT: told = '' } = taskSpec.runnables[0].environment.variables;
    expect(parseDuration(told)).toBe((parseDuration(taskSpec.maxRunDuration) ?? 0) - 600_000);
  });
});

test.each(['aws-batch', 'gcp-batch'])('the image of %s starts fastfreeze itself, in exec form', (adapter) => {
  const words = /^ENTRYPOINT (\[.*\])$/mu.exec(read(`${adapter}/Dockerfile`))?.[1] ?? '[]';
  expect(JSON.parse(words)).toEqual(['/opt/fastfreeze/bin/fastfreeze', 'batch', 'run', '--']);
});
