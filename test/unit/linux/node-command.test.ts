// SPDX-License-Identifier: Apache-2.0
import { expect, test } from '@jest/globals';
import { commandOf, nodeCommand, nodeFile } from '../../../src/linux/node-command.js';

test('a Node.js that was started as such is started again as such', () => {
  expect(nodeCommand()).toEqual([process.execPath]);
  expect(nodeFile()).toBe(process.execPath);
});

test('one that a loader started is started by that loader, whatever follows', () => {
  const loader = '/a b/ld-linux-x86-64.so.2';
  const words = ['ld', '--library-path', '/a b/lib:/a b/c', '/a b/node', '--no-warnings', '/a b/main.js', 'run', ''];
  expect(commandOf(loader, () => words)).toEqual([loader, '--library-path', '/a b/lib:/a b/c', '/a b/node']);
});

test('other words of a loader are not guessed at', () => {
  const loader = '/lib/ld-linux-x86-64.so.2';
  expect(commandOf(loader, () => [loader, '/usr/bin/node', 'main.js'])).toEqual([loader]);
});
