// SPDX-License-Identifier: Apache-2.0
/*
 * Definitions of jobs, those in batch-adapters/ and any that the commands can print: against the vendors' own models and against our own code.
 * That the commands of the READMEs print just what is in batch-adapters/ is held by test/integration/batch-aws and batch-gcp.
 */
import { describe, expect, test } from '@jest/globals';
import { RegisterJobDefinitionRequest$ } from '@aws-sdk/client-batch';
import fc from 'fast-check';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type AwsDefinitionRequest, awsDefinition } from '../../src/batch/aws-definition.js';
import { type DefinitionRequest, toldLimitMs } from '../../src/batch/definition.js';
import { gcpJob } from '../../src/batch/gcp-job.js';
import { parseDuration } from '../../src/cli/arguments.js';
import { actionOf } from '../support/aws-batch-fake.js';
import { jobMisfits } from '../support/proto-model.js';
import { misfits } from '../support/sdk-model.js';

function read(path: string): string {
  return readFileSync(join(process.cwd(), 'batch-adapters', path), 'utf8');
}

/** As it is sent. */
function sent(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}

const pairs = fc.array(fc.tuple(fc.string({ minLength: 1 }), fc.string()), { maxLength: 3 });
const common: fc.Arbitrary<DefinitionRequest> = fc.record(
  {
    words: fc.array(fc.string(), { minLength: 1 }),
    imageBase: fc.constant('s3://bucket/jobs'),
    vcpus: fc.integer({ min: 1, max: 96 }),
    memoryMib: fc.integer({ min: 1, max: 1 << 20 }),
    timeLimitMs: fc.integer({ min: 60, max: 14 * 86_400 }).map((seconds) => seconds * 1000),
    attempts: fc.integer({ min: 1, max: 10 }),
    requeueExitCode: fc.integer({ min: 3, max: 255 }),
    variables: pairs,
    labels: pairs,
  },
  { requiredKeys: ['words', 'imageBase', 'vcpus', 'memoryMib', 'attempts', 'requeueExitCode', 'variables', 'labels'] },
);

test('an attempt is told of a limit that comes before the one that it has', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1e6 }), (seconds) => {
      const toldMs = toldLimitMs(seconds * 1000);
      expect(toldMs % 1000).toBe(0);
      expect(toldMs).toBeLessThan(seconds * 1000);
      expect(toldMs).toBeGreaterThanOrEqual(Math.floor(seconds * 0.75) * 1000);
    }),
  );
  expect([60, 1800, 2400, 86_400].map((seconds) => toldLimitMs(seconds * 1000) / 1000)).toEqual([
    45, 1350, 1800, 85_800,
  ]);
});

describe('AWS Batch', () => {
  const more = fc.record<Partial<AwsDefinitionRequest>>(
    { region: fc.string(), role: fc.string(), resubmit: fc.nat() },
    { requiredKeys: [] },
  );
  const definition = JSON.parse(read('aws-batch/job-definition.json')) as ReturnType<typeof awsDefinition>;
  const rulesOf = ({ retryStrategy }: ReturnType<typeof awsDefinition>) => retryStrategy?.evaluateOnExit ?? [];

  test('any definition is one by the SDK’s model, and a wrong one would be seen', () => {
    fc.assert(
      fc.property(common, more, (request, extra) => {
        const made = awsDefinition({ name: 'solve', image: 'i', ...request, ...extra });
        expect(misfits(RegisterJobDefinitionRequest$, sent(made))).toEqual([]);
      }),
    );
    expect(misfits(RegisterJobDefinitionRequest$, definition)).toEqual([]);
    const wrong = { type: 'container', retrystrategy: {}, timeout: { attemptDurationSeconds: '60' }, tags: { a: 1 } };
    expect(misfits(RegisterJobDefinitionRequest$, wrong)).toEqual([
      '.retrystrategy (unknown)',
      '.timeout.attemptDurationSeconds is string',
      '.tags.a is number',
      '.jobDefinitionName (missing)',
    ]);
  });

  test('"run me again" and the loss of a host are retried, and nothing else is', () => {
    const rules = rulesOf(definition);
    expect(rules.length).toBeLessThanOrEqual(5);
    // A pattern may end with an asterisk, and has no other.
    for (const rule of rules) {
      expect([rule.onExitCode, rule.onStatusReason, rule.onReason].join('')).toMatch(/^[A-Za-z0-9.: ]*\*?$/u);
    }
    expect([85, 'host lost' as const].map((end) => actionOf(rules, end))).toEqual(['RETRY', 'RETRY']);
    expect([0, 1, 137, 170, 171].map((end) => actionOf(rules, end))).toEqual(Array(5).fill('EXIT'));
    fc.assert(
      fc.property(common, fc.integer({ min: 0, max: 255 }), (request, code) => {
        const own = rulesOf(awsDefinition({ name: 'solve', image: 'i', ...request }));
        expect(actionOf(own, code)).toBe(code === request.requeueExitCode ? 'RETRY' : 'EXIT');
      }),
    );
  });

  test('the time limit that the container is told leaves ten minutes of the one that it has', () => {
    const { environment = [] } = definition.containerProperties ?? {};
    const told = environment.find(({ name }) => name === 'FASTFREEZE_TIME_LIMIT');
    const limitS = definition.timeout?.attemptDurationSeconds ?? 0;
    expect(parseDuration(told?.value ?? '')).toBe((limitS - 600) * 1000);
  });
});

describe('Google Batch', () => {
  const run = fc.oneof(
    fc.record({ kind: fc.constant('container' as const), image: fc.string() }),
    fc.record({ kind: fc.constant('script' as const), directory: fc.string().map((name) => `/${name}`) }),
  );
  const more = fc.record(
    { machineType: fc.string(), minCpuPlatform: fc.string(), serviceAccount: fc.string(), jobId: fc.string() },
    { requiredKeys: [] },
  );
  const provisioning = fc.constantFrom('SPOT' as const, 'STANDARD' as const);

  test('any job is one by Google’s definition, and a wrong one would be seen', () => {
    fc.assert(
      fc.property(common, run, more, provisioning, (request, where, extra, provisioningModel) => {
        const made = gcpJob({ ...request, run: where, ...extra, provisioningModel, tasks: 3 });
        expect(jobMisfits(sent(made))).toEqual([]);
      }),
    );
    const wrong = { taskgroup: [], taskGroups: [{ taskCount: '1', taskSpec: { maxRunDuration: 60 } }], priority: '1' };
    expect(jobMisfits({ ...wrong, logsPolicy: { destination: 'NOWHERE' } })).toEqual([
      '.taskgroup (unknown)',
      '.taskGroups[0].taskCount is no whole number',
      '.taskGroups[0].taskSpec.maxRunDuration is no duration',
      '.priority is no whole number',
      '.logsPolicy.destination is no Destination',
    ]);
  });

  test.each(['job-container', 'job-script'])('%s: one policy retries 85, lost machines and the time limit', (name) => {
    const job = JSON.parse(read(`gcp-batch/${name}.json`)) as {
      taskGroups: [
        {
          taskSpec: {
            runnables: [{ environment: { variables: Record<string, string> } }];
            maxRunDuration: string;
            lifecyclePolicies: { action: string; actionCondition: { exitCodes: number[] } }[];
          };
        },
      ];
    };
    expect(jobMisfits(job)).toEqual([]);
    const [{ taskSpec }] = job.taskGroups;
    const exitCodes = [85, 50001, 50002, 50003, 50004, 50005, 50006];
    expect(taskSpec.lifecyclePolicies).toEqual([{ action: 'RETRY_TASK', actionCondition: { exitCodes } }]);
    const { FASTFREEZE_TIME_LIMIT: told = '' } = taskSpec.runnables[0].environment.variables;
    expect(parseDuration(told)).toBe((parseDuration(taskSpec.maxRunDuration) ?? 0) - 600_000);
  });

  test('a script says each word as it was', () => {
    const words = ['--', './solve', "it's", 'a b', '$HOME', '*', ''];
    const where = { kind: 'script' as const, directory: '/opt/my solve' };
    const given = { words, imageBase: 'gs://b/j', vcpus: 1, memoryMib: 1, attempts: 1, requeueExitCode: 85 };
    const job = gcpJob({ ...given, variables: [], labels: [], run: where, provisioningModel: 'SPOT', tasks: 1 });
    expect(JSON.stringify(job)).toContain(
      JSON.stringify(
        "#!/bin/sh\ncd '/opt/my solve' && exec /opt/fastfreeze/bin/fastfreeze batch run -- ./solve 'it'\\''s' 'a b' '$HOME' '*' ''\n",
      ),
    );
  });
});

test.each(['aws-batch', 'gcp-batch'])('the image of %s starts fastfreeze itself, in exec form', (adapter) => {
  const words = /^ENTRYPOINT (\[.*\])$/mu.exec(read(`${adapter}/Dockerfile`))?.[1] ?? '[]';
  expect(JSON.parse(words)).toEqual(['/opt/fastfreeze/bin/fastfreeze', 'batch', 'run']);
});
