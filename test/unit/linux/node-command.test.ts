// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { commandOf, nodeCommand, nodeFile } from '../../../src/linux/node-command.js';
import { unshareCommand } from '../../../src/linux/unshare-command.js';

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

test("unshare is the package's own where there is one beside its Node.js, else the machine's", () => {
  const folder = mkdtempSync(join(tmpdir(), 'ff-unshare-'));
  try {
    const node = ['/l/ld-linux-x86-64.so.2', '--library-path', '/l', join(folder, 'node')];
    expect(unshareCommand(node)).toEqual(['unshare']);
    writeFileSync(join(folder, 'unshare'), '');
    expect(unshareCommand(node)).toEqual([...node.slice(0, 3), join(folder, 'unshare')]);
    expect(unshareCommand([join(folder, 'node')])).toEqual(['unshare']);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
