// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { FileHash } from '../../../src/files/file-bytes.js';

describe('the hash of a hole', () => {
  test('lets everything else go on meanwhile', async () => {
    const hash = new FileHash();
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    try {
      await hash.fill(1 << 30);
    } finally {
      clearInterval(timer);
    }
    expect(ticks).toBeGreaterThan(0);
  });

  test('ends when it is called off', async () => {
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 1);
    await expect(new FileHash().finish(2 ** 52, stop.signal)).rejects.toMatchObject({ code: 'aborted' });
  });

  test('is that of the zeroes', async () => {
    const [before, between] = [100_000, (65 << 20) + 7];
    const hash = new FileHash();
    await hash.fill(before);
    hash.add(Buffer.from('data'));
    await hash.fill(before + 4);
    const whole = Buffer.alloc(before + 4 + between);
    whole.write('data', before);
    expect(await hash.finish(whole.length)).toBe(createHash('sha256').update(whole).digest('hex'));
  });
});
