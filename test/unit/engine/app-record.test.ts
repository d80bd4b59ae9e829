// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { FastFreezeError } from '../../../src/base/errors.js';
import { type AppRecord, appRecordToJson, parseAppRecord } from '../../../src/engine/app-record.js';

const record: AppRecord = {
  command: ['python3', 'train.py', ''],
  pid: 1000,
  taken: [1000, 1001, 1002, 1200],
  processes: 3,
  residentBytes: 123_456_789,
  clocks: { monotonicNs: 2n ** 60n, boottimeNs: 5n },
  privileged: false,
  identity: { uid: 1001, gid: 100 },
  streams: [
    { kind: 'pipe', role: 'stdin', fds: [0], resource: 'pipe:[123]', ended: true, pendingBytes: 7 },
    {
      kind: 'pipe',
      role: 'stdout',
      fds: [1, 2],
      resource: 'pipe:[124]',
      ended: false,
      pendingBytes: 0,
      file: { path: '/var/log/out', lengthBytes: 99 },
    },
    { kind: 'terminal', role: 'terminal', fds: [0, 1, 2], resource: 'tty[8801:3f]', ended: false, pendingBytes: 0 },
    { kind: 'file', role: 'stdin', fds: [0], resource: '', ended: false, pendingBytes: 0 },
  ],
  affinity: [{ tid: 1001, cpus: '0-3,8' }],
  removedSegments: [0, 32769],
  appending: [{ path: '/var/log/app log', lengthBytes: 12 }],
  reads: [{ path: '/usr/bin/python3', sizeBytes: 5_000_000, mode: 0o755, sha256: 'ab'.repeat(32), sampled: false }],
  inexact: ['1001 (x), descriptor 4: an eventfd'],
  outsideSockets: 2,
  files: { paths: ['/data'], openFiles: true, roots: ['/data', '/srv/log'], entries: 7, dataBytes: 8 },
  carried: { files: 12, dataBytes: 3_000_000 },
  cpu: { baseline: 'x86-64-v3', masked: ['aes'], features: ['pni', 'avx2', '3dnow'] },
};

type Json = string | number | boolean | null | Json[] | { [key: string]: Json };
const stored = (): Json => JSON.parse(JSON.stringify(appRecordToJson(record))) as Json;

/** Every place in a JSON value, as the keys that lead to it. */
function places(value: Json, path: readonly (string | number)[] = []): (string | number)[][] {
  if (typeof value !== 'object' || value === null) return [[...path]];
  const keys = Array.isArray(value) ? value.map((_, i) => i) : Object.keys(value);
  return [
    [...path],
    ...keys.flatMap((key) => places((value as Record<string | number, Json>)[key] ?? null, [...path, key])),
  ];
}

function replaced(value: Json, path: readonly (string | number)[], by: Json | undefined): Json {
  const [key, ...rest] = path;
  if (key === undefined) return by ?? null;
  const copy = (Array.isArray(value) ? [...value] : { ...(value as object) }) as Record<string | number, Json>;
  if (rest.length === 0 && by === undefined) Reflect.deleteProperty(copy, key);
  else copy[key] = replaced(copy[key] ?? null, rest, by);
  return copy;
}

function outcome(json: unknown): 'accepted' | FastFreezeError {
  try {
    parseAppRecord(json);
    return 'accepted';
  } catch (error) {
    if (error instanceof FastFreezeError) return error;
    throw error;
  }
}

describe('the record of an application', () => {
  test('comes back as it was', () => {
    expect(parseAppRecord(stored())).toEqual(record);
  });

  const optional = new Set([
    'identity',
    'streams.1.file',
    'files',
    'carried',
    'cpu',
    'outsideSockets',
    'removedSegments',
  ]);
  const cases = places(stored()).map((path) => [path.join('.'), path] as const);

  test.each(cases)('is refused with an error of the image when %j is of another type or missing', (name, path) => {
    const now = path.reduce<Json>((value, key) => (value as Record<string | number, Json>)[key] ?? null, stored());
    const others: Json[] = [null, 'nonsense', -1, 1.5, true, [null], { x: 1 }, 2 ** 60];
    for (const by of others) {
      const fits =
        (typeof by === 'string' &&
          typeof now === 'string' &&
          /command|path$|cpus|inexact|cpu\.(masked|features)\./.test(name)) ||
        (typeof by === 'boolean' && typeof now === 'boolean');
      if (fits) continue;
      const result = outcome(replaced(stored(), path, by));
      expect(result === 'accepted' ? [name, by] : result.code).toBe('image');
    }
    if (typeof path.at(-1) === 'number' || optional.has(name) || path.length === 0) return;
    expect(outcome(replaced(stored(), path, undefined))).toMatchObject({ code: 'image' });
  });

  test.each([
    ['taken', '1000-999'],
    ['taken', '0-99999999'],
    ['clocks.monotonicNs', '-1'],
    ['clocks.boottimeNs', '99999999999999999999'],
    ['streams.0.kind', 'socket'],
    ['streams.0.role', 'stdlog'],
    ['streams.0.resource', 'pipe:[1]:--evil'],
    ['streams.0.resource', 'pipe:[1]\n'],
    ['streams.0.resource', 'tty[xyz:1]'],
    ['streams.0.resource', 'socket:[1]'],
    ['streams.0.pendingBytes', -1],
    ['reads.0.sha256', 'AB'.repeat(32)],
    ['files.roots.0', '/'],
    ['files.roots.0', '/data/../etc'],
    ['files.roots.0', 'data'],
    ['files.paths.0', '/proc/sys'],
    ['cpu.baseline', 'fleet:/etc/fleet'],
    ['cpu.features.0', 'avx; rm'],
    ['cpu.masked.0', ''],
  ])('is refused with %s = %j', (name, value) => {
    expect(
      outcome(
        replaced(
          stored(),
          name.split('.').map((key) => (/^\d+$/.test(key) ? Number(key) : key)),
          value,
        ),
      ),
    ).toMatchObject({
      code: 'image',
      hint: expect.stringContaining('--no-restore') as unknown,
    });
  });

  test('is accepted or refused with an error of the image, whatever it is', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.jsonValue(),
          fc.jsonValue().map((value) => ({ ...(stored() as object), streams: value })),
        ),
        (json) => {
          const result = outcome(json);
          return result === 'accepted' || result.code === 'image';
        },
      ),
      { numRuns: 300 },
    );
  });
});
