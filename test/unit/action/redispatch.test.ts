// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type Chain, dispatch, nextLink, readChain } from '../../../src/action/redispatch.js';
import { type GitHubApi, startGitHubApi } from '../../support/github-api.js';

const further = (generation: number) => ({ generation, whyStalled: undefined });
const FIRST: Chain = { rootRunId: '7', run: 1, generation: 0, stalls: 0 };
const event = (inputs: Record<string, unknown>) => ({ inputs, isPrivate: undefined });

describe('a chain of runs', () => {
  test('is told to the next run, and understood there', () => {
    expect(readChain(event({ fastfreeze: '7.2.5.1' }))).toEqual({ rootRunId: '7', run: 2, generation: 5, stalls: 1 });
    expect(readChain(event({ fastfreeze: '' }))).toBeUndefined();
    expect(readChain(event({}))).toBeUndefined();
    expect(() => readChain(event({ fastfreeze: 'x' }))).toThrow(
      /it is not what a run before this one would have given/,
    );
  });

  test('goes on with each new checkpoint, up to the last run that it may have', () => {
    expect(nextLink(FIRST, further(1), 3)).toEqual({ rootRunId: '7', run: 2, generation: 1, stalls: 0 });
    expect(refusal(() => nextLink({ ...FIRST, run: 3 }, further(9), 3))).toMatchObject({
      message: expect.stringContaining('this was run 3 of at most 3'),
      // The first run of its own ID, which a run that is started by hand does not have.
      hint: 'start the workflow by hand with fastfreeze: 7.1.9.0, which continues it; or raise max-runs',
    });
  });

  test('stops when two runs in a row have left no new checkpoint', () => {
    const stalled = nextLink({ ...FIRST, generation: 4 }, further(4), 20);
    expect(stalled).toMatchObject({ stalls: 1 });
    expect(() => nextLink(stalled, further(4), 20)).toThrow(
      /2 runs in a row .*; in this one there is no new checkpoint/,
    );
    expect(nextLink(stalled, further(5), 20)).toMatchObject({ stalls: 0 });
  });

  test('stops when two have only restored the command and saved it again', () => {
    const idle = (generation: number) => ({ generation, whyStalled: 'the command ran for 0.1 s' });
    const once = nextLink({ ...FIRST, generation: 4 }, idle(5), 20);
    expect(once).toMatchObject({ generation: 5, stalls: 1 });
    expect(refusal(() => nextLink(once, idle(6), 20))).toMatchObject({
      message: expect.stringContaining('2 runs in a row have made no progress; in this one the command ran for 0.1 s'),
      hint: expect.stringContaining('start the workflow by hand with fastfreeze: 7.1.6.0'),
    });
    expect(nextLink(once, further(6), 20)).toMatchObject({ stalls: 0 });
  });
});

function refusal(body: () => unknown): unknown {
  try {
    return body();
  } catch (error) {
    return error;
  }
}

describe('starting the next run', () => {
  let api: GitHubApi;
  const env = (): Record<string, string> => ({
    GITHUB_API_URL: api.url,
    GITHUB_REPOSITORY: 'ann/research',
    GITHUB_REF: 'refs/heads/main',
    GITHUB_WORKFLOW_REF: 'ann/research/.github/workflows/train.yml@refs/heads/main',
  });
  beforeEach(async () => {
    api = await startGitHubApi();
    api.tokens.set('strong', 'write').set('weak', 'read');
  });
  afterEach(async () => await api.close());

  test('forwards the inputs of this run, and tells the page of the next', async () => {
    api.declared = ['fastfreeze', 'epochs'];
    const page = await dispatch(env(), 'strong', event({ epochs: '9', fastfreeze: '7.1.0.0' }), { ...FIRST, run: 2 });
    expect(page).toBe('https://github.com/ann/research/actions/runs/8000000001');
    expect(api.dispatched).toEqual([
      { runId: '8000000001', ref: 'main', inputs: { epochs: '9', fastfreeze: '7.2.0.0' } },
    ]);
  });

  test.each([
    ['weak', {}, /answered 403: Resource not accessible by integration/, /actions: write/],
    ['none', {}, /answered 401/, /actions: write/],
    ['strong', { other: 'x' }, /answered 422: Unexpected inputs provided: \["other"\]/, /an input named fastfreeze/],
  ])('a refusal is told with its remedy: token %s, inputs %j', async (token, inputs, reason, hint) => {
    const outcome = dispatch(env(), token, event(inputs), FIRST);
    await expect(outcome).rejects.toMatchObject({
      message: expect.stringMatching(reason),
      hint: expect.stringMatching(hint),
    });
    expect(api.dispatched).toEqual([]);
  });

  test('the run of a pull request cannot be started again', async () => {
    const pull = { ...env(), GITHUB_REF: 'refs/pull/5/merge' };
    await expect(dispatch(pull, 'strong', event({}), FIRST)).rejects.toThrow(/neither a branch nor a tag/);
  });
});
