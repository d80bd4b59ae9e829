// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { readDoubt, readFailure } from '../../../../src/store/cache/said.js';

describe('what the client says of a failure', () => {
  test.each([
    [
      [
        '::debug::Failed to reserve cache: Error: Failed to CreateCacheEntry: Received non-retryable error: Failed request: (409) Conflict: already exists',
        'Failed to save: Unable to reserve cache with key k, another job may be creating this cache.',
      ],
      'taken',
      'Failed to CreateCacheEntry',
    ],
    [
      [
        '::debug::Failed to reserve cache: Error: Failed to CreateCacheEntry: Cache storage quota has been hit. Unable to upload any new cache entries.%0AMore info on storage limits',
      ],
      'full',
      'Cache storage quota has been hit. Unable to upload any new cache entries.',
    ],
    [
      [
        '::warning::Cache reservation failed: x',
        '::debug::Failed to reserve cache: Error: cache write denied: read-only',
      ],
      'denied',
      'cache write denied',
    ],
    [["Cache save skipped: the effective cache-mode 'read' does not permit writes."], 'denied', 'cache-mode'],
    [
      ['::warning::Failed to restore: Unable to make request: ECONNREFUSED%0AIf you are'],
      'passing',
      'Unable to make request: ECONNREFUSED',
    ],
    [['::error::Failed to restore: Failed to GetCacheEntryDownloadURL: Failed request: (503) x'], 'passing', '(503)'],
    [
      [
        'tar: cache.tzst: Cannot write: No space left on device',
        '::warning::Failed to save: "/usr/bin/tar" failed with error: exit code 2',
      ],
      'other',
      'No space left on device',
    ],
    [
      ['::warning::uploadCacheArchiveSDK: internal error uploading cache archive: gone'],
      'other',
      'uploading cache archive: gone',
    ],
  ] as const)('%j is %s', (lines, kind, reason) => {
    const failure = readFailure(['Cache hit for: k', ...lines]);
    expect(failure?.kind).toBe(kind);
    expect(failure?.reason).toContain(reason);
    expect(failure?.reason).not.toContain('\n');
  });

  test('of a rate limit, how long it lasts', () => {
    const lines = [
      "::warning::You've hit a rate limit, your rate limit will reset in 42 seconds",
      '::debug::Failed to reserve cache: Error: Failed to CreateCacheEntry: Rate limited: Failed request: (429) Too Many Requests',
    ];
    expect(readFailure(lines)).toMatchObject({ kind: 'passing', waitMs: 42_000 });
  });

  test('nothing, when a lookup found nothing', () => {
    expect(
      readFailure(['::debug::Resolved Keys:', '::debug::Cache not found for version 1 of keys: k', '']),
    ).toBeUndefined();
  });

  test('and never the signature of an address', () => {
    const said = readFailure(['::warning::Failed to restore: GET https://x.blob/y?sig=SECRET&se=1 failed']);
    expect(said?.reason).toBe('GET https://x.blob/y failed');
  });
});

describe('what is believed of the client', () => {
  const answered = ['::debug::Checking zstd --quiet --version', '::debug::1.5.4', '::debug::zstd version: 1.5.4'];
  const silent = ['::debug::Checking zstd --quiet --version', '::debug::', '::debug::zstd version: null'];
  const miss = '::debug::Cache not found for version 1 of keys: k~, k';

  test.each([
    ['an entry', answered, false, undefined],
    ['no entry, as the service says', [...answered, miss], true, undefined],
    ['no entry, as nobody says', answered, true, 'does not say'],
    ['no entry, where zstd did not answer', [...silent, miss], true, 'zstd did not answer'],
    ['an entry, where zstd did not answer', silent, false, 'zstd did not answer'],
    ['nothing said at all', [], false, 'zstd did not answer'],
    // What an older zstd says has no number that the client can read, and is an answer all the same.
    [
      'an entry, by an old zstd',
      [...answered.slice(0, 1), '::debug::*** zstd v1.3.3 ***', ...silent.slice(2)],
      false,
      undefined,
    ],
  ] as const)('%s', (_, lines, isMiss, reason) => {
    const doubt = readDoubt(lines, isMiss);
    if (reason === undefined) expect(doubt).toBeUndefined();
    else expect(doubt).toMatchObject({ kind: 'passing', reason: expect.stringContaining(reason) as unknown });
  });
});
