// SPDX-License-Identifier: Apache-2.0
import { expect, test } from '@jest/globals';
import { hasTimeNamespaces, timeProblem } from '../../../src/container/time.js';

test('clocks continue where there are time namespaces and somebody may make one', () => {
  for (const [container, privileged] of [
    [true, true],
    [true, false],
    [false, true],
  ] as const) {
    expect(timeProblem({ container, privileged, kernelHasThem: true })).toBeUndefined();
  }
});

test('where they would jump, why and what to do is told', () => {
  expect(timeProblem({ container: false, privileged: false, kernelHasThem: true })).toMatchObject({
    code: 'host',
    reason: expect.stringContaining('the clocks of the container that it is in') as unknown,
    hint: expect.stringContaining('--no-container') as unknown,
  });
  for (const privileged of [true, false]) {
    expect(timeProblem({ container: true, privileged, kernelHasThem: false })).toMatchObject({
      code: 'host',
      reason: 'this kernel has no time namespaces',
      hint: expect.stringContaining('CONFIG_TIME_NS') as unknown,
    });
  }
});

test('the kernel is asked, not assumed', () => {
  const situation = { container: true, privileged: true };
  expect(timeProblem(situation) === undefined).toBe(hasTimeNamespaces());
});
