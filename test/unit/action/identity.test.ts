// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { defaultJobId } from '../../../src/action/identity.js';

const ENV = {
  GITHUB_REPOSITORY: 'ann/research',
  GITHUB_WORKFLOW: 'train',
  GITHUB_WORKFLOW_REF: 'ann/research/.github/workflows/train.yml@refs/heads/main',
  GITHUB_JOB: 'train',
  GITHUB_RUN_ID: '7',
  GITHUB_ACTION: '__fastfreeze_action',
};

describe('the name of a job that nobody has named', () => {
  test('is one folder in every store, with what people look for in front', () => {
    expect(defaultJobId(ENV, 'null', undefined)).toMatch(/^ann-research-train-7-[0-9a-f]{12}$/);
  });

  test('is the same in a re-run, in legs that only count, in runs of a chain, and however a matrix is ordered', () => {
    const id = defaultJobId(ENV, '{"os":"a","segment":1}', undefined);
    expect(defaultJobId({ ...ENV, GITHUB_RUN_ATTEMPT: '2' }, '{"segment":2,"os":"a"}', undefined)).toBe(id);
    expect(defaultJobId({ ...ENV, GITHUB_RUN_ID: '8' }, '{"os":"a"}', '7')).toBe(id);
  });

  test('is no longer than the name of a job may be', () => {
    const long = 'x'.repeat(99);
    const id = defaultJobId(
      { ...ENV, GITHUB_REPOSITORY: `${long}/y`, GITHUB_JOB: long, GITHUB_RUN_ID: '1'.repeat(20) },
      'null',
      '2'.repeat(40),
    );
    expect(id.length).toBeLessThanOrEqual(100);
  });

  test.each([
    ['repository', { GITHUB_REPOSITORY: 'ann/other' }, 'null'],
    ['workflow', { GITHUB_WORKFLOW_REF: 'ann/research/.github/workflows/test.yml@refs/heads/main' }, 'null'],
    ['job', { GITHUB_JOB: 'test' }, 'null'],
    ['run', { GITHUB_RUN_ID: '8' }, 'null'],
    ['step', { GITHUB_ACTION: '__fastfreeze_action_2' }, 'null'],
    ['leg of a matrix', {}, '{"os":"b"}'],
  ])('is another for another %s', (_, more, matrix) => {
    expect(defaultJobId({ ...ENV, ...more }, matrix, undefined)).not.toBe(defaultJobId(ENV, 'null', undefined));
  });

  test('cannot be made where there is no runner', () => {
    expect(() => defaultJobId({}, 'null', undefined)).toThrow(/GITHUB_REPOSITORY is not set: this is no GitHub runner/);
  });
});
