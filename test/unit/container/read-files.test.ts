// SPDX-License-Identifier: Apache-2.0
import {
  type BigIntStats,
  appendFileSync,
  chmodSync,
  closeSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createHash } from 'node:crypto';
import { afterAll, describe, expect, test } from '@jest/globals';
import {
  type ReadFile,
  createFileHasher,
  findChangedReadFiles,
  findReadFiles,
  refuseChangedReadFiles,
} from '../../../src/container/read-files.js';
import { readProcess } from '../../../src/container/tree.js';

const dir = mkdtempSync(join(tmpdir(), 'ff-reads-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function overwrite(path: string, at: number, text: string): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, text, at);
  closeSync(fd);
}

async function compare(files: readonly ReadFile[], allow: boolean): Promise<string[]> {
  return refuseChangedReadFiles(await findChangedReadFiles(files), allow);
}

describe('files that a process reads', () => {
  test('are its program, its libraries and what it has open, by their names', () => {
    const self = readProcess(process.pid);
    if (self === undefined) throw new Error('this process has gone');
    const [path, gone, ours] = [join(dir, 'data'), join(dir, 'gone'), join(dir, 'ours')];
    for (const one of [path, gone, ours]) writeFileSync(one, 'x');
    const fds = [path, gone, ours].map((one) => openSync(one, 'r'));
    unlinkSync(gone);
    const found = findReadFiles([self], [ours]);
    for (const fd of fds) closeSync(fd);
    expect(found).toContain(path);
    expect(found.some((one) => /\/libc[.-]/.test(one))).toBe(true);
    expect(found.some((one) => one === ours || one === gone || one.startsWith('/proc/'))).toBe(false);
  });

  test('are told by their content, size and mode', async () => {
    const path = join(dir, 'told');
    writeFileSync(path, 'hello', { mode: 0o644 });
    const files = await createFileHasher().describe([path, join(dir, 'none'), dir]);
    const sha256 = createHash('sha256').update('hello').digest('hex');
    expect(files).toEqual([{ path, sizeBytes: 5, mode: 0o644, sha256, sampled: false }]);
    expect(await compare(files, false)).toEqual([]);

    overwrite(path, 0, 'jello');
    const refused = compare(files, false);
    await expect(refused).rejects.toMatchObject({ code: 'conflict', subject: path, reason: /content is another one/ });
    await expect(refused).rejects.toMatchObject({ hint: /--allow-inexact/ });
    expect(await compare(files, true)).toEqual([expect.stringContaining(`${path}: its content`)]);
    writeFileSync(path, 'hello!');
    expect(await compare(files, true)).toEqual([`${path}: it has 6 bytes here, and had 5`]);
    writeFileSync(path, 'hello');
    chmodSync(path, 0o755);
    expect(await compare(files, true)).toEqual([`${path}: it has mode 755 here, and had 644`]);
    unlinkSync(path);
    expect(await compare(files, true)).toEqual([`${path}: it is not there, or cannot be read`]);
  });

  test('are hashed anew only when they have changed', async () => {
    const path = join(dir, 'cached');
    writeFileSync(path, 'one');
    const hasher = createFileHasher();
    const [first] = await hasher.describe([path]);
    const [second] = await hasher.describe([path]);
    expect(second).toBe(first);
    overwrite(path, 0, 'two');
    const [third] = await hasher.describe([path]);
    expect(third?.sha256).not.toBe(first?.sha256);
  });

  test('are known as long as they stay the same, whoever has hashed them', async () => {
    const [path, large] = [join(dir, 'known'), join(dir, 'sampled')];
    writeFileSync(path, 'one');
    writeFileSync(large, 'large');
    const hasher = createFileHasher({ maxWholeBytes: 4 });
    const stat = (of: string): BigIntStats => statSync(of, { bigint: true });
    expect(hasher.recall(path, stat(path))).toBeUndefined();
    const file = hasher.remember(path, stat(path), 'ab'.repeat(32));
    expect(await hasher.describe([path])).toEqual([file]);
    expect(hasher.recall(path, stat(path))).toBe('ab'.repeat(32));
    appendFileSync(path, '!');
    expect(hasher.recall(path, stat(path))).toBeUndefined();
    // A hash of samples is none of the file.
    await hasher.describe([large]);
    expect(hasher.recall(large, stat(large))).toBeUndefined();
  });

  test('are looked at in places when they are too large', async () => {
    const path = join(dir, 'large');
    writeFileSync(path, Buffer.alloc(40 << 20, 1));
    const files = await createFileHasher({ maxWholeBytes: 1 << 20 }).describe([path]);
    expect(files).toMatchObject([{ sizeBytes: 40 << 20, sampled: true }]);
    expect(await compare(files, true)).toEqual([]);
    for (const at of [0, (40 << 20) - 1]) {
      overwrite(path, at, '\x02');
      expect(await compare(files, true)).toHaveLength(1);
      overwrite(path, at, '\x01');
    }
  });
});
